"""Decode an image file into the upright RGB that a person sees.

Orientation (EXIF), CMYK and YCCK (with the embedded color profile), palettes, transparency
(on white) and animations (their first frame) are all resolved here, and damage of every kind
becomes one `ImageError` with its reason. Only regular files are opened: a named pipe or a
device would wait forever. No global state of Pillow is touched: its own limit against
decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`, an error at twice that, 179 megapixels
unless changed) is applied from the header, before any pixel is decoded.

Deep gray images (Pillow's modes "I;16...", "I" and "F": 16-bit PNG, and TIFF of 16 or 32 bits
or of floats) become 8 bits before anything else, by this rule, which programs on a device
repeat: a value v becomes clip(rint((v - low) * 255 / (high - low)), 0, 255), NaN becomes 0.
`low` and `high` are the levels of the whole data set (:func:`decide_levels`), one pair for its
integers and one for its floats; where none were decided, 0 and 65535 for integers, and for
floats what `decide_levels` says of the one image. Of color images with 16 bits a channel Pillow
itself keeps the upper 8 bits; a set of them that uses fewer bits is told of by the check.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_keras.errors import DataError
from tl_keras.utils.files import irregular

__all__ = [
    "Extremes", "Levels", "ImageError", "decide_levels", "deep_kind", "find_extremes",
    "load_image", "open_image", "read_header", "resize",
]  # fmt: skip

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF")
"""Formats that are tried, whatever the file's name: all that a photo folder holds, and none
(such as EPS) whose decoder runs another program. HEIF comes with the extra "heif"."""

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
WAYS = ("stretch", "crop")
DRAFT_MARGIN = 2
"""A JPEG is decoded reduced only to sides of at least this many times the wanted size. On
photos, the resized images then differ by 0.5 to 1 of 255 on average from a full decode (by 2
at a margin of 1), and a 12-megapixel photo takes a fifth of the time."""

Levels = Mapping[str, tuple[float, float]]
"""For "integer" and "float" deep images: which values become 0 and 255."""

Extremes = tuple[str, float, float]
"""A deep image's kind ("integer" or "float"), smallest and largest finite value; "color" for an
image of 16 bits a channel, of which only the upper 8 are here."""
_CUT = "tl_keras: upper bits only"

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITES = {
    "integer": (255.0, 1023.0, 4095.0, 16383.0, 65535.0),
    "float": (1.0, 255.0, 65535.0),
}
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders are seen to raise on damaged files, besides OSError.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError, MemoryError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_BRANDS = dict.fromkeys((b"avif", b"avis"), "AVIF") | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    "HEIC",
)
_MARKS = {
    **dict.fromkeys((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*"), "image"),
    **dict.fromkeys((b"OggS", b"ID3", b"fLaC", b"\x1aE\xdf\xa3"), "a film or sound"),
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
}
_CONVERT = "save it as JPEG or PNG"
_CURES = {
    "HEIC": f"pip install 'tl_keras[heif]' (or pillow-heif), or {_CONVERT}",
    "AVIF": f"this Pillow was built without it; {_CONVERT}",
    "JPEG XL": _CONVERT,
    "JPEG 2000": _CONVERT,
    "a Photoshop file": _CONVERT,
}


class ImageError(DataError):
    """An image that cannot be decoded.

    Attributes:
        path: the file.
        reason: why, in words for a table: "zero bytes", "no image (...)", ...
    """

    def __init__(self, path: str, reason: str) -> None:
        """Say which file and why."""
        super().__init__(f"{path}: {reason}. Replace or remove the file.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Travel between processes whole."""
        return type(self), (self.path, self.reason)


def open_image(
    item: str | os.PathLike[str] | np.ndarray,
    at_least: int | None = None,
    levels: Levels | None = None,
) -> Image.Image:
    """Decode one image.

    Args:
        item: a file, or a uint8 array of shape (height, width), (height, width, 1) or
            (height, width, 3), values 0..255.
        at_least: the size (pixels a side) that it will be resized to. A JPEG may then be
            decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least
            `DRAFT_MARGIN` times as long: several times faster for photos of a camera.
            None decodes in full.
        levels: of deep gray images, decided for the set; see the head of this module.

    Returns:
        The image, upright, in mode "RGB".

    Raises:
        ImageError: (a `DataError`) if the file is missing, no regular file, unreadable, empty,
            no image, of a format that is not read here, damaged, cut short, or a decompression
            bomb.
    """
    image = load_image(item, at_least)
    if not deep_kind(image):
        return image
    return Image.fromarray(_scaled(image, levels or {})).convert("RGB")


def load_image(
    item: str | os.PathLike[str] | np.ndarray, at_least: int | None = None
) -> Image.Image:
    """Decode one image as `open_image` does, but leave deep gray ones as they are stored.

    Arguments and errors as for `open_image`.
    """
    if isinstance(item, np.ndarray):
        return Image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item).convert("RGB")
    path = os.fspath(item)
    if kind := irregular(path):
        raise ImageError(path, f"{kind}, no image file")
    try:
        with _opened(path) as image:
            if at_least is not None:
                image.draft(None, (DRAFT_MARGIN * at_least,) * 2)
            deep = image.format in ("PNG", "TIFF")
            cut = deep and any(";16" in str(tile) for tile in image.tile)
            # Before the EXIF data are asked for: Pillow may decode to find them, and then raises
            # nothing for damaged pixels, there or here.
            image.load()
            turn = _turn(image)
            upright = image if turn is None else image.transpose(turn)
            if deep_kind(upright):
                return upright
            made = _to_rgb(upright, image.info)
            if cut:
                made.info[_CUT] = True
            return made
    except (*_BOMBS, *_DAMAGE) as error:
        raise ImageError(path, _reason(path, error)) from error


def read_header(path: str | os.PathLike[str]) -> tuple[str, int, int, bool]:
    """Read format and mode, width, height as stored, and whether an image is to be turned.

    No pixel is decoded.

    Raises:
        ImageError: as `open_image` does.
    """
    name = os.fspath(path)
    if kind := irregular(name):
        raise ImageError(name, f"{kind}, no image file")
    try:
        with _opened(name) as image:
            return f"{image.format} {image.mode}", *image.size, _turn(image) is not None
    except (*_BOMBS, *_DAMAGE) as error:
        raise ImageError(name, _reason(name, error)) from error


def _to_rgb(image: Image.Image, info: dict[Any, Any]) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in info:
        return image
    if image.mode == "CMYK" or image.mode == "LAB":
        return _through_profile(image, info)
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def deep_kind(image: Image.Image) -> str:
    """Say "integer" or "float" of an image with more than 8 bits of gray, "" of any other."""
    if image.mode == "F":
        return "float"
    return "integer" if image.mode.startswith("I") else ""


def find_extremes(image: Image.Image) -> Extremes | None:
    """Return the `Extremes` of an image from `load_image`; None of one with 8 bits a channel."""
    if not (kind := deep_kind(image)):
        return ("color", 0.0, float(np.max(image))) if image.info.get(_CUT) else None
    values = np.asarray(image)
    finite = values[np.isfinite(values)] if kind == "float" else values
    return (kind, float(finite.min()), float(finite.max())) if finite.size else None


def decide_levels(extremes: Iterable[Extremes]) -> dict[str, tuple[float, float]]:
    """Choose which values become black and white, by what a whole data set uses.

    Integers from 0 up use 8, 10, 12, 14 or 16 bits, whichever is the least that holds the
    largest of the set; floats from 0 up go to 1, 255 or 65535. A set that goes below 0 or
    beyond is stretched from its smallest to its largest value.

    Args:
        extremes: Kind ("integer" or "float"), smallest and largest value of each deep image.

    Returns:
        The levels of the kinds that there are.
    """
    spans: dict[str, tuple[float, float]] = {}
    for kind, low, high in extremes:
        before = spans.get(kind, (low, high))
        spans[kind] = min(before[0], low), max(before[1], high)
    return {kind: _levels(kind, *span) for kind, span in spans.items() if kind in _WHITES}


def _levels(kind: str, low: float, high: float) -> tuple[float, float]:
    for white in _WHITES[kind]:
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _scaled(image: Image.Image, levels: Levels) -> np.ndarray:
    kind, values = deep_kind(image), np.asarray(image)
    if kind not in levels:
        _, low, high = find_extremes(image) or (kind, 0.0, 1.0)
        fits = kind == "integer" and low >= 0 and high <= 65535
        levels = {kind: (0.0, 65535.0) if fits else _levels(kind, low, high)}
    low, high = levels[kind]
    with np.errstate(over="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)


def resize(
    image: Image.Image, size: int, how: str = "stretch", method: str = "bilinear"
) -> np.ndarray:
    """Resize to a square, antialiased.

    Args:
        image: an image in mode "RGB".
        size: pixels a side.
        how: "stretch" takes the whole image whatever its shape; "crop" takes the largest
            square in its center.
        method: "bilinear" or "bicubic", both with a support that grows with the reduction.

    Returns:
        uint8 array of shape (size, size, 3), values 0..255.
    """
    if how not in WAYS or method not in FILTERS:
        raise DataError(f"Got {how!r}, {method!r}; expected one of {WAYS} and {tuple(FILTERS)}.")
    if how == "crop":
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Not resize(box=...), which lets what lies outside the box bleed in.
        image = image.crop((left, top, left + side, top + side))
    # Pass by pass: since version 13 Pillow begins with the rows of some tall images, and rounds
    # otherwise by 1 of 255; across, then down, is what all versions and other programs can do.
    across = image.resize((size, image.height), FILTERS[method])
    return np.asarray(across.resize((size, size), FILTERS[method]))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Read the EXIF orientation; Pillow turns TIFF files itself. Broken EXIF says nothing."""
    if image.format == "TIFF":
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return None


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _through_profile(image: Image.Image, info: dict) -> Image.Image:
    """Turn CMYK or LAB to sRGB, by the embedded profile where there is a sound one."""
    from PIL import ImageCms

    profile = info.get("icc_profile")
    if image.mode == "CMYK" and not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(
            ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(profile or b"")
        )
        target = ImageCms.createProfile("sRGB")
        turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        return turned if turned is not None else image.convert("RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def _opened(path: str) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        if _kind_of_file(path) != "HEIC" or not importlib.util.find_spec("pillow_heif"):
            raise
        from pillow_heif import register_heif_opener

        register_heif_opener()
        return Image.open(path, formats=("HEIF",))


def _reason(path: str, error: BaseException) -> str:
    if isinstance(error, _BOMBS):
        return f"decompression bomb: {str(error).split(',')[0]}"
    if isinstance(error, FileNotFoundError) or "\0" in path:
        return "no such file"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "zero bytes"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror.lower()})"
    return f"damaged or cut short ({error or type(error).__name__})"


def _unidentified(path: str) -> str:
    kind = _kind_of_file(path)
    if kind in _CURES:
        return f"{kind}, which is not read here: {_CURES[kind]}"
    if kind == "image":
        return "damaged or cut short (the header cannot be read)"
    with open(path, "rb") as file:
        start = file.read(12)
    return f"no image{f' but {kind}' if kind else ''} (it starts with {start!r})"


def _kind_of_file(path: str) -> str:
    """Name what a file is by its first bytes: "image" for what Pillow should read."""
    with open(path, "rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "a film or sound")
    if start[:4] == b"RIFF":
        return "image" if start[8:12] in (b"WEBP", b"") else "a film or sound"
    return next((kind for mark, kind in _MARKS.items() if start.startswith(mark)), "")
