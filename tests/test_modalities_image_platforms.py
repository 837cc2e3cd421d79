"""Platforms' own ways of resizing, each against an independent computation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from export.runtime.platforms import measure_platforms
from export.runtime.runtimes import KerasRuntime
from tl_keras.modalities.image.decode import resize
from tl_keras.modalities.image.platforms import WAYS, _area, _bilinear, _mipmap

NOISE = np.random.default_rng(0).integers(0, 256, (120, 96, 3), np.uint8)


def test_four_pixels_are_mixed_as_tensorflow_does_without_antialias():
    import tensorflow as tf

    for side in (32, 50, 150):
        expected = tf.image.resize(NOISE, (side, side), antialias=False).numpy()
        assert np.abs(_bilinear(Image.fromarray(NOISE), side) - expected).max() <= 0.51


def test_areas_are_means_of_whole_and_parted_pixels():
    expected = NOISE.reshape(24, 5, 24, 4, 3).mean(axis=(1, 3))
    assert np.abs(_area(Image.fromarray(NOISE), 24) - expected).max() <= 0.5
    # Three to two: each new pixel is one old one and half of another.
    ramp = np.repeat(np.arange(0, 90, 30, np.uint8)[:, None, None], 3, 1).repeat(3, 2)
    assert _area(Image.fromarray(ramp), 2)[:, 0, 0].tolist() == [10, 50]


def test_a_mipmap_is_halved_before_four_pixels_are_mixed():
    half = NOISE.reshape(60, 2, 48, 2, 3).mean(axis=(1, 3))
    expected = _bilinear(Image.fromarray(np.rint(half).astype(np.uint8)), 40)
    far = np.abs(_mipmap(Image.fromarray(NOISE), 40).astype(float) - expected)
    assert far.max() <= 2


def test_tall_images_are_resized_across_and_then_down_whatever_pillow_begins_with():
    for shape in ((1000, 37), (120, 100), (100, 120)):
        image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8))
        across = image.resize((96, shape[0]), Image.Resampling.BILINEAR)
        expected = np.asarray(across.resize((96, 96), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(resize(image, 96), expected)


def test_the_cost_of_each_way_is_measured_on_the_files_of_a_source(toys, tmp_path):
    source = toys[0]
    stripes = np.zeros((12, 64, 64, 3), np.uint8)
    for number, one in enumerate(stripes):
        one[:, :: 2 + number % 3] = 255
        one[..., number % 3] //= 4
    files = [str(tmp_path / f"{number}.png") for number in range(12)]
    for file, one in zip(files, stripes, strict=True):
        Image.fromarray(one).save(file)
    read = np.stack([resize(Image.fromarray(one), 16) for one in stripes])
    source = dataclasses.replace(source, inputs={"image": read}, files=tuple(files))
    found = measure_platforms(source, KerasRuntime(source.model))
    assert [one["way"] for one in found] == [way.name for way in WAYS]
    rows = {one["way"]: one for one in found}
    right = rows["decoded in full, resized right"]
    assert (right["same"], right["difference"], right["count"]) == (1.0, 0.0, 12)
    assert rows["nearest pixel"]["difference"] > rows["Lanczos, antialiased"]["difference"] > 0
    assert all(one["low"] <= one["same"] <= one["high"] for one in found)


def test_nothing_is_measured_where_samples_are_no_files(toys):
    assert measure_platforms(toys[0], None) == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (640, 480)], ids=str)
def test_every_way_takes_images_of_any_size(way, size):
    made = way.resize(Image.new("RGB", size, (9, 99, 199)), 24)
    assert made.shape == (24, 24, 3)
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - (9, 99, 199)).max() <= 1
