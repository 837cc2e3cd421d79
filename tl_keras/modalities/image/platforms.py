"""Resize as platforms do of their own accord, to measure what that costs a model trained otherwise.

These are models of what the platforms compute, in NumPy and Pillow, each from its documentation
or source; a platform's rounding may differ by one of 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tl_keras.modalities.image import decode

__all__ = ["WAYS", "Way"]


@dataclass(frozen=True)
class Way:
    """One way to make of a decoded image what a model takes.

    Attributes:
        name: what is done.
        used_by: where, in words.
        remedy: what to do about it there.
        resize: of an RGB image and a side in pixels: uint8 (side, side, 3).
    """

    name: str
    used_by: str
    remedy: str
    resize: Callable[[Image.Image, int], np.ndarray]


def _round(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _bilinear(image: Image.Image, side: int) -> np.ndarray:
    """Mix the four pixels around a point, however many lie between two points.

    Android: a Bitmap that is drawn with FILTER_BITMAP_FLAG, and so createScaledBitmap with
    filter=true, is sampled by Skia's SkFilterMode::kLinear with SkMipmapMode::kNone. OpenCV:
    INTER_LINEAR. MediaPipe's ImageToTensorCalculator samples so too.
    """
    pixels = np.asarray(image).astype(np.float32)
    for axis in (0, 1):
        count = pixels.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * (count / side) - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, count - 1)
        pixels = np.take(pixels, low, axis) * (1 - share) + np.take(pixels, high, axis) * share
    return _round(pixels)


def _nearest(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))


def _area(image: Image.Image, side: int) -> np.ndarray:
    """Take the mean over each new pixel's area, as OpenCV's INTER_AREA; it enlarges linearly."""
    pixels = np.asarray(image).astype(np.float64)
    if min(pixels.shape[:2]) < side:
        return _bilinear(image, side)
    for axis in (0, 1):
        pixels = np.moveaxis(pixels, axis, 0)
        count = len(pixels)
        sums = np.concatenate([np.zeros_like(pixels[:1]), np.cumsum(pixels, axis=0)])
        ends = np.linspace(0, count, side + 1)
        low = np.minimum(ends.astype(int), count - 1)
        share = (ends - low).reshape(-1, 1, 1)
        upto = sums[low] * (1 - share) + sums[low + 1] * share
        pixels = np.moveaxis(np.diff(upto, axis=0) * (side / count), 0, axis)
    return _round(pixels)


def _mipmap(image: Image.Image, side: int) -> np.ndarray:
    """Halve by means of 2 x 2 as long as the image stays larger, then mix four pixels.

    Skia's SkMipmap with kLinear: what Chromium's canvas does for imageSmoothingQuality medium, and
    for high where it reduces.
    """
    level = max(0, math.floor(math.log2(max(1.0, min(image.size) / side))))
    return _bilinear(image.reduce(2**level) if level else image, side)


def _lanczos(image: Image.Image, side: int) -> np.ndarray:
    """Lanczos with a support that grows: Apple's vImageScale, and Core Graphics' high quality."""
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def _center_crop(image: Image.Image, side: int) -> np.ndarray:
    """Cut the largest square from the center: the default of Apple's VNCoreMLRequest."""
    return decode.resize(image, side, "crop")


WAYS = (
    Way(
        "decoded in full, resized right", "whoever decodes a large JPEG in full",
        "nothing", decode.resize,
    ),
    Way(
        "area averages", "OpenCV INTER_AREA", "fine where it only reduces", _area,
    ),
    Way(
        "Lanczos, antialiased", "iOS and macOS: vImageScale, Core Graphics high quality",
        "near; stretch, do not crop", _lanczos,
    ),
    Way(
        "halved, then 2 x 2 pixels", "browser canvas, imageSmoothingQuality medium or high",
        "set the quality to high", _mipmap,
    ),
    Way(
        "2 x 2 pixels, no antialias",
        "Android createScaledBitmap(filter=true), MediaPipe, OpenCV INTER_LINEAR, canvas low",
        "halve the image until it is less than twice the size, then resize; or INTER_AREA",
        _bilinear,
    ),
    Way(
        "nearest pixel", "Android createScaledBitmap(filter=false), canvas without smoothing",
        "never use it", _nearest,
    ),
    Way(
        "center crop", "iOS VNCoreMLRequest by default, many samples of code",
        "set imageCropAndScaleOption to .scaleFill", _center_crop,
    ),
)  # fmt: skip
"""From near to far."""
