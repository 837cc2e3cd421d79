"""One image saved twice is found whatever its quality and size; two images are two."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tl_keras.analysis.near_duplicates import (
    SAME,
    describe_group,
    find_near_duplicates,
    find_neighbors,
    find_outliers,
)
from tl_keras.errors import DataError
from tl_keras.modalities.image.perceptual_hash import perceptual_hash


def scene(seed, size=(160, 120)):
    """Smooth random shapes, as photos have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(5)), float)
    return Image.fromarray(np.clip((soft - 127) * 8 + 127, 0, 255).astype(np.uint8))


def again(image, quality, factor):
    wide, high = (max(1, round(side * factor)) for side in image.size)
    stream = io.BytesIO()
    image.resize((wide, high), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.mark.parametrize(("quality", "factor"), [(40, 1), (10, 1), (75, 0.5), (60, 0.3), (85, 1.5)])
def test_copies_at_another_quality_or_size_are_grouped_and_nothing_else_is(quality, factor):
    images = [scene(seed) for seed in range(40)]
    copies = [again(image, quality, factor) for image in images[:5]]
    hashes = [perceptual_hash(image) for image in images + copies]
    assert find_near_duplicates(hashes) == [[i, 40 + i] for i in range(5)]


def test_many_copies_are_one_group_and_samples_without_a_hash_are_in_none():
    one = scene(0)
    copies = [again(one, quality, 1) for quality in range(30, 96, 5)]
    hashes = [perceptual_hash(image) for image in [one, *copies]]
    known = [*hashes, None, perceptual_hash(scene(1)), None]
    assert find_near_duplicates(known) == [list(range(len(hashes)))]
    assert find_near_duplicates([None, None]) == [] and find_near_duplicates([]) == []


def test_what_is_found_is_what_comparing_all_pairs_finds():
    draw = np.random.default_rng(0)
    hashes = list(draw.integers(0, 256, (300, 32), dtype=np.uint8))
    for place in range(0, 60, 3):  # near ones, at every distance around the limit
        bits = np.unpackbits(hashes[place])
        bits[draw.permutation(256)[: 14 + 2 * place]] ^= 1
        hashes[place + 100] = np.packbits(bits)
    found = {frozenset(group) for group in find_near_duplicates(hashes)}
    close = {
        frozenset((i, j)) for i, j in itertools.combinations(range(300), 2)
        if np.unpackbits(hashes[i] ^ hashes[j]).mean() <= SAME
    }  # fmt: skip
    assert found == close and 3 < len(close) < 20


def test_neighbors_are_those_of_the_whole_matrix_of_cosines():
    points = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    cosines, near = find_neighbors(points, 4)
    unit = points - points.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    whole = unit @ unit.T
    np.fill_diagonal(whole, -2)
    np.testing.assert_array_equal(near, np.argsort(-whole, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, -np.sort(-whole, axis=1)[:, :4], atol=1e-5)
    with pytest.raises(DataError, match="finite"):
        find_neighbors(np.full((3, 2), np.nan))


def test_a_sample_in_a_direction_of_its_own_is_an_outlier():
    draw = np.random.default_rng(0)
    centers = np.repeat(np.eye(3, 20) * 6, 40, axis=0)
    points = centers + 0.5 * draw.normal(size=(120, 20))
    points[17] = 0
    points[17, 19] = 8
    distances, far = find_outliers(points)
    assert far.tolist() == [17] and distances.argmax() == 17


def test_a_group_says_whether_it_leaks_contradicts_or_repeats():
    labels, splits = ["a", "a", "b", "a"], ["train", "test", "train", "train"]
    assert describe_group([0, 1], labels, splits) == "leak"
    assert describe_group([0, 2], labels, splits) == "contradict"
    assert describe_group([0, 3], labels, splits) == "repeat"
    assert describe_group([0, 1], labels, [""] * 4) == "repeat"
