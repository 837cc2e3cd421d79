"""Photos as a worse camera would have taken them: blurred, darkened, noised.

After the common corruptions of Hendrycks and Dietterich, 'Benchmarking neural network
robustness to common corruptions and perturbations' (ICLR 2019, arXiv 1903.12261): kinds in
five severities, written here with Pillow and NumPy. Lengths are shares of the image's
shorter side, so that a severity looks the same at every size.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageFilter

from tl_keras.errors import DataError
from tl_keras.modalities.image.decode import Levels
from tl_keras.modalities.image.modality import ImageModality
from tl_keras.utils.suggest import did_you_mean

__all__ = ["CORRUPTIONS", "corrupt", "corrupted", "parse_corruption"]

Data = TypeVar("Data", bound=Any)
_SIDE = 224


def _noise(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    spread = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    pixels = _unit(image)
    return _to_image(pixels + rng.normal(0.0, spread, pixels.shape))


def _shot_noise(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return _to_image(np.asarray(rng.poisson(_unit(image) * photons) / photons))


def _blur(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    share = (0.006, 0.011, 0.018, 0.027, 0.04)[severity - 1]
    return image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def _motion_blur(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    share = (0.03, 0.05, 0.08, 0.11, 0.15)[severity - 1]
    count = max(2, round(share * min(image.size)))
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    total = np.zeros_like(_unit(image))
    padded = np.pad(_unit(image), ((count, count), (count, count), (0, 0)), mode="edge")
    height, width = total.shape[:2]
    for step in np.linspace(-count / 2, count / 2, count + 1):
        top = count + round(step * np.sin(angle))
        left = count + round(step * np.cos(angle))
        total += padded[top : top + height, left : left + width]
    return _to_image(total / (count + 1))


def _dark(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    return _to_image(_unit(image) * (0.7, 0.5, 0.35, 0.24, 0.15)[severity - 1])


def _bright(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    return _to_image(_unit(image) + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1])


def _contrast(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    pixels, share = _unit(image), (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _to_image(mean + share * (pixels - mean))


def _pixelate(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    share = (0.5, 0.35, 0.25, 0.18, 0.12)[severity - 1]
    small = [max(1, round(side * share)) for side in image.size]
    reduced = image.resize((small[0], small[1]), Image.Resampling.BOX)
    return reduced.resize(image.size, Image.Resampling.NEAREST)


def _jpeg(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return Image.open(stream).convert("RGB")


_KINDS: dict[str, Callable[[Image.Image, int, np.random.Generator], Image.Image]] = {
    "blur": _blur,
    "motion-blur": _motion_blur,
    "noise": _noise,
    "shot-noise": _shot_noise,
    "dark": _dark,
    "bright": _bright,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
CORRUPTIONS = tuple(_KINDS)


def _unit(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64) / 255


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def parse_corruption(text: str) -> tuple[str, int]:
    """Return kind and severity of "blur:3"; without a number the severity is 3.

    Raises:
        DataError: The kind is unknown, or the severity is not 1 to 5.
    """
    kind, _, number = text.partition(":")
    if kind not in _KINDS:
        raise DataError(
            f"unknown corruption '{kind}', expected one of {', '.join(CORRUPTIONS)}."
            f"{did_you_mean(kind, CORRUPTIONS, cutoff=0.5)}"
        )
    if number not in ("", "1", "2", "3", "4", "5"):
        raise DataError(f"the severity of '{text}' is '{number}', expected 1 to 5")
    return kind, int(number or 3)


def corrupt(image: Image.Image, kind: str, severity: int = 3) -> Image.Image:
    """Return a corrupted copy; the same image always gets the same noise.

    Args:
        image: Mode RGB.
        kind: One of `CORRUPTIONS`.
        severity: 1 (slight) to 5 (severe).

    Raises:
        DataError: The kind is unknown, or the severity is not 1 to 5.
    """
    kind, severity = parse_corruption(f"{kind}:{severity}")
    return _KINDS[kind](image, severity, np.random.default_rng(zlib.crc32(image.tobytes())))


def corrupted(samples: Data, kind: str, severity: int = 3) -> Data:
    """Return the same samples, corrupted when they are read, at the size that a model sees.

    Raises:
        DataError: The kind is unknown, or the severity is not 1 to 5.
    """
    parse_corruption(f"{kind}:{severity}")
    made = _CorruptedImages(kind, severity, samples.modality.levels)
    return dataclasses.replace(samples, modality=made)


class _CorruptedImages(ImageModality):
    def __init__(self, kind: str, severity: int, levels: Levels | None) -> None:
        super().__init__(levels)
        self.kind, self.severity = kind, severity

    def open(self, item: Any, at_least: int | None = None) -> Image.Image:
        image, side = super().open(item, at_least), at_least or _SIDE
        scale = side / min(image.size)
        if scale < 1:  # noise on pixels that are averaged away afterwards would be none
            width, height = (max(1, round(length * scale)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BOX)
        return corrupt(image, self.kind, self.severity)
