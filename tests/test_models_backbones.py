from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models.backbones import load as bases
from tl_keras.models.backbones import preprocessing as scaling
from tl_keras.models.backbones import registry
from tl_keras.models.backbones import weights as loading
from tl_keras.models.build import build_model
from tl_keras.models.heads import Head

ROOT = Path(__file__).resolve().parent.parent
SMALLEST = ("small_resnet", "vgg16", "resnet50", "resnet50_v2", "mobilenet@0.25",
            "mobilenet_v2@0.35", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_b0",
            "densenet121", "inception_v3", "inception_resnet_v2", "xception", "nasnet_mobile",
            "convnext_tiny", "efficientnet_lite0")
QUICK = ("small_resnet", "vgg16", "mobilenet@0.25")
FAMILIES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
            for name in SMALLEST]


def parity():
    spec = importlib.util.spec_from_file_location(
        "base_parity", ROOT / "benchmarks" / "base_parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(name: str = "mobilenet@0.25", **options) -> keras.Model:
    return bases.build_backbone(name, size=32, **{"weights": None, **options})


def original(alpha: float = 0.25, kind: str = "MobileNet", **options) -> keras.Model:
    model = getattr(keras.applications, kind)(
        alpha=alpha, weights=None, input_shape=(32, 32, 3), **{"include_top": False, **options})
    parity().randomize(model)
    return model


def pictures(size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_base_equals_its_original_with_its_own_preprocessing(name):
    result = parity().compare(name)
    assert result["features"] <= 1e-5
    assert result["outputs"] <= 1e-5
    assert result["spread"] > 1e-3, "two pictures look the same: nothing was compared"


def test_every_classifier_of_keras_is_in_the_registry():
    modules = {name for name in dir(keras.applications) if name.islower()}
    known = {info.constructor for info in registry.BACKBONES.values() if not registry.is_own(info)}
    offered = {name for name in dir(keras.applications)
               if name not in modules and not name.startswith("_")}
    assert offered == known


@pytest.mark.slow
def test_bases_of_every_family_end_at_the_layer_that_their_entries_declare():
    first = {(info.module, info.features): name for name, info in
             reversed(registry.BACKBONES.items())}  # fmt: skip
    for name in first.values():
        info = registry.BACKBONES[name]
        plain = registry.construct(info, info.minimum_size)
        built = bases.build_backbone(name, size=info.minimum_size, weights=None)
        # Keras' Normalization becomes a Rescaling, which has no weights.
        kept = [weight for weight in plain.weights if not weight.path.startswith("normalization/")]
        assert len(built.weights) == len(kept), name
        assert built.output_shape == plain.output_shape, name
        keras.backend.clear_session()


def test_the_names_of_scaling_are_what_keras_prepares():
    x = pictures()
    for info in registry.BACKBONES.values():
        module = getattr(keras.applications, info.module, None)
        if module is None:
            continue
        named = scaling.scaling_of(info.scaling)
        found = x * named.scale + named.offset
        found = found[..., ::-1] if named.swapped else found
        np.testing.assert_allclose(found, module.preprocess_input(x.copy()), atol=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "inception_v3", "xception"])
def test_keras_accepts_the_smallest_size_and_no_less(name):
    info = bases.describe(name)
    registry.construct(info, info.minimum_size)
    with pytest.raises(ValueError, match="size"):
        registry.construct(info, info.minimum_size - 1)


@pytest.mark.parametrize("spelling", ["mobilenet_v2", "MobileNetV2", "mobilenet-v2"])
def test_a_name_is_known_in_any_spelling(spelling):
    assert bases.describe(spelling).name == "mobilenet_v2"


def test_a_width_is_part_of_the_name():
    info = bases.describe("mobilenet_v2@0.35")
    assert (info.name, info.alpha) == ("mobilenet_v2@0.35", 0.35)
    assert small().get_layer("conv1").filters == 8


@pytest.mark.parametrize(("name", "said"), [
    ("mobilnet_v2", "mobilenet_v2"), ("vgg61", "vgg16"), ("resnet50@0.5", "MobileNets"),
    ("mobilenet_v2@wide", "mobilenet_v2@0.5"), ("mobilenet_v2@-1", "width"),
    ("qqq", "known are: vgg16")])
def test_a_wrong_name_is_told_the_nearest(name, said):
    with pytest.raises(ModelError, match=said):
        bases.describe(name)


def test_a_size_that_is_too_small_is_told_the_least():
    with pytest.raises(ModelError, match="75 px or more"):
        bases.build_backbone("inception_v3", size=64, weights=None)


def test_layers_are_flat_stock_and_under_their_own_names():
    model = build_model("convnext_tiny", 3, size=32, weights=None)
    names = {layer.name for layer in model.layers}
    assert {"convnext_tiny_stem_conv", "convnext_tiny_stage_0_block_0_layer_scale"} <= names
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    stock = {getattr(keras.layers, type(layer).__name__, None) for layer in model.layers}
    assert None not in stock
    assert len(model.operations) == len(model.layers)


LOAD = """
import sys, numpy, keras
for path in sys.argv[1:]:
    model = keras.saving.load_model(path + ".keras")
    found = model(numpy.load(path + ".x.npy"), training=False)
    numpy.testing.assert_array_equal(found, numpy.load(path + ".y.npy"))
    print(path, "equal")
assert not [name for name in sys.modules if name.startswith("tl_keras")]
"""


def load_elsewhere(folder: Path, names: tuple[str, ...], head=None) -> str:
    for name in names:
        size = max(48, bases.describe(name).minimum_size)
        model = build_model(name, 3, size=size, weights=None, head=head)
        path = folder / name
        model.save(f"{path}.keras")
        np.save(f"{path}.x.npy", pictures(size))
        np.save(f"{path}.y.npy", run(model, pictures(size)))
    done = subprocess.run([sys.executable, "-I", "-c", LOAD, *(str(folder / n) for n in names)],
                          capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_saved_model_loads_with_keras_alone(tmp_path):
    assert load_elsewhere(tmp_path, QUICK[:1], Head(pooling="gem")).count("equal") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST[1:])
def test_a_saved_model_of_each_family_loads_with_keras_alone(tmp_path, name):
    assert load_elsewhere(tmp_path, (name,)).count("equal") == 1


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_a_file_of_any_layout_gives_the_same_base(tmp_path, suffix):
    source = original()
    path = tmp_path / f"file{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    expected = run(source, keras.applications.mobilenet.preprocess_input(pictures()))
    np.testing.assert_allclose(run(small(weights=path), pictures()), expected, atol=1e-4)


def test_the_layout_of_a_file_is_read_from_the_file_not_from_its_name(tmp_path):
    source = original()
    source.save_weights(tmp_path / "right.weights.h5")
    (tmp_path / "right.weights.h5").rename(tmp_path / "renamed.h5")
    expected = run(source, keras.applications.mobilenet.preprocess_input(pictures()))
    found = run(small(weights=tmp_path / "renamed.h5"), pictures())
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["small_resnet", "vgg16"])
def test_a_model_of_this_project_gives_its_base_back(tmp_path, name):
    model = build_model(name, 3, size=32, weights=None)
    parity().randomize(model)
    model.save(tmp_path / "mine.keras")
    base = small(name, weights=tmp_path / "mine.keras")
    assert base.layers[1].name == "input_scaling"
    body = keras.Model(model.inputs[0], model.get_layer("head_avg_pool").input)
    np.testing.assert_array_equal(run(base, pictures()), run(body, pictures()))


@pytest.mark.parametrize("options", [
    {"alpha": 0.5}, {"kind": "MobileNetV2", "alpha": 0.35},
    pytest.param({"include_top": True, "classes": 3}, id="with its top")])
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_a_file_of_another_base_is_refused(tmp_path, options, suffix):
    source, path = original(**options), tmp_path / f"other{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    with pytest.raises(ModelError, match="does not hold weights of mobilenet@0.25"):
        small(weights=path)


def test_a_saved_model_of_another_base_is_refused(tmp_path):
    original(0.5).save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match="does not hold weights of mobilenet@0.25"):
        small(weights=tmp_path / "other.keras")


def test_a_file_that_holds_more_than_the_base_is_refused(tmp_path):
    x = keras.Input((32, 32, 3))
    inner = original()
    more = keras.Model(x, keras.layers.Conv2D(2, 1)(inner(x)))
    more.save_weights(tmp_path / "more.weights.h5")
    with pytest.raises(ModelError, match="137 arrays, the base has 135"):
        small(weights=tmp_path / "more.weights.h5")


@pytest.mark.parametrize("name", ["noise.h5", "noise.weights.h5", "noise.keras"])
def test_a_file_that_is_none_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights here")
    with pytest.raises(ModelError, match="noise"):
        small(weights=tmp_path / name)
    with pytest.raises(ModelError, match="no such file"):
        small(weights=tmp_path / "absent.h5")


def test_the_small_base_comes_with_its_weights():
    random, shipped = (small("small_resnet", weights=w) for w in (None, "default"))
    assert not np.allclose(run(random, pictures()), run(shipped, pictures()))
    np.testing.assert_array_equal(
        run(shipped, pictures()), run(small("small_resnet", weights="glyphs"), pictures()))


def test_published_names_are_kept_apart():
    with pytest.raises(ModelError, match="glyphs"):
        small("small_resnet", weights="imagenet")
    with pytest.raises(ModelError, match="no such file"):
        small(weights="glyphs")


@pytest.mark.parametrize(("name", "file"), [
    ("mobilenet_v2@0.35", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"),
    ("nasnet_mobile", "nasnet_mobile_no_top.h5")])
def test_without_a_network_the_error_names_the_file_and_its_place(
        monkeypatch, tmp_path, name, file):
    # A proxy that refuses is a network that is down.
    for key in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))  # where no weights are yet
    with pytest.raises(DownloadError, match="https://storage.*fetch https://.*h5") as caught:
        bases.build_backbone(name, size=96, weights="imagenet")
    assert str(Path.home() / ".keras" / "models" / file) in str(caught.value)


def test_efficientnets_published_deviation_is_mended():
    info = bases.describe("efficientnet_b0")
    plain = registry.construct(info, 32)
    deviation = np.array(scaling.IMAGENET_DEVIATION)
    normalization = next(x for x in plain.layers if isinstance(x, keras.layers.Normalization))
    normalization.set_weights([np.array(scaling.IMAGENET_MEAN), deviation, np.array(0)])
    normalization.finalize_state()
    found = loading.own_scaling(plain, info)
    np.testing.assert_allclose(found.scale, 1 / 255 / deviation, rtol=1e-5)
    np.testing.assert_allclose(
        found.offset, -np.array(scaling.IMAGENET_MEAN) / deviation, rtol=1e-5)


def test_layers_without_a_name_are_counted_from_the_start_of_their_model():
    keras.layers.Conv2D(2, 1), keras.layers.ReLU()
    x = keras.Input((4, 4, 3))
    y = keras.layers.Conv2D(2, 1)(keras.layers.Conv2D(2, 1, name="mine")(x))
    y = keras.layers.Conv2D(2, 1)(y)
    source = keras.Model(x, keras.layers.ReLU()(y))
    model = scaling.with_scaling(source, scaling.scaling_of("tf"), "mine")
    assert [layer.name for layer in model.layers] == [
        "pixels", "input_scaling", "mine", "conv2d", "conv2d_1", "re_lu"]


@pytest.mark.slow
def test_the_second_model_of_a_process_has_the_names_of_the_first():
    names = [[layer.name for layer in bases.build_backbone(
        "xception", size=71, weights=None).layers] for _ in range(2)]
    assert names[0] == names[1]
    assert "conv2d" in names[0]


@pytest.mark.skipif("TL_KERAS_REAL_WEIGHTS" not in os.environ,
                    reason="TL_KERAS_REAL_WEIGHTS names no folder of published weights")
@pytest.mark.parametrize("alpha", ["0.35", "1.0"])
def test_published_weights_give_what_keras_gives(alpha):
    path = Path(os.environ["TL_KERAS_REAL_WEIGHTS"]) \
        / f"mobilenet_v2_{alpha}_224_imagenet_notop.weights.h5"
    source = original(float(alpha), "MobileNetV2")
    source.load_weights(path)
    expected = run(source, keras.applications.mobilenet_v2.preprocess_input(pictures()))
    found = run(small(f"mobilenet_v2@{alpha}", weights=path), pictures())
    assert parity().relative(found, expected) < 1e-5
