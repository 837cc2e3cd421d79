from __future__ import annotations

import json
import os

import numpy as np
import pytest
from export_models import pictures, settle, small_model

from export.convert import onnx, tflite
from export.runtime import runtimes
from tl_keras.errors import ExportError
from tl_keras.models import onnx_graph

TOLERANCE = {"tflite": 1e-4, "onnx": 1e-5}


@pytest.fixture(scope="module")
def plain():
    return small_model()


@pytest.fixture(scope="module", params=["softmax", "sigmoid", "linear"])
def model(request):
    return small_model(request.param)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    (folder / "model.tflite").write_bytes(tflite.convert(model))
    (folder / "model.onnx").write_bytes(onnx.convert(model, ("ä b", "c,d", "猫")))
    model.save(folder / "model.keras")
    return folder


@pytest.mark.parametrize("name", ["tflite", "onnx"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_converted_model_answers_as_keras_does(model, files, name, batch):
    import keras

    inputs = pictures(batch)
    expected = keras.ops.convert_to_numpy(model(inputs.astype("float32"), training=False))
    answers = runtimes.load(files / f"model.{name}").predict(inputs)
    assert answers.dtype == np.float32
    assert answers.shape == (batch, 3)
    np.testing.assert_allclose(answers, expected, atol=TOLERANCE[name], rtol=0)
    assert (answers.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("activation", ["gelu", "silu", "hard_swish", "elu", "leaky_relu"])
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_every_activation_of_the_bases_answers_as_in_keras(tmp_path, name, activation):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 60, offset=-2.0)(image)
    curved = keras.layers.Activation(activation)(keras.layers.Conv2D(8, 3)(scaled))
    values = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(curved))
    model, inputs = keras.Model(image, values), pictures(6, size=8)
    file = tmp_path / f"model.{name}"
    file.write_bytes({"tflite": tflite, "onnx": onnx}[name].convert(model))
    expected = model.predict(inputs.astype("float32"), verbose=0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(runtimes.load(file).predict(inputs), expected, atol=1e-5, rtol=0)


def test_an_onnx_graph_without_copies_of_its_weights_is_the_same(plain, monkeypatch):
    import contextlib

    from onnx import load_from_string
    from tf2onnx.graph import Node

    before = Node.update_proto
    monkeypatch.delenv("TF2ONNX_CATCH_ERRORS", raising=False)
    spared = load_from_string(onnx.convert(plain)).graph
    assert (Node.update_proto, os.environ.get("TF2ONNX_CATCH_ERRORS")) == (before, None)
    monkeypatch.setattr(onnx_graph, "_without_copies", contextlib.nullcontext)
    copied = load_from_string(onnx.convert(plain)).graph
    assert [node.op_type for node in spared.node] == [node.op_type for node in copied.node]
    values = [[one.raw_data for one in graph.initializer] for graph in (spared, copied)]
    assert len(values[0]) > 5 and sorted(values[0]) == sorted(values[1])


def test_a_pass_of_the_optimizer_that_fails_is_left_out(plain, monkeypatch, tmp_path):
    from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer

    seen = []

    def fail(self, graph):
        seen.append(os.environ.get("TF2ONNX_CATCH_ERRORS"))
        raise RuntimeError("no pass")

    monkeypatch.delenv("TF2ONNX_CATCH_ERRORS", raising=False)
    monkeypatch.setattr(IdentityOptimizer, "_optimize", fail)
    (tmp_path / "model.onnx").write_bytes(onnx.convert(plain))
    assert seen[0] == "FALSE" and set(seen[1:]) == {None}, "first without copies, then with them"
    inputs = pictures(3)
    expected = np.asarray(plain(inputs.astype("float32"), training=False))
    found = runtimes.load(tmp_path / "model.onnx").predict(inputs)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE["onnx"], rtol=0)


def test_a_failed_conversion_to_onnx_leaves_its_tool_as_it_was(plain, monkeypatch):
    from tf2onnx import convert
    from tf2onnx.graph import Node

    before = Node.update_proto
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "TRUE")
    monkeypatch.setattr(convert, "from_function", None)
    with pytest.raises(ExportError, match="cannot be converted"):
        onnx.convert(plain)
    assert (Node.update_proto, os.environ["TF2ONNX_CATCH_ERRORS"]) == (before, "TRUE")


@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_zeros_around_negative_values_count_in_their_maximum(tmp_path, name):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(-1 / 255, offset=-0.5)(image)
    padded = keras.layers.ZeroPadding2D(1)(keras.layers.DepthwiseConv2D(
        1, depthwise_initializer="ones")(scaled))  # fmt: skip
    values = keras.layers.Flatten()(keras.layers.MaxPooling2D(3, 2)(padded))
    model, inputs = keras.Model(image, values), pictures(6, size=8)
    file = tmp_path / f"model.{name}"
    file.write_bytes({"tflite": tflite, "onnx": onnx}[name].convert(model))
    expected = model.predict(inputs.astype("float32"), verbose=0)
    assert (expected == 0).any() and (expected < -0.5).any()
    np.testing.assert_allclose(runtimes.load(file).predict(inputs), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["tflite", "onnx", "keras"])
def test_a_runtime_gives_no_answer_for_no_picture(files, name):
    assert runtimes.load(files / f"model.{name}").predict(pictures(0)).shape == (0, 3)


@pytest.mark.parametrize("name", ["tflite", "onnx", "keras"])
def test_a_runtime_refuses_pictures_of_another_size(files, name):
    with pytest.raises(ExportError, match=r"expected image \(n, 16, 16, 3\)"):
        runtimes.load(files / f"model.{name}").predict(pictures(2, size=17))


@pytest.mark.parametrize("name", ["tflite", "onnx", "keras"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, name):
    file = tmp_path / f"cut.{name}"
    file.write_bytes(b"\x08\x07not a model" * 5)
    with pytest.raises(ExportError, match=rf"cut\.{name} (cannot be loaded|is no saved model)"):
        runtimes.load(file)


def test_a_missing_file_and_an_unknown_ending_are_refused(tmp_path):
    with pytest.raises(ExportError, match="There is no file"):
        runtimes.load(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="expected .tflite, .onnx or .keras"):
        runtimes.load(tmp_path / "model.pt")


def test_an_onnx_file_says_what_goes_in_and_what_comes_out(files):
    import onnx as reader

    proto = reader.load(files / "model.onnx")
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(facts["class_names"]) == ["ä b", "c,d", "猫"]
    assert facts["input"] == "image: float32 (batch, 16, 16, 3), RGB, 0..255, no scaling"
    assert [tensor.name for tensor in proto.graph.input] == ["image"]
    assert [tensor.name for tensor in proto.graph.output] == ["probabilities"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_tflite_file_can_be_asked_by_the_names_of_its_tensors(model, files):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(files / "model.tflite"))
    runner = interpreter.get_signature_runner("serving_default")
    one = pictures(1).astype("float32")
    answer = runner(image=one)["probabilities"]
    np.testing.assert_allclose(answer, model.predict(one, verbose=0), atol=1e-4)


@pytest.mark.parametrize("convert", [tflite.convert, onnx.convert])
def test_conversion_leaves_the_terminal_alone(plain, convert, capfd):
    capfd.readouterr()
    convert(plain)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("convert", [tflite.convert, onnx.convert])
def test_conversion_leaves_the_model_as_it_was(plain, convert):
    before = [weight.numpy().copy() for weight in plain.weights]
    flags = [layer.trainable for layer in plain.layers]
    convert(plain)
    assert flags == [layer.trainable for layer in plain.layers]
    assert all((a == b.numpy()).all() for a, b in zip(before, plain.weights, strict=True))


@pytest.mark.parametrize("convert", [tflite.convert, onnx.convert])
def test_a_model_of_open_size_is_refused(convert):
    import keras

    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ExportError, match="build it for one size"):
        convert(keras.Model(inputs, outputs))


@pytest.mark.parametrize("convert", [tflite.convert, onnx.convert])
def test_a_model_with_two_outputs_is_refused(convert):
    import keras

    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    heads = [keras.layers.Dense(2)(pooled), keras.layers.Dense(3)(pooled)]
    with pytest.raises(ExportError, match="2 outputs; expected one"):
        convert(keras.Model(inputs, heads))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "onnx"])
def test_mobilenet_v2_answers_in_every_format_as_in_keras(name, tmp_path):
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((96, 96, 3))
    base = keras.applications.MobileNetV2(
        input_tensor=keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs),
        include_top=False,
        weights=None,
        pooling="avg",
    )
    settle(base, pictures(16, 96))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(base.output))
    convert = {"tflite": tflite.convert, "onnx": onnx.convert}[name]
    (tmp_path / f"model.{name}").write_bytes(convert(model))
    expected = model.predict(pictures(6, 96).astype("float32"), verbose=0)
    answers = runtimes.load(tmp_path / f"model.{name}").predict(pictures(6, 96))
    assert expected.std() > 0.01
    np.testing.assert_allclose(answers, expected, atol=TOLERANCE[name], rtol=0)
