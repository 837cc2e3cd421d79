from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models.backbones.efficientnet_lite import VARIANTS, efficientnet_lite
from tl_keras.models.backbones.load import build_backbone, describe
from tl_keras.models.graph import blocks
from tl_keras.utils.quiet import start_tensorflow

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from base_parity import randomize

start_tensorflow()
# Parameters in millions with the head of 1000 classes, as the README of Google's folder says.
PUBLISHED = (4.7, 5.4, 6.1, 8.2, 13.0)
NEEDS_FILES = pytest.mark.skipif(
    not {"TL_KERAS_REAL_WEIGHTS", "TL_KERAS_REAL_DATA"} <= set(os.environ),
    reason="TL_KERAS_REAL_WEIGHTS and TL_KERAS_REAL_DATA name no folders",
)


def stranger():
    """Lite0 at 32 px with a classifier on it, under names that somebody else gave."""
    import keras

    base = efficientnet_lite(0, 32)
    renamed = keras.models.clone_model(
        base, clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "name": f"_{layer.name}__x"}))  # fmt: skip
    randomize(renamed)
    pooled = keras.layers.GlobalAveragePooling2D()(renamed.outputs[0])
    answers = keras.layers.Dense(5, activation="softmax")(pooled)
    return keras.Model(renamed.inputs, [pooled, answers])


@pytest.mark.parametrize(("variant", "millions"), list(enumerate(PUBLISHED)))
def test_every_variant_has_the_published_size_and_number_of_parameters(variant, millions):
    model = efficientnet_lite(variant)
    side = VARIANTS[variant][2]
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, -(-side // 32), -(-side // 32), 1280)
    assert (model.count_params() + 1281 * 1000) / 1e6 == pytest.approx(millions, abs=0.12)
    assert describe(f"efficientnet_lite{variant}").default_size == side


def test_variants_and_sizes_that_are_none_are_refused():
    with pytest.raises(ModelError, match="0 to 4"):
        efficientnet_lite(5)
    with pytest.raises(ModelError, match="32"):
        efficientnet_lite(0, 31)


def test_raw_pixels_are_scaled_in_the_graph_and_blocks_are_those_of_the_resolution():
    base = build_backbone("efficientnet_lite0", size=64, weights=None)
    layer = base.get_layer("input_scaling")
    assert np.allclose(np.asarray(layer(np.float32([[-1, 127, 255]]))), [[-1, 0, 1]])
    assert [block[0] for block in blocks(base)] == [
        "stem_conv", "block2a_dwconv", "block3a_dwconv", "block4a_dwconv", "block6a_dwconv"
    ]  # fmt: skip
    assert base.layers[-1].name == "top_activation"


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_file_with_other_names_gives_the_same_features(tmp_path, suffix):
    import keras

    theirs, path = stranger(), tmp_path / f"file{suffix}"
    if suffix == ".keras":
        theirs.save(path)
    else:
        keras.Model(theirs.inputs, theirs.layers[-3].output).save_weights(path)
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = np.asarray(theirs(pixels)[0])
    base = build_backbone("efficientnet_lite0", size=32, weights=path)
    np.testing.assert_allclose(np.asarray(base(pixels)).mean((1, 2)), expected, atol=1e-5)
    assert expected.std() > 0.01


def test_a_file_of_another_variant_or_activation_is_refused(tmp_path):
    import keras

    stranger().save(tmp_path / "lite0.keras")
    with pytest.raises(ModelError, match="weights of efficientnet_lite1"):
        build_backbone("efficientnet_lite1", size=32, weights=tmp_path / "lite0.keras")
    theirs = stranger()
    other = keras.models.clone_model(theirs, clone_function=lambda layer: type(layer).from_config(
        {**layer.get_config(), **({"max_value": None} if "activation" in layer.name else {})}))
    other.save(tmp_path / "relu.keras")
    with pytest.raises(ModelError, match="weights of efficientnet_lite0"):
        build_backbone("efficientnet_lite0", size=32, weights=tmp_path / "relu.keras")


def test_published_weights_are_taken_from_the_folder_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(DownloadError, match=r"models/efficientnet_lite1_imagenet\.keras"):
        build_backbone("efficientnet_lite1", size=32)
    (tmp_path / "models").mkdir()
    theirs = stranger()
    theirs.save(tmp_path / "models" / "efficientnet_lite0_imagenet.keras")
    base = build_backbone("efficientnet_lite0", size=32)
    kernel = base.get_layer("top_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel, theirs.get_layer("_top_conv__x").get_weights()[0])


@NEEDS_FILES
@pytest.mark.parametrize("variant", [0, 2])
def test_published_weights_give_what_their_own_model_gives(variant):
    import keras
    from PIL import Image

    size = VARIANTS[variant][2]
    folder = Path(os.environ["TL_KERAS_REAL_WEIGHTS"])
    path = folder / f"efficientnet_lite{variant}_imagenet.keras"
    files = sorted(Path(os.environ["TL_KERAS_REAL_DATA"], "hymenoptera").rglob("*.jpg"))[::40]
    photos = np.stack([np.asarray(Image.open(file).convert("RGB").resize((size, size)))
                       for file in files]).astype("float32")  # fmt: skip
    expected = np.asarray(keras.saving.load_model(path, compile=False)(photos)[0])
    base = build_backbone(f"efficientnet_lite{variant}", weights=path)
    found = np.asarray(base(photos)).mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
