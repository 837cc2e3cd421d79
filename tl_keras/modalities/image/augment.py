"""Make augmented views: seeded variations of an image, the same every time.

View `k` of an image is a pure function of (image, size, augmentation, seed, key, k): its
chance comes from a counter-based generator (Philox, Salmon et al., "Parallel random numbers:
as easy as 1, 2, 3", SC 2011) keyed by a hash of (seed, key, k), so order, threads and restarts
change nothing. View 0 is the plain image, resized.

RandAugment's fourteen operations are those of Cubuk et al., "RandAugment: Practical automated
data augmentation with a reduced search space", arXiv 1909.13719; their ranges are those of
AutoAugment (arXiv 1805.09501), on which it builds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from tl_keras.errors import DataError
from tl_keras.modalities.image import decode
from tl_keras.utils.suggest import did_you_mean

__all__ = ["AUGMENTATIONS", "OPERATIONS", "Augment", "parse_augment", "randaugment", "view"]

AUGMENTATIONS = {
    "flip": "mirror left and right, half of the time",
    "crop": "a random part (40 to 100 % of the area, sides 3:4 to 4:3), resized",
    "color": "brightness, contrast and saturation, each by up to 30 %",
    "affine": "turn by up to 12 degrees, shift by 8 %, scale by 15 %, shear by 0.15; no flip",
    "randaugment": "two random operations of the fourteen of RandAugment, strength 9 of 30",
}
"""What each name does. They are combined with "+"; "none" is nothing."""

_ALSO = {"colour": "color"}
_AREA, _RATIO = (0.4, 1.0), (3 / 4, 4 / 3)
_COLOR = 0.3
_DEGREES, _SHIFT, _SCALE, _SHEAR = 12.0, 0.08, 0.15, 0.15
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Augment:
    """Which variations to make; see `AUGMENTATIONS`."""

    flip: bool = False
    crop: bool = False
    color: bool = False
    affine: bool = False
    randaugment: bool = False

    @property
    def text(self) -> str:
        """The text that `parse_augment` reads; "none" for nothing."""
        return "+".join(name for name in AUGMENTATIONS if getattr(self, name)) or "none"

    def __bool__(self) -> bool:
        """Say whether anything is varied at all."""
        return self != Augment()


def parse_augment(text: str) -> Augment:
    """Read names joined by "+", such as "flip+crop+color", or "none".

    Raises:
        DataError: if a name is unknown; the nearest are offered.
    """
    parts = [part.strip().lower() for part in text.split("+")]
    names = [_ALSO.get(part, part) for part in parts if part not in ("none", "")]
    known = [*AUGMENTATIONS, "none"]
    for name in names:
        if name not in AUGMENTATIONS:
            raise DataError(
                f"Unknown augmentation {name!r} in {text!r}."
                f"{did_you_mean(name, known, 2, 0.5)} Known, joined by '+': "
                f"{', '.join(known)}."
            )
    return Augment(**dict.fromkeys(names, True))


def view(
    image: Image.Image,
    size: int,
    augment: Augment | str,
    seed: int,
    key: str,
    k: int,
    how: str = "stretch",
) -> np.ndarray:
    """Make view `k` of an image.

    Args:
        image: the upright RGB image in full (or as `open_image(..., at_least=size)`
            gives it); crops are taken from it before resizing.
        size: pixels a side.
        augment: what to vary, or its text.
        seed: the run's seed.
        key: the image's stable identity.
        k: number of the view; 0 is the plain image.
        how: the plain geometry, as in `decode.resize`.

    Returns:
        uint8 array of shape (size, size, 3), values 0..255.
    """
    chosen = parse_augment(augment) if isinstance(augment, str) else augment
    if k == 0 or not chosen:
        return decode.resize(image, size, how)
    rng = _generator(seed, key, k)
    small = _crop(image, size, rng) if chosen.crop else _plain(image, size, how)
    if chosen.flip and rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if chosen.affine:
        small = _affine(small, rng)
    if chosen.randaugment:
        small = randaugment(small, rng)
    if chosen.color:
        small = _color(small, rng)
    return np.asarray(small)


def _generator(seed: int, key: str, k: int) -> np.random.Generator:
    name = f"{seed}/{k}/{key}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(name, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _plain(image: Image.Image, size: int, how: str) -> Image.Image:
    return Image.fromarray(decode.resize(image, size, how))


def _crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Resize a random part: Inception's crop (Szegedy et al., arXiv 1409.4842), a milder area."""
    width, height = image.size
    area = rng.uniform(*_AREA) * width * height
    ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
    wide = min(math.sqrt(area * ratio), width)
    high = min(math.sqrt(area / ratio), height)
    left, top = rng.random() * (width - wide), rng.random() * (height - high)
    box = (left, top, min(left + wide, width), min(top + high, height))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _affine(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn, shift, scale and shear about the center; what comes in is the border's color."""
    size = image.width
    angle = math.radians(rng.uniform(-_DEGREES, _DEGREES))
    shear = rng.uniform(-_SHEAR, _SHEAR)
    scale = math.exp(rng.uniform(-1, 1) * math.log1p(_SCALE))
    shift = rng.uniform(-_SHIFT, _SHIFT, 2) * size
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.linalg.inv(scale * turn @ np.array([[1.0, shear], [0.0, 1.0]]))
    center = np.array([size / 2, size / 2])
    offset = center - matrix @ (center + shift)
    data = (*matrix[0], offset[0], *matrix[1], offset[1])
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        data,
        Image.Resampling.BILINEAR,
        fillcolor=_border(image),
    )


def _border(image: Image.Image) -> tuple[int, ...]:
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(edge, axis=0))


def _color(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast and saturation in one matrix, so that clipping comes once."""
    bright, contrast, saturation = rng.uniform(1 - _COLOR, 1 + _COLOR, 3)
    mean = float(np.asarray(image.convert("L").reduce(4)).mean()) * bright
    linear = saturation * np.eye(3) + (1 - saturation) * _LUMA
    matrix = np.empty((3, 4))
    matrix[:, :3] = bright * contrast * linear
    matrix[:, 3] = (1 - contrast) * mean
    return image.convert("RGB", tuple(matrix.ravel().tolist()))


_GRAY = (128, 128, 128)
_LEVELS = 30
Operation = Callable[[Image.Image, float], Image.Image]


def randaugment(
    image: Image.Image, rng: np.random.Generator, count: int = 2, magnitude: float = 9
) -> Image.Image:
    """Apply random operations, drawn with replacement.

    Args:
        image: mode "RGB".
        rng: where chance comes from.
        count: number of operations (N in the paper; 2 for ImageNet with ResNet-50).
        magnitude: 0..30 (M in the paper; 9 for ImageNet with ResNet-50).

    Returns:
        An image of the same size, mode "RGB".
    """
    names = list(OPERATIONS)
    for _ in range(count):
        sign = 1 if rng.random() < 0.5 else -1
        operation = OPERATIONS[names[int(rng.integers(len(names)))]]
        image = operation(image, sign * magnitude / _LEVELS)
    return image


def _moved(image: Image.Image, *data: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=_GRAY
    )


def _enhance(kind: type) -> Operation:
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "rotate": lambda i, s: i.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=_GRAY),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 - int(256 * abs(s))),
    "color": _enhance(ImageEnhance.Color),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda i, s: _moved(i, 1, 0.3 * s, -0.3 * s * i.height / 2, 0, 1, 0),
    "shear_y": lambda i, s: _moved(i, 1, 0, 0, 0.3 * s, 1, -0.3 * s * i.width / 2),
    "translate_x": lambda i, s: _moved(i, 1, 0, 0.45 * s * i.width, 0, 1, 0),
    "translate_y": lambda i, s: _moved(i, 1, 0, 0, 0, 1, 0.45 * s * i.height),
}
"""By name: what takes an image and a strength, -1 to 1, and gives one of the same size."""
