"""Images of letters, rendered here: the source task of the project's own small base.

The letters of six alphabets (`tl_keras.data.builtin.letters`) are bent, thickened, blurred to a low
resolution, noised and set on backgrounds. There is no digit among them, so what a base learns
here about handwritten digits is transferred, not given away.

The bending is the elastic distortion of Simard, Steinkraus and Platt, 'Best practices for
convolutional neural networks', ICDAR 2003, with a coarse grid of displacements instead of a
blurred fine one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from tl_keras.data.builtin.letters import FIELD, Glyphs, draw_glyphs
from tl_keras.data.samples import Samples, from_arrays
from tl_keras.errors import DataError

__all__ = ["GlyphLook", "glyphs", "render"]


@dataclass(frozen=True)
class GlyphLook:
    """How far the rendered letters stray from the printed ones.

    Attributes:
        size: Side of an image, pixels.
        turn: Largest rotation, radians.
        shear: Largest horizontal shear, as a fraction of the height.
        height: Smallest and largest vertical scale; at 1.25 a letter fills the image.
        width: Smallest and largest horizontal scale.
        shift: Largest shift, as a fraction of the side.
        bend: Standard deviation of the elastic displacement, as a fraction of the side.
        stroke: Least and most that an outline moves outwards, pixels of a 48-pixel field.
        grids: Resolutions, pixels, to which an image is reduced before it is scaled up to
            `size`; one is drawn for each image, so repeating one makes it likelier.
        noise: Largest standard deviation of the noise, as a fraction of the contrast.
        plain: Share of the images that are light strokes on a plain black ground.
    """

    size: int = 32
    turn: float = 0.25
    shear: float = 0.3
    height: tuple[float, float] = (0.95, 1.3)
    width: tuple[float, float] = (0.6, 1.15)
    shift: float = 0.06
    bend: float = 0.035
    stroke: tuple[float, float] = (0, 3.0)
    grids: tuple[int, ...] = (8, 8, 8, 8, 10, 12, 16, 32)
    noise: float = 0.15
    plain: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered.

        Raises:
            DataError: If a size, a grid or a scale is out of range.
        """
        if self.size < 8:
            raise DataError(f"size is {self.size}; a letter needs at least 8 pixels")
        if not self.grids or min(self.grids) < 4:
            raise DataError(f"grids is {self.grids}; give resolutions of at least 4 pixels")
        for least, most in (self.height, self.width):
            if not 0 < least <= most:
                raise DataError(f"a scale is {least, most}; give (least, most), both above 0")


def render(
    count: int, *, seed: int = 0, look: GlyphLook | None = None, chunk: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Render images of letters, all classes equally often on average.

    Args:
        count: How many images.
        seed: The same seed, look and count give the same images.
        look: How they look.
        chunk: How many are rendered at once (memory; another chunk is another random order).

    Returns:
        uint8 (count, size, size, 3) RGB and int64 (count,) labels into `draw_glyphs().names`.
    """
    look = look or GlyphLook()
    glyphs, rng = draw_glyphs(), np.random.default_rng(seed)
    chosen = _choose(glyphs, count, rng)
    images: np.ndarray = np.empty((count, look.size, look.size, 3), np.uint8)
    for start in range(0, count, chunk):
        fields = glyphs.fields[chosen[start : start + chunk]].astype(np.float32)
        ink = _ink(fields, look, rng)
        images[start : start + chunk] = _paint(_reduce(ink, look, rng), look, rng)
    return images, glyphs.labels[chosen]


def glyphs(per_class: int = 20) -> Samples:
    """Make rendered letters as a data set (about 250 classes), without splits.

    Args:
        per_class: Images a class on average, at least 2.

    Raises:
        DataError: If `per_class` is below 2.
    """
    if per_class < 2:
        raise DataError(f"glyphs@{per_class}: expected at least 2 images a class.")
    names = draw_glyphs().names
    images, labels = render(per_class * len(names), seed=0)
    return from_arrays(images, labels, list(names), root=f"builtin:glyphs@{per_class}")


def _choose(glyphs: Glyphs, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices into the fields: a class at random, then one of its drawings at random."""
    order = np.argsort(glyphs.labels, kind="stable")
    sizes = np.bincount(glyphs.labels, minlength=len(glyphs.names))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    classes = rng.integers(0, len(sizes), count)
    return order[starts[classes] + (rng.random(count) * sizes[classes]).astype(np.int64)]


def _ink(fields: np.ndarray, look: GlyphLook, rng: np.random.Generator) -> np.ndarray:
    """float32 (n, size, size) in 0..1: bent letters, their outline moved."""
    distance = _sample(fields, _where(len(fields), look, rng))
    move = rng.uniform(*look.stroke, (len(fields), 1, 1)).astype(np.float32)
    edge = FIELD / look.size
    return np.clip((distance + move) / edge + 0.5, 0, 1)


def _where(count: int, look: GlyphLook, rng: np.random.Generator) -> np.ndarray:
    """float32 (2, n, size, size): where in the field (row, column) each pixel looks."""
    line = (np.arange(look.size, dtype=np.float32) + 0.5) / look.size - 0.5
    turn, shear = (rng.uniform(-most, most, count) for most in (look.turn, look.shear))
    scale = [rng.uniform(*span, count) for span in (look.height, look.width)]
    shift = rng.uniform(-look.shift, look.shift, (2, count))
    cos, sin = np.cos(turn), np.sin(turn)
    rows = np.stack([cos, sin + shear * cos, shift[0]]) / scale[0]
    columns = np.stack([-sin, cos - shear * sin, shift[1]]) / scale[1]
    grid = np.stack([*np.meshgrid(line, line, indexing="ij"), np.ones((look.size,) * 2)])
    plain = np.einsum("akn,kij->anij", np.stack([rows, columns]), grid)
    bends = rng.normal(0, look.bend, (2, count, 4, 4))
    spread = _scaling(4, look.size, Image.Resampling.BICUBIC)
    return (plain + spread @ bends @ spread.T + 0.5).astype(np.float32) * FIELD - 0.5


def _sample(fields: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Bilinear look-up in each field; outside, the border's value goes on."""
    row, column = np.clip(where, 0, FIELD - 1.001)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left
    flat = fields.reshape(-1)
    first: np.ndarray = np.arange(len(fields), dtype=np.int32)[:, None, None] * FIELD**2
    at = first + top * FIELD + left
    above = flat[at] * (1 - right) + flat[at + 1] * right
    below = flat[at + FIELD] * (1 - right) + flat[at + FIELD + 1] * right
    return above * (1 - down) + below * down


def _reduce(ink: np.ndarray, look: GlyphLook, rng: np.random.Generator) -> np.ndarray:
    """Average each image down to a grid drawn for it, add noise there, scale up again.

    A gain before the noise makes up for strokes that are thinner than a coarse pixel.
    """
    grids = rng.choice(look.grids, len(ink))
    noise = (rng.random(len(ink)) ** 2 * look.noise).astype(np.float32)
    result = np.empty_like(ink)
    for grid in np.unique(grids):
        picked = np.flatnonzero(grids == grid)
        down = _scaling(look.size, int(grid), Image.Resampling.BOX)
        up = _scaling(int(grid), look.size, Image.Resampling.BILINEAR)
        small = down @ ink[picked] @ down.T
        small = np.minimum(small * rng.uniform(1, 1.6, (len(picked), 1, 1)), 1)
        small += rng.standard_normal(small.shape, np.float32) * noise[picked, None, None]
        result[picked] = up @ small @ up.T
    return result


def _paint(ink: np.ndarray, look: GlyphLook, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n, size, size, 3): strokes and ground in gray or color, either the lighter."""
    count = len(ink)
    ground, stroke = rng.uniform(0, 1, (2, count, 1, 1, 3)).astype(np.float32)
    gray = rng.random((count, 1, 1, 1)) < 0.5
    ground, stroke = (np.where(gray, side[..., :1], side) for side in (ground, stroke))
    gap = stroke.mean(-1, keepdims=True) - ground.mean(-1, keepdims=True)
    away = ground + np.where(ground.mean(-1, keepdims=True) > 0.5, -1, 1) * rng.uniform(0.4, 1)
    stroke = np.where(np.abs(gap) < 0.4, away, stroke)
    texture = rng.normal(0, 0.1, (count, 5, 5)).astype(np.float32)
    spread = _scaling(5, look.size, Image.Resampling.BICUBIC)
    ground = ground + (spread @ texture @ spread.T)[..., None]
    plain = rng.random((count, 1, 1, 1)) < look.plain
    ground = np.where(plain, 0, ground)
    stroke = np.where(plain, rng.uniform(0.75, 1, (count, 1, 1, 1)), stroke)
    blend = ground + ink[..., None] * (stroke - ground)
    return np.round(np.clip(blend, 0, 1) * 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _scaling(old: int, new: int, method: Image.Resampling) -> np.ndarray:
    """float32 (new, old): Pillow's scaling of one axis as a matrix."""
    image = Image.fromarray(np.eye(old, dtype=np.float32))
    return np.asarray(image.resize((old, new), method), np.float32).copy()
