from __future__ import annotations

import json
import os
import shutil

import numpy as np
import onnx
import pytest
from bundle_models import NAMES
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from export.cli.app import app
from export.runtime.inspect import inspect_model
from tl_keras.errors import ExportError


@pytest.fixture(scope="module")
def files(toys):
    return {variant.name: variant.path for variant in toys[1]}


def test_a_float_file_is_described_without_running_it(files, toys):
    found = inspect_model(files["tflite-fp32"])
    (taken,), (given,) = found.inputs, found.outputs
    assert (taken.shape, taken.dtype, taken.scale) == ((1, 16, 16, 3), "float32", None)
    assert (given.shape, given.dtype) == ((1, 3), "float32")
    assert found.operators["conv_2d"] == found.operators["depthwise_conv_2d"] == 1
    assert found.quantized_operators == found.quantized_weights == 0.0
    assert found.weights["float32"] <= toys[0].model.count_params() + 6
    assert found.labels == NAMES
    assert found.bytes == files["tflite-fp32"].stat().st_size


def test_an_int8_file_tells_how_much_of_it_is_quantized(files):
    found = inspect_model(files["tflite-int8"])
    assert (found.inputs[0].dtype, found.inputs[0].scale) == ("uint8", pytest.approx(1.0))
    assert found.quantized_weights > 0.9
    assert 0.8 < found.quantized_operators < 1.0, "the last one turns the answer into floats"
    assert "TFLITE_METADATA" in found.metadata


def test_an_onnx_file_tells_its_open_batch_its_classes_and_its_input(files):
    found = inspect_model(files["onnx-fp32"])
    assert found.inputs[0].shape == ("batch", 16, 16, 3)
    assert found.labels == NAMES
    assert "RGB" in found.metadata["input"]
    assert found.operators["Conv"] == 2
    assert found.quantized_weights == 0.0


def test_in_onnx_an_operator_between_two_moves_counts_as_quantized(tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.uint8(0), "zero")
    names = [("QuantizeLinear", "x", "q"), ("DequantizeLinear", "q", "d")]
    moves = [helper.make_node(kind, [a, "scale", "zero"], [b]) for kind, a, b in names]
    nodes = [*moves, helper.make_node("Relu", ["d"], ["r"]), helper.make_node("Exp", ["r"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scale, zero])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert inspect_model(tmp_path / "m.onnx").quantized_operators == 3 / 4


@pytest.mark.parametrize("name", ["tflite-fp32", "onnx-fp32"])
def test_a_file_that_is_cut_or_something_else_is_an_error_with_its_reason(files, tmp_path, name):
    file = tmp_path / files[name].name
    file.write_bytes(b"not at all, but some more bytes than a head has")
    with pytest.raises(ExportError, match="is no "):
        inspect_model(file)
    shutil.copy(files[name], file)
    os.truncate(file, file.stat().st_size // 3)
    with pytest.raises(ExportError, match="damaged"):
        inspect_model(file)


def test_the_command_shows_what_matters(files):
    result = CliRunner().invoke(app, ["inspect", str(files["tflite-int8"])])
    assert result.exit_code == 0, result.output
    for words in ("uint8 1 × 16 × 16 × 3", "conv_2d", "% of the weights", *NAMES):
        assert words in " ".join(result.stdout.split()).replace(" │ │ ", " ")


@pytest.mark.parametrize("name", ["model.pt", "nowhere.onnx"])
def test_a_mistake_is_one_message_and_exit_code_2(tmp_path, name):
    (tmp_path / "model.pt").write_bytes(b"x")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / name)])
    assert result.exit_code == 2
    assert name in " ".join(result.stderr.split())


def test_class_names_that_do_not_read_are_left_out(files, tmp_path):
    model = onnx.load(files["onnx-fp32"])
    for entry in model.metadata_props:
        if entry.key == "class_names":
            entry.value = json.dumps(NAMES)[:-3]
    onnx.save(model, tmp_path / "m.onnx")
    assert inspect_model(tmp_path / "m.onnx").labels == ()
