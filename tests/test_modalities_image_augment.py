"""Views are seeded, repeatable and stay near their image."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tl_keras.errors import DataError
from tl_keras.modalities.image.augment import (
    AUGMENTATIONS,
    OPERATIONS,
    Augment,
    parse_augment,
    randaugment,
    view,
)
from tl_keras.modalities.image.decode import resize

ROOT = Path(__file__).parent.parent
ALL = "flip+crop+color+affine+randaugment"


def _image(width=80, height=60):
    grid = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("text", [*AUGMENTATIONS, ALL])
def test_view_k_of_an_image_is_always_the_same(text):
    first = view(_image(), 32, parse_augment(text), 7, "ants/1.jpg", 3)
    view(_image(), 32, ALL, 1, "other", 1)
    np.random.seed(123)
    assert np.array_equal(first, view(_image(), 32, text, 7, "ants/1.jpg", 3))
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8


def test_view_k_is_the_same_in_another_process():
    code = (
        "import hashlib; from tests.test_modalities_image_augment import _image, ALL, view;"
        "print(hashlib.sha256(view(_image(), 32, ALL, 7, 'k', 3).tobytes()).hexdigest())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(view(_image(), 32, ALL, 7, "k", 3).tobytes()).hexdigest()
    assert out.stdout.strip() == here


@pytest.mark.parametrize("text", ["crop", "color", "affine"])
def test_another_k_key_or_seed_gives_another_view(text):
    base = view(_image(), 32, text, 7, "a", 1)
    for seed, key, k in [(8, "a", 1), (7, "b", 1), (7, "a", 2)]:
        assert not np.array_equal(base, view(_image(), 32, text, seed, key, k))


@pytest.mark.parametrize("text", ["none", ALL])
@pytest.mark.parametrize("how", ["stretch", "crop"])
def test_view_0_is_the_plain_image(text, how):
    assert np.array_equal(view(_image(), 32, text, 7, "a", 0, how), resize(_image(), 32, how))


def test_none_varies_nothing_at_any_k():
    assert np.array_equal(view(_image(), 32, "none", 7, "a", 5), resize(_image(), 32))


def test_flip_mirrors_about_half_of_the_views_and_does_nothing_else():
    plain = resize(_image(), 32)
    views = [view(_image(), 32, "flip", 0, "a", k) for k in range(1, 201)]
    mirrored = sum(np.array_equal(v, plain[:, ::-1]) for v in views)
    assert mirrored + sum(np.array_equal(v, plain) for v in views) == 200
    assert 70 < mirrored < 130


def test_crops_lie_inside_the_image_and_hold_their_share_of_it():
    ramp = np.zeros((300, 400, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 400).astype(np.uint8)
    ramp[..., 1] = np.linspace(0, 255, 300).astype(np.uint8)[:, None]
    for k in range(1, 60):
        part = view(Image.fromarray(ramp), 64, "crop", 0, "a", k).astype(float)
        wide, high = np.ptp(part[..., 0]) / 255, np.ptp(part[..., 1]) / 255
        assert 0.36 < wide * high <= 1.0


def test_crops_are_taken_before_resizing_so_that_detail_stays():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    sharpest = max(view(image, 320, "crop", 0, "a", k).std() for k in range(1, 20))
    from_small = resize(image, 320)
    again = max(
        view(Image.fromarray(from_small), 320, "crop", 0, "a", k).std() for k in range(1, 20)
    )
    assert sharpest > 1.2 * again


def test_affine_keeps_the_background_and_never_mirrors():
    letter = np.zeros((64, 64, 3), np.uint8)
    letter[10:54, 14:22] = 255
    letter[46:54, 14:50] = 255  # an L: its foot goes right
    for k in range(1, 40):
        seen = view(Image.fromarray(letter), 64, "affine", 0, "a", k).astype(float)
        assert (seen[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
        columns = np.arange(64)
        top, foot = seen[:32, :, 0].sum(0), seen[32:, :, 0].sum(0)
        assert (top @ columns) / top.sum() < (foot @ columns) / foot.sum()


def test_color_changes_tones_but_not_shapes():
    plain = resize(_image(), 48).astype(float)
    for k in range(1, 20):
        seen = view(_image(), 48, "color", 0, "a", k).astype(float)
        assert np.corrcoef(plain.mean(-1).ravel(), seen.mean(-1).ravel())[0, 1] > 0.95
        assert 1 < np.abs(plain - seen).mean() < 90


def test_names_are_combined_in_any_order_and_spelling():
    assert parse_augment("Flip + crop+color") == Augment(flip=True, crop=True, color=True)
    assert parse_augment("colour+flip").text == "flip+color"
    assert not parse_augment("none") and parse_augment("none").text == "none"


@pytest.mark.parametrize(("text", "near"), [("flipp", "flip"), ("flip+randaugmnt", "randaugment")])
def test_an_unknown_name_is_refused_and_the_nearest_offered(text, near):
    with pytest.raises(DataError, match=f"Did you mean {near}"):
        parse_augment(text)


def test_randaugment_has_the_published_fourteen_operations_and_uses_them_all():
    assert len(OPERATIONS) == 14
    image = _image(32, 32)
    plain = np.asarray(image)
    for name, operation in OPERATIONS.items():
        for strength in (0.3, -0.3, 1.0):
            seen = operation(image, strength)
            assert seen.size == (32, 32) and seen.mode == "RGB", name
        assert np.array_equal(np.asarray(seen), plain) == (name == "identity"), name


def test_randaugment_at_strength_0_leaves_geometry_alone():
    rng = np.random.default_rng(0)
    plain = np.asarray(_image(32, 32)).astype(float)
    for _ in range(30):
        seen = np.asarray(randaugment(_image(32, 32), rng, 1, 0)).astype(float)
        assert np.corrcoef(plain.ravel(), seen.ravel())[0, 1] > 0.9
