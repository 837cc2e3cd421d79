"""RandAugment: a few random operations, one strength for all.

The set of fourteen operations is that of Cubuk et al., "RandAugment: Practical automated data
augmentation with a reduced search space", arXiv 1909.13719; ranges are those of AutoAugment
(arXiv 1805.09501), on which it builds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

__all__ = ["OPERATIONS", "randaugment"]

GREY = (128, 128, 128)
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
        A picture of the same size, mode "RGB".
    """
    names = list(OPERATIONS)
    for _ in range(count):
        sign = 1 if rng.random() < 0.5 else -1
        operation = OPERATIONS[names[int(rng.integers(len(names)))]]
        image = operation(image, sign * magnitude / _LEVELS)
    return image


def _affine(image: Image.Image, data: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GREY
    )


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    slope = 0.3 * strength
    return _affine(image, (1, slope, -slope * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    slope = 0.3 * strength
    return _affine(image, (1, 0, 0, slope, 1, -slope * image.width / 2))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0.45 * strength * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 0.45 * strength * image.height))


def _enhance(kind: type) -> Operation:
    def operation(image: Image.Image, strength: float) -> Image.Image:
        return kind(image).enhance(1 + 0.9 * strength)

    return operation


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": lambda image, strength: ImageOps.solarize(image, 256 - int(256 * abs(strength))),
    "color": _enhance(ImageEnhance.Color),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
