from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from tl_keras.data.builtin import glyphs, letters
from tl_keras.errors import DataError


@pytest.fixture(scope="module")
def drawn():
    return letters.draw_glyphs()


def test_no_source_class_is_a_digit(drawn):
    assert all(unicodedata.category(letter).startswith("L") for letter in letters.letters())
    assert set(drawn.names) <= set(letters.letters())


def test_every_font_and_every_class_is_drawn(drawn):
    counts = np.bincount(drawn.labels, minlength=len(drawn.names))
    assert counts.min() >= 3
    assert counts[drawn.names.index("A")] >= len(letters.font_files())


def test_letters_of_one_outline_are_one_class(drawn):
    names = set(drawn.names)
    assert {"O", "A", "a"} <= names
    assert not names & {"\u0391", "\u0410", "\u0430"}


def test_a_field_is_positive_inside_the_strokes_only(drawn):
    field = drawn.fields[np.flatnonzero(drawn.labels == drawn.names.index("O"))[0]]
    middle = letters.FIELD // 2
    assert field[middle, middle] < 0
    assert field[0].max() < 0
    assert field[middle].max() > 0


def test_the_same_seed_renders_the_same_images(drawn):
    first, labels = glyphs.render(40, seed=3)
    second, again = glyphs.render(40, seed=3)
    other, _ = glyphs.render(40, seed=4)
    assert np.array_equal(first, second) and np.array_equal(labels, again)
    assert not np.array_equal(first, other)


def test_images_have_the_size_asked_for_and_show_something(drawn):
    images, labels = glyphs.render(64, seed=0, look=glyphs.GlyphLook(size=24))
    assert images.shape == (64, 24, 24, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and labels.max() < len(drawn.names)
    assert np.min(np.ptp(images.reshape(64, -1), axis=1)) > 40


def test_a_plain_look_is_grey_strokes_on_black(drawn):
    images, _ = glyphs.render(64, seed=0, look=glyphs.GlyphLook(plain=1.0, noise=0.0))
    assert np.array_equal(images[..., 0], images[..., 2])
    assert np.median(images[:, 0, 0]) == 0
    assert images.max() > 180


def test_both_polarities_occur(drawn):
    images, _ = glyphs.render(200, seed=0, look=glyphs.GlyphLook(plain=0.0))
    grey = images.mean(-1)
    edge = np.concatenate([grey[:, 0], grey[:, -1]], axis=1).mean(1)
    darker = grey[:, 8:24, 8:24].mean((1, 2)) < edge
    assert 0.2 < darker.mean() < 0.8


def test_a_thicker_stroke_has_more_ink(drawn):
    def ink(stroke):
        look = glyphs.GlyphLook(stroke=(stroke, stroke), plain=1.0, noise=0.0)
        return glyphs.render(64, seed=0, look=look)[0].mean()

    assert ink(3.0) > 1.3 * ink(0.0)


def test_a_coarse_grid_leaves_nothing_fine(drawn):
    def roughness(grid):
        look = glyphs.GlyphLook(grids=(grid,), plain=1.0, noise=0.0)
        images = glyphs.render(64, seed=0, look=look)[0].astype(float)
        return np.abs(np.diff(images, axis=2)).max()

    assert roughness(8) < 0.6 * roughness(32)


@pytest.mark.parametrize(
    "wrong", [{"size": 4}, {"grids": ()}, {"grids": (2,)}, {"height": (0, 1)}, {"width": (2, 1)}]
)
def test_a_look_that_cannot_be_rendered_is_refused(wrong):
    with pytest.raises(DataError):
        glyphs.GlyphLook(**wrong)


def test_glyphs_as_samples_carry_every_class(drawn):
    samples = glyphs.glyphs(8)
    assert samples.class_names == drawn.names
    assert len(samples) == 8 * len(drawn.names)
    with pytest.raises(DataError, match="at least 2"):
        glyphs.glyphs(1)
