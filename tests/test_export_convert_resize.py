"""A file that resizes by itself sees the very pixels of the training."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from export_models import pictures, settle, small_model
from PIL import Image

from export.convert import onnx
from export.convert.resize import check_formats, put_resize_before
from export.runtime.runtimes import load
from tl_keras.errors import ExportError
from tl_keras.modalities.image.decode import open_image, resize

PHOTOS = os.environ.get("TL_KERAS_REAL_DATA")


def identity(side, folder):
    """A file that gives the resized image itself, row by row."""
    import keras

    entry = keras.Input((side, side, 3))
    model = keras.Model(entry, keras.layers.Flatten()(entry))
    file = folder / f"identity{side}.onnx"
    file.write_bytes(put_resize_before(onnx.convert(model)))
    return load(file), side


@pytest.fixture(scope="module", params=[224, 96])
def seen(request, tmp_path_factory):
    return identity(request.param, tmp_path_factory.mktemp("files"))


SIZES = [(640, 480), (500, 333), (100, 120), (224, 224), (37, 1000), (3, 5), (1, 1), (1920, 1080)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_of_any_size_are_resized_to_the_bit(seen, size):
    runtime, side = seen
    noise = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    given = runtime.predict(noise[None]).reshape(side, side, 3)
    np.testing.assert_array_equal(given, resize(Image.fromarray(noise), side))


@pytest.mark.skipif(not PHOTOS, reason="TL_KERAS_REAL_DATA names no folder of real photos")
def test_real_photos_are_resized_to_the_bit(seen):
    runtime, side = seen
    files = sorted(Path(PHOTOS, "hymenoptera").rglob("*.jpg"))[::40]
    assert files
    for file in files:
        image = open_image(file)
        given = runtime.predict(np.asarray(image)[None]).reshape(side, side, 3)
        np.testing.assert_array_equal(given, resize(image, side), err_msg=str(file))


def test_a_model_behind_the_resize_answers_as_for_the_resized_image(tmp_path):
    model = small_model(size=32)
    settle(model, pictures(12, 32))
    plain = onnx.convert(model)
    (tmp_path / "plain.onnx").write_bytes(plain)
    (tmp_path / "whole.onnx").write_bytes(put_resize_before(plain))
    whole, inner = load(tmp_path / "whole.onnx"), load(tmp_path / "plain.onnx")
    assert whole.inputs == inner.inputs
    photos = np.random.default_rng(0).integers(0, 256, (3, 90, 140, 3), np.uint8)
    small = np.stack([resize(Image.fromarray(one), 32) for one in photos])
    np.testing.assert_array_equal(whole.predict(photos), inner.predict(small))


def test_formats_that_cannot_resize_alike_are_refused():
    check_formats(("onnx",))
    with pytest.raises(ExportError, match="for --to onnx alone"):
        check_formats(("tflite", "onnx"))


def test_a_file_of_other_inputs_is_refused():
    import keras

    entry = keras.Input((8,))
    plain = onnx.convert(keras.Model(entry, keras.layers.Dense(2)(entry)))
    with pytest.raises(ExportError, match="expected one image"):
        put_resize_before(plain)
