from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_models import pictures, settle, small_model

from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges
from export.quantize.recipes import RECIPES, choose_recipes, find_recipe
from export.quantize.search import TOOLS
from export.runtime.runtimes import load
from tl_keras.errors import ExportError


@pytest.fixture(scope="module")
def model():
    made = small_model()
    settle(made, pictures(32))
    return made


# Without these instructions ONNX Runtime adds products of 8 bits in 16, which may saturate.
CPU = Path("/proc/cpuinfo")
VNNI = not CPU.exists() or "vnni" in CPU.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def floats(model):
    found = {"tflite": tflite.convert(model), "onnx": onnx.convert(model, ("a", "b", "c"))}
    ranges = {
        name: clip_ranges(TOOLS[name].observe(contents, {"image": pictures(40)}))
        for name, contents in found.items()
    }
    return found, ranges


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda one: f"{one.format}-{one.name}")
def test_each_recipe_answers_nearly_as_keras_does(model, floats, recipe, tmp_path):
    contents, ranges = (one[recipe.format] for one in floats)
    made = TOOLS[recipe.format].quantize(contents, recipe, ranges if recipe.calibrated else None)
    (tmp_path / recipe.file).write_bytes(made)
    truth = model.predict(pictures(7).astype("float32"), verbose=0)
    given = load(tmp_path / recipe.file).predict(pictures(7))
    assert given.shape == truth.shape
    exact = recipe.format == "tflite" or recipe.weights == "int4" or VNNI
    assert 0 < np.abs(given - truth).max() < (0.05 if exact else 0.25)


def test_a_recipe_of_one_format_alone_is_noted_and_one_of_none_refused():
    found, notes = choose_recipes(["fp32", "int8", "dynamic_int4"], ["tflite", "onnx"])
    names = [(one.format, one.name) for one in found]
    assert names == [("tflite", "int8"), ("tflite", "dynamic_int4"), ("onnx", "int8")]
    assert notes == ["onnx has no recipe dynamic_int4: skipped."]
    with pytest.raises(ExportError, match="Did you mean dynamic_int"):
        choose_recipes(["dynamic_int"], ["tflite"])


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_layers_are_named_from_input_to_output_and_one_alone_errs_less(floats, name, tmp_path):
    contents, ranges = (one[name] for one in floats)
    layers = TOOLS[name].list_layers(contents)
    assert len(layers) == 3
    differ = {}
    plain = tmp_path / f"plain.{name}"
    plain.write_bytes(contents)
    truth = load(plain).predict(pictures(30))
    for what, options in {"all": {}, "one": {"only": layers[2]}}.items():
        file = tmp_path / f"{what}.{name}"
        recipe = find_recipe("int8", name)
        file.write_bytes(TOOLS[name].quantize(contents, recipe, ranges, **options))
        differ[what] = np.abs(load(file).predict(pictures(30)) - truth).mean()
    assert 0 < differ["one"] < differ["all"]


def details(contents, tmp_path):
    file = tmp_path / "x.tflite"
    file.write_bytes(contents)
    interpreter = load(file)._interpreter
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def test_bytes_go_in_and_out_of_tflite_as_the_recipe_says(floats, tmp_path):
    contents, ranges = (one["tflite"] for one in floats)
    for name, kinds, zero in (
        ("int8_in_out", (np.int8, np.int8), -128), ("int8_uint8_out", (np.uint8, np.uint8), 0)
    ):  # fmt: skip
        made = TOOLS["tflite"].quantize(contents, find_recipe(name, "tflite"), ranges)
        taken, given = details(made, tmp_path)
        assert (taken["dtype"], given["dtype"]) == kinds
        assert taken["quantization"] == (1.0, zero)
        # Probabilities fill the whole range of a byte.
        assert given["quantization"] == (pytest.approx(1 / 256), zero)


def test_onnx_takes_bytes_without_a_step_that_rounds_them_first(floats, tmp_path):
    import onnx as package

    contents, ranges = (one["onnx"] for one in floats)
    answers = []
    for name in ("int8", "int8_uint8_in"):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(TOOLS["onnx"].quantize(contents, find_recipe(name, "onnx"), ranges))
        answers.append(load(file).predict(pictures(9)))
    graph = package.load(file).graph
    assert graph.input[0].type.tensor_type.elem_type == package.TensorProto.UINT8
    first = [node.op_type for node in graph.node if graph.input[0].name in node.input]
    assert first == ["DequantizeLinear"]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_symmetric_int8_has_zero_in_the_middle_and_no_rounded_biases(floats):
    import onnx as package
    from onnx import numpy_helper

    contents, ranges = (one["onnx"] for one in floats)
    made = TOOLS["onnx"].quantize(contents, find_recipe("int8_symmetric", "onnx"), ranges)
    graph = package.load_from_string(made).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in pairs if len(node.input) > 2]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not any(array.dtype == np.int32 for array in constants.values() if array.ndim)


def wide_model():
    import keras

    keras.utils.set_random_seed(5)
    layers = keras.layers
    inputs = layers.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(64, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(128, 1, activation="relu")(x)
    x = layers.Conv2D(64, 1)(x)
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Softmax()(x))


@pytest.mark.parametrize(
    ("name", "format_"),
    [("int4", "tflite"), ("dynamic_int4_block32", "tflite"), ("weight_int4_block32", "onnx")],
)
def test_four_bits_halve_a_wide_file_and_a_kept_layer_has_eight(name, format_, tmp_path):
    from export.runtime.inspect import inspect_model

    model, recipe = wide_model(), find_recipe(name, format_)
    contents = {"tflite": tflite, "onnx": onnx}[format_].convert(model)
    tool, ranges, sizes, weights = TOOLS[format_], None, [], []
    if recipe.calibrated:
        ranges = clip_ranges(tool.observe(contents, {"image": pictures(20)}))
    layers = tool.list_layers(contents)
    truth = model.predict(pictures(7).astype("float32"), verbose=0)
    for keep in ((), (layers[1],)):
        file = tmp_path / recipe.file
        file.write_bytes(tool.quantize(contents, recipe, ranges, keep))
        assert np.abs(load(file).predict(pictures(7)) - truth).max() < 0.2
        weights.append(inspect_model(file).weights)
        sizes.append(file.stat().st_size)
    packed = 64 * 128 + 128 * 64 + 64 * 27
    assert weights[0]["int4"] >= packed
    assert weights[0]["int4"] - weights[1]["int4"] == 64 * 128
    assert sizes[1] - sizes[0] > 0.4 * 64 * 128
    assert sizes[0] < 0.4 * len(contents)
