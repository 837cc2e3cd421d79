"""SavedModels become bases of stock layers: equal to their source, and refused where they are not.

The SavedModels are made here, by Keras 3 (`model.export`), tf_keras (`model.save`), TensorFlow 1
and TensorFlow 2, with random weights and random BatchNorm statistics.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models import graph
from tl_keras.models.backbones import opaque, saved_model_folder
from tl_keras.models.backbones.load import build_backbone, describe
from tl_keras.models.backbones.requirements import required_packages
from tl_keras.models.backbones.saved_model_checks import difference, photos
from tl_keras.models.backbones.weights import load_user_model
from tl_keras.models.build import build_model

# Name in keras.applications -> side, settings, and what the SavedModel takes.
NETS = {
    "MobileNetV2": (64, {"alpha": 0.35}, "-1..1"),
    "MobileNetV3Small": (64, {}, "0..255"),
    "EfficientNetB0": (64, {}, "0..255"),
    "EfficientNetV2B0": (64, {}, "0..255"),
    "ResNet50V2": (64, {}, "-1..1"),
    "DenseNet121": (64, {}, "0..1"),
    "InceptionV3": (75, {}, "-1..1"),
    "Xception": (71, {}, "-1..1"),
    "VGG16": (64, {}, "0..255"),
    "ConvNeXtTiny": (64, {}, "0..255"),
    "NASNetMobile": (224, {}, "-1..1"),
}
RANGES = {"0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0), "0..255": (1.0, 0.0)}


def library(kind: str):
    import tf_keras

    return {"keras": keras, "tf_keras": tf_keras}[kind]


def randomize(model) -> None:
    """Give BatchNorm layers parameters that none of them starts with."""
    rng = np.random.default_rng(7)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([
                rng.uniform(0.8, 1.2, w.shape) if "gamma" in w.name or "variance" in w.name
                else rng.normal(0, 0.1, w.shape) for w in layer.weights])  # fmt: skip


def make(kind: str, name: str, folder: Path, top: bool = True):
    """A network as a SavedModel, and the model that it was made of."""
    side, settings, _ = NETS[name]
    lib = library(kind)
    lib.utils.set_random_seed(3)
    build = getattr(lib.applications, name)
    model = build(weights=None, input_shape=(side, side, 3), include_top=top, **settings,
                  **({"classes": 7} if top else {}))
    randomize(model)
    if kind == "keras":
        model.export(str(folder), verbose=False)
    else:
        model.save(str(folder), save_format="tf")
    return model


def kinds(layers) -> Counter:
    """Classes of layers, as far as they compute: what Keras writes in two ways counts as one."""
    alike = {"ReLU": "Activation", "Normalization": "Rescaling", "TFOpLambda": ""}
    names = Counter(alike.get(type(layer).__name__, type(layer).__name__) for layer in layers)
    return Counter({name: count for name, count in names.items()
                    if name not in ("Dropout", "InputLayer", "Rescaling", "")})


def source_features(model, layer: str, images: np.ndarray) -> np.ndarray:
    cut = type(model)(model.input, model.get_layer(layer).output)
    return np.asarray(cut(tf.constant(images), training=False))


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "mobilenet"
    model = make("tf_keras", "MobileNetV2", folder)
    return folder, model, build_backbone(f"hub:{folder}?range=-1..1")


def test_every_layer_comes_back_with_its_own_parameters_and_name(mobilenet):
    _, source, base = mobilenet
    ours = {layer.name: layer for layer in base.layers}
    theirs = [layer for layer in source.layers if layer.weights and layer.name != "predictions"]
    assert len(theirs) == len([layer for layer in base.layers if layer.weights]) == 104
    for layer in theirs:
        for wanted, got in zip(layer.get_weights(), ours[layer.name].get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)
        if "momentum" in layer.get_config():
            twin = ours[layer.name].get_config()
            assert (twin["momentum"], twin["epsilon"]) == (
                layer.momentum, pytest.approx(layer.epsilon))  # fmt: skip


def test_a_rewritten_base_is_the_source_in_inference_and_in_training(mobilenet):
    _, source, base = mobilenet
    pixels = photos(64)
    images = pixels / 127.5 - 1
    assert difference(source_features(source, "out_relu", images), np.asarray(base(pixels))) < 1e-5
    cut = type(source)(source.input, source.get_layer("out_relu").output)
    before = base.get_weights()
    wanted = np.asarray(cut(images, training=True))
    assert difference(wanted, np.asarray(base(pixels, training=True))) < 1e-3
    moved = source.get_layer("bn_Conv1").moving_mean.numpy()
    np.testing.assert_allclose(base.get_layer("bn_Conv1").moving_mean, moved, atol=1e-6)
    base.set_weights(before)


def test_a_rewritten_base_has_the_cuts_and_blocks_of_the_built_in_one(mobilenet):
    _, _, base = mobilenet
    known = build_backbone("mobilenet_v2@0.35", size=64, weights=None)
    assert [cut.layer for cut in graph.cut_points(base)] == [
        cut.layer for cut in graph.cut_points(known)]
    assert graph.blocks(base) == graph.blocks(known)


def test_a_rewritten_base_is_adapted_saved_and_loaded_like_any(mobilenet, tmp_path):
    from tl_keras.peft.lora import apply_lora

    folder, _, _ = mobilenet
    model = build_model(f"hub:{folder}?range=-1..1", 3)
    wanted = model.predict(photos(64), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(photos(64), verbose=0), wanted)
    adapted = apply_lora(model, ["block_1*_project"], rank=2)
    np.testing.assert_allclose(adapted.predict(photos(64), verbose=0), wanted, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [
    ("MobileNetV2", "keras"),
    *(pytest.param(name, kind, marks=pytest.mark.slow) for name in NETS
      for kind in ("keras", "tf_keras") if name != "MobileNetV2")])  # fmt: skip
def test_networks_of_keras_applications_come_back_layer_by_layer(name, kind, tmp_path):
    source = make(kind, name, tmp_path / "net")
    side, _, taken = NETS[name]
    base = build_backbone(f"hub:{tmp_path / 'net'}?range={taken}", size=side)
    scale, offset = RANGES[taken]
    pixels = photos(side)
    end = base.layers[-1].name
    if name not in ("ConvNeXtTiny", "MobileNetV3Small"):  # have operators without a layer's name
        wanted = source_features(source, end, pixels * scale + offset)
        assert difference(wanted, np.asarray(base(pixels))) < 1e-4
        left = ("Dense", "Flatten", "GlobalAveragePooling2D")
        counted, got = kinds(source.layers), kinds(base.layers)
        assert {k: v for k, v in counted.items() if k not in left} == {
            k: v for k, v in got.items() if k not in left}
    # The whole way of the source, from the features that the base gives.
    loaded = tf.saved_model.load(str(tmp_path / "net"))
    call = loaded if kind == "tf_keras" else loaded.serve
    assert call(tf.constant(pixels * scale + offset)).shape == (4, 7)
    assert len(graph.cut_points(base)) > (5 if name == "NASNetMobile" else 15)
    assert len(base.output.shape) == 4


def net(images, kernel, act=tf.nn.relu):
    x = act(tf.nn.conv2d(images, kernel, 2, "SAME"))
    return tf.reduce_mean(x, [1, 2])


KERNEL = np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 8)).astype(np.float32)
IMAGE = tf.TensorSpec((None, 16, 16, 3), tf.float32)


def save(folder: Path, function, *specs, signatures: str | None = "serving_default") -> str:
    """A function as a SavedModel with a signature; returns the base's name."""
    module = tf.Module()
    module.kernel = tf.Variable(KERNEL)
    traced = tf.function(lambda *args: function(*args, module.kernel), input_signature=specs,
                         autograph=False)
    chosen = {signatures: traced} if signatures else None
    tf.saved_model.save(module, str(folder), signatures=chosen)
    return f"hub:{folder}"


@pytest.mark.parametrize("signature", ["serving_default", "image_feature_vector", "mine"])
def test_a_module_with_only_a_signature_gives_the_map_before_its_pooling(signature, tmp_path):
    name = save(tmp_path / "m", net, IMAGE, signatures=signature)
    assert describe(name).default_size == 16
    base = build_backbone(name)
    assert base.output.shape == (None, 8, 8, 8)
    images = photos(16)
    np.testing.assert_allclose(
        tf.reduce_mean(base(images), [1, 2]), net(images / 255, KERNEL), rtol=1e-4, atol=1e-5)


def test_a_module_of_tensorflow_1_keeps_its_batchnorm(tmp_path):
    rng = np.random.default_rng(1)
    norm = [rng.uniform(0.5, 1.5, 8).astype(np.float32) for _ in range(4)]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3))
        with tf.compat.v1.variable_scope("Net/Conv"):
            kernel, *parts = (
                tf.compat.v1.get_variable(f"v{i}", initializer=v) for i, v in enumerate(
                    [KERNEL, *norm]))
            x = tf.nn.conv2d(images, kernel, 1, "SAME")
            x = tf.compat.v1.nn.fused_batch_norm(
                x, *parts, epsilon=0.01, is_training=False, name="BatchNorm/Fused")[0]
            x = tf.nn.relu6(x)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "m"), {"images": images}, {"default": x})
    base = build_backbone(f"hub:{tmp_path / 'm'}")
    found = next(one for one in base.layers if type(one).__name__ == "BatchNormalization")
    for wanted, got in zip(norm, found.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert (found.epsilon, base.layers[-1].max_value) == (pytest.approx(0.01), 6.0)


class Reusable(tf.Module):
    """A module by TF-Hub's conventions: called with images 0..1, and how BatchNorm is to learn."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(KERNEL)
        self.mean, self.variance = (
            tf.Variable(tf.random.uniform((8,), 0.5, 1.5, seed=i), trainable=False)
            for i in range(2))

    @tf.function
    def __call__(self, images, training=False, batch_norm_momentum=0.9):
        x = tf.nn.conv2d(images * 2.0 - 1.0, self.kernel, 1, "SAME")
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            for old, new in ((self.mean, mean), (self.variance, variance)):
                old.assign(old * batch_norm_momentum + new * (1.0 - batch_norm_momentum))
        return tf.nn.relu(tf.nn.batch_normalization(x, mean, variance, None, None, 1e-3))


def test_a_module_by_the_conventions_of_tf_hub_trains_as_it_does(tmp_path, caplog):
    module = Reusable()
    for training in (False, True):
        module.__call__.get_concrete_function(
            IMAGE, training=training, batch_norm_momentum=tf.TensorSpec((), tf.float32))
    tf.saved_model.save(module, str(tmp_path / "m"))
    base = build_backbone(f"hub:{tmp_path / 'm'}", size=16)
    assert caplog.text == ""  # 0..1, since the graph scales from there
    assert base.get_layer("input_scaling").scale == pytest.approx(2 / 255)
    norm = next(one for one in base.layers if type(one).__name__ == "BatchNormalization")
    assert (norm.momentum, norm.scale, norm.center) == (pytest.approx(0.9), False, False)
    np.testing.assert_array_equal(norm.moving_mean, module.mean)
    images = photos(16)
    wanted = module(images / 255, training=True)
    np.testing.assert_allclose(base(images, training=True), wanted, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, module.variance, rtol=1e-4)


ACTIVATIONS = {
    "silu": lambda x: x * tf.sigmoid(1.0 * x),
    "hard_silu": lambda x: x * tf.nn.relu6(x + 3) * (1 / 6),
    "hard_sigmoid": lambda x: tf.minimum(tf.maximum(x / 6 + 0.5, 0), 1),
    "gelu": lambda x: tf.nn.gelu(x),
    "mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
    "tanh": lambda x: 2 * tf.sigmoid(2 * x) - 1,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_of_several_operations_gets_its_name(name, tmp_path):
    def run(images, kernel):
        return ACTIVATIONS[name](tf.nn.conv2d(images, kernel, 1, "VALID"))

    base = build_backbone(save(tmp_path / "m", run, IMAGE))
    last = base.layers[-1]
    assert keras.activations.serialize(last.activation) == name


def test_normalizations_poolings_cuts_and_sums_become_their_layers(tmp_path):
    def run(images, kernel):
        x = tf.nn.conv2d(images, kernel, 1, "SAME")
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        x = tf.nn.batch_normalization(x, mean, variance, tf.ones(8) * 2, tf.ones(8), 1e-3)
        return tf.nn.max_pool2d(x, 2, 2, "SAME") / 3 + x[:, 4:12, :8, :] - 0.5

    base = build_backbone(save(tmp_path / "m", run, IMAGE))
    assert kinds(base.layers) == {"Conv2D": 1, "LayerNormalization": 1, "MaxPooling2D": 1,
                                  "Cropping2D": 1, "Add": 1}  # fmt: skip


@pytest.mark.parametrize(("option", "scaled", "scale", "offset"), [
    ("", False, 1 / 255, 0.0), ("?range=0..1", False, 1 / 255, 0.0),
    ("?range=-1..1", False, 1 / 127.5, -1.0), ("?range=0..255", False, None, None),
    ("", True, 1 / 127.5, -1.0)])  # fmt: skip
def test_the_input_is_scaled_to_what_the_savedmodel_takes(
    option, scaled, scale, offset, tmp_path, caplog
):
    def run(images, kernel):
        return net(images / 127.5 - 1.0 if scaled else images, kernel)

    base = build_backbone(save(tmp_path / "m", run, IMAGE) + option)
    warned = "0..1 is assumed" in caplog.text
    assert warned == (not option and not scaled)
    found = [layer for layer in base.layers if layer.name == "input_scaling"]
    assert len(found) == (scale is not None)
    if found:
        assert found[0].scale == pytest.approx(scale) and found[0].offset == pytest.approx(offset)


def test_without_weights_a_base_is_random(tmp_path):
    name = save(tmp_path / "m", net, IMAGE)
    own = build_backbone(name).get_weights()[0]
    np.testing.assert_array_equal(own, KERNEL)
    assert not np.array_equal(build_backbone(name, weights=None).get_weights()[0], KERNEL)
    with pytest.raises(ModelError, match="expected default or none"):
        build_backbone(name, weights="imagenet")


def test_a_handle_is_found_in_the_cache_and_missed_in_one_line(tmp_path, monkeypatch):
    handle = "https://tfhub.dev/someone/net_16/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    save(tmp_path / "m", net, IMAGE)
    place = tmp_path / "cache" / hashlib.sha1(handle.encode()).hexdigest()
    place.parent.mkdir()
    shutil.copytree(tmp_path / "m", place)
    assert describe(f"hub:{handle}").default_size == 16
    assert build_backbone(f"hub:{handle}").output.shape == (None, 8, 8, 8)


def loop(images, kernel):
    return tf.while_loop(lambda x: tf.reduce_sum(x) < 0, lambda x: [x + 1], [images])[0]


def two_inputs(images, other, kernel):
    return net(images + other, kernel)


def strings(text, kernel):
    return tf.strings.length(text)


def reads(images, kernel):
    return net(images, kernel) + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), float)


@pytest.mark.parametrize(("function", "specs", "message"), [
    (two_inputs, (IMAGE, IMAGE), "has 2 inputs .*expected one"),
    (strings, (tf.TensorSpec((None,), tf.string),), "takes string; expected float32 images"),
    (net, (tf.TensorSpec((2, 16, 16, 3)),), "exactly 2 images at a time"),
    (lambda images, kernel: tf.matmul(images, kernel[0, 0]), (tf.TensorSpec((None, 3)),),
     r"takes \(None, 3\); expected float images"),
    (lambda images, kernel: tf.sort(net(images, kernel)), (IMAGE,), "stands for .*TopKV2"),
    (loop, (IMAGE,), "no stock layer of Keras stands for .*While"),
    (reads, (IMAGE,), "reads or writes files .*ReadFile"),
    (lambda images, kernel: {"a": net(images, kernel), "b": images}, (IMAGE,),
     "several outputs .*(a, b|b, a)"),
])  # fmt: skip
def test_a_savedmodel_of_something_else_is_refused_in_one_line(function, specs, message, tmp_path):
    name = save(tmp_path / "m", function, *specs)
    with pytest.raises(ModelError, match=message) as caught:
        build_backbone(name, size=16)
    assert "\n" not in str(caught.value)


def test_loops_of_tensorflow_1_are_named(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.disable_control_flow_v2()
        images = tf.compat.v1.placeholder(tf.float32, (None, 16, 16, 3))
        x = tf.compat.v1.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (0, images))[1]
        tf.compat.v1.enable_control_flow_v2()
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "m"), {"images": images}, {"default": x})
    with pytest.raises(ModelError, match="no stock layer of Keras stands for") as caught:
        build_backbone(f"hub:{tmp_path / 'm'}")
    assert "\n" not in str(caught.value)


def cumulate(images, kernel):
    x = tf.nn.conv2d(images, kernel, 2, "SAME")
    return tf.cumsum(x, axis=1)


def test_what_cannot_be_rewritten_is_taken_as_one_frozen_layer_that_says_so(tmp_path):
    name = save(tmp_path / "m", cumulate, IMAGE)
    with pytest.raises(ModelError, match=r"stands for Cumsum .*hub:.*\?opaque"):
        build_backbone(name)
    model = build_model(f"{name}?opaque", 3)
    images = photos(16)
    features = keras.Model(model.input, model.get_layer("opaque_graph").output)
    np.testing.assert_allclose(features(images), cumulate(images / 255, KERNEL), rtol=1e-4,
                               atol=1e-4)
    assert required_packages(model) == ["tl_keras"]
    assert [point.layer for point in graph.cut_points(model)][:3] == [
        "pixels", "input_scaling", "opaque_graph"]
    model.save(tmp_path / "m.keras")
    shutil.rmtree(tmp_path / "m")
    wanted = np.asarray(model(images))
    opaque._GRAPHS.clear()
    np.testing.assert_array_equal(load_user_model(tmp_path / "m.keras")(images), wanted)
    with pytest.raises(ModelError, match="leave out .opaque"):
        build_backbone(f"{save(tmp_path / 'm', cumulate, IMAGE)}?opaque", weights=None)


def test_a_graph_that_reads_files_is_refused_in_a_keras_file_too(tmp_path, monkeypatch):
    model = build_model(f"{save(tmp_path / 'm', cumulate, IMAGE)}?opaque", 3)
    monkeypatch.setattr(saved_model_folder, "_FORBIDDEN", ("Cumsum",))
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="is refused"):
        load_user_model(tmp_path / "m.keras")


def cut(folder: Path) -> None:
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-2000])


def lose_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def cut_variables(folder: Path) -> None:
    path = next((folder / "variables").glob("*.data-*"))
    path.write_bytes(path.read_bytes()[:100])


def lose_graph(folder: Path) -> None:
    (folder / "saved_model.pb").unlink()


@pytest.mark.parametrize(("harm", "message"), [
    (cut, "damaged or cut short"), (lose_variables, "cannot be loaded"),
    (cut_variables, "cannot be loaded"), (lose_graph, "it has no saved_model.pb")])  # fmt: skip
def test_a_damaged_folder_is_refused_in_one_line(harm, message, tmp_path):
    name = save(tmp_path / "m", net, IMAGE)
    harm(tmp_path / "m")
    with pytest.raises(ModelError, match=message) as caught:
        build_backbone(name, size=16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "message"), [
    ("hub:/nowhere/at/all", "no such folder"), ("hub:/etc/passwd", "no folder"),
    ("hub:/tmp?range=0..2", "expected one of 0..1"), ("hub:/tmp?x=1", "expected hub:/tmp.range"),
    ("hub:", "expected hub:FOLDER"),
])  # fmt: skip
def test_a_name_that_leads_nowhere_is_refused(name, message):
    with pytest.raises(ModelError, match=message):
        build_backbone(name)


def test_without_a_signature_there_is_nothing_to_rewrite(tmp_path):
    name = save(tmp_path / "m", net, IMAGE, signatures=None)
    with pytest.raises(ModelError, match="has no signature and cannot be called"):
        build_backbone(name)


def test_another_size_than_the_savedmodels_own_is_refused(tmp_path):
    name = save(tmp_path / "m", net, IMAGE)
    with pytest.raises(ModelError, match="expected 16 px to 16"):
        build_backbone(name, size=32)


def test_a_run_opens_when_the_folder_of_its_base_is_gone():
    assert describe("hub:/nowhere/at/all").default_size == 224


@pytest.mark.slow
def test_an_unreachable_handle_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    with pytest.raises(DownloadError, match="download and unpack it"):
        build_backbone("hub:https://localhost:1/net/1")


@pytest.mark.slow
def test_a_trained_savedmodel_goes_the_whole_way_to_int8(tmp_path):
    """The features of a trained net are worth what they were: as the built-in base, and in int8."""
    from typer.testing import CliRunner

    from export.cli.app import app as export_app
    from tl_keras.cli.app import app

    build_backbone("small_resnet").export(str(tmp_path / "net"), verbose=False)
    run = tmp_path / "run"
    done = CliRunner().invoke(
        app, ["fit", "digits", "--base", f"hub:{tmp_path / 'net'}", "--out", str(run)])
    assert done.exit_code == 0, done.output
    facts = json.loads((run / "run.json").read_text())
    assert facts["metrics"]["test"]["accuracy"]["value"] > 0.95
    assert facts["requires"] == []
    shutil.rmtree(tmp_path / "net")  # a run stands alone
    done = CliRunner().invoke(export_app, [
        str(run), "--to", "tflite,onnx", "--quantize", "int8", "--out", str(tmp_path / "b.zip")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "b.zip").stat().st_size < 4e6
