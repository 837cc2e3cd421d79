"""State every step from an image file to what a model takes; make small files that prove each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tl_keras.modalities.image import decode

__all__ = ["describe_steps", "make_probes", "trace"]

_WIDTH, _HEIGHT = 96, 64
_LARGE = (1280, 960)


def describe_steps(size: tuple[int, int], levels: decode.Levels | None) -> list[dict[str, Any]]:
    """Return what is done to an image file, step by step, in order, for whoever does it elsewhere.

    Args:
        size: (width, height) in pixels of what the model takes.
        levels: of deep gray images; None where there are none.
    """
    width, height = size
    return [
        {
            "step": "decode",
            "formats": list(decode.FORMATS),
            "frame": "the first of an animation",
            "jpeg": f"may be decoded at 1/2, 1/4 or 1/8 as long as both sides stay at least "
            f"{decode.DRAFT_MARGIN * width} x {decode.DRAFT_MARGIN * height}; in full is near "
            "enough (0.5 to 1 of 255 on average)",
        },
        {
            "step": "orientation",
            "rule": "turned and mirrored as the EXIF tag 0x0112 says (1..8), before the resize",
        },
        {
            "step": "depth",
            "gray": "more than 8 bits: clip(rint((v - black) * 255 / (white - black)), 0, 255), "
            "NaN is 0",
            "levels": {kind: list(pair) for kind, pair in (levels or {}).items()},
            "without_levels": "0 and 65535 of integers; of floats 0 and the least of 1, 255 and "
            "65535 that holds all, else their own ends",
            "color": "of 16 bits a channel the upper 8",
        },
        {
            "step": "color",
            "to": "RGB",
            "background": [255, 255, 255],
            "alpha": "laid on the background by its own alpha, before the resize",
            "gray": "the same value in all three channels",
            "cmyk_lab": "by the embedded profile to sRGB; without one CMYK as Pillow converts it",
            "profile_of_rgb": "ignored",
        },
        {
            "step": "resize",
            "size": [width, height],
            "aspect": "stretched: the whole image, whatever its shape",
            "crop": None,
            "filter": "bilinear (a triangle), pixel centers at one half",
            "antialias": True,
            "support": "the triangle's half width is max(1, old side / new side) pixels of the "
            "image, its weights add up to 1",
            "rounding": "to whole numbers after the horizontal pass, which is first, and after the "
            "vertical one",
            "same_as": "PIL.Image.resize((width, old height), BILINEAR), then "
            ".resize((width, height), BILINEAR)",
        },
        {
            "step": "values",
            "range": [0, 255],
            "scaling": "none: it is part of the model",
            "channels": "RGB",
            "layout": "batch, height, width, channels",
        },
    ]


def trace(image: Image.Image) -> dict[str, Any]:
    """Return what decoding gave, before the resize: size, mean of each channel, SHA-256.

    Args:
        image: upright, in mode "RGB".
    """
    pixels = np.asarray(image)
    return {
        "size": list(image.size),
        "mean": [round(float(one), 3) for one in pixels.mean(axis=(0, 1))],
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def make_probes() -> dict[str, tuple[str, bytes]]:
    """Make small image files, each of which comes out otherwise where one step is left out.

    Returns:
        By file name: which step it proves, and its contents. Nothing of it is from any data.
    """
    plain = _draw(_WIDTH, _HEIGHT)
    made: dict[str, tuple[str, bytes]] = {}

    def add(name: str, proves: str, image: Image.Image, **how: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, _FORMATS[name.rsplit(".", 1)[1]], **how)
        made[name] = proves, stream.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6
    add("orientation.jpg", "EXIF orientation", plain, exif=exif, quality=90)
    alpha = np.linspace(0, 255, _WIDTH).astype(np.uint8)
    clear = np.dstack([np.asarray(plain), np.broadcast_to(alpha, (_HEIGHT, _WIDTH))])
    add("background.png", "background for alpha", Image.fromarray(clear))
    add("gray.png", "gray to RGB", plain.convert("L"))
    deep = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    add("depth.png", "16 bits of gray", Image.fromarray(deep))
    add("palette.gif", "palette", plain.quantize(32), transparency=0)
    add("cmyk.jpg", "CMYK to RGB", plain.convert("CMYK"), quality=90)
    add("aspect.png", "no crop, no bars", _draw(40, 300))
    add("fine.png", "antialias", _draw(*_LARGE, period=5).quantize(64))
    add("large.jpg", "reduced JPEG", _draw(*_LARGE, period=_LARGE[0]), quality=50)
    return made


_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF"}


def _draw(width: int, height: int, period: int = 16) -> Image.Image:
    """Draw colors that run, stripes of a period and a disc: no symmetry that hides a turn."""
    y, x = np.mgrid[0:height, 0:width]
    wave: Callable[[np.ndarray], np.ndarray] = lambda t: (t // (period / 2) % 2)  # noqa: E731
    stripes = np.where(y < height / 2, wave(x), wave(x + y))
    disc = ((x / width - 0.3) ** 2 + (y / height - 0.6) ** 2) < 0.04
    red = 255 * x / width
    green = np.where(disc, 230, 60 + 120 * stripes)
    blue = 255 * (1 - y / height) * (0.5 + 0.5 * stripes)
    return Image.fromarray(np.dstack([red, green, blue]).astype(np.uint8))
