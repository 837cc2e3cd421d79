"""One picture becomes the upright RGB that a person sees.

Orientation (EXIF), CMYK and YCCK (with the embedded colour profile), 16 bits, palettes,
transparency (on white) and animations (their first frame) are all resolved here, and
damage of every kind becomes one `PictureError` with its reason. No global state of Pillow
is touched: its own limit against decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`, an
error at twice that, 179 megapixels unless changed) is applied from the header, before any
pixel is decoded.
"""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_keras.errors import DataError

__all__ = ["PictureError", "open_picture", "resize"]

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF")
"""Formats that are tried, whatever the file's name: all that a photo folder holds, and none
(such as EPS) whose decoder runs another program."""

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
WAYS = ("stretch", "crop")
DRAFT_MARGIN = 2
"""A JPEG is decoded reduced only to sides of at least this many times the wanted size. On
photos, the resized pictures then differ by 0.5 to 1 of 255 on average from a full decode (by 2
at a margin of 1), and a 12-megapixel photo takes a fifth of the time."""

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
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's decoders are seen to raise on damaged files, besides OSError.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


class PictureError(DataError):
    """A picture that cannot be decoded.

    Attributes:
        path: the file.
        reason: why, in words for a table: "zero bytes", "no picture (...)", ...
    """

    def __init__(self, path: str, reason: str) -> None:
        """Say which file and why."""
        super().__init__(f"{path}: {reason}. Replace or remove the file.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        """Travel between processes whole."""
        return type(self), (self.path, self.reason)


def open_picture(
    item: str | os.PathLike[str] | np.ndarray, at_least: int | None = None
) -> Image.Image:
    """Decode one picture.

    Args:
        item: a file, or a uint8 array of shape (height, width), (height, width, 1) or
            (height, width, 3), values 0..255.
        at_least: the size (pixels a side) that it will be resized to. A JPEG may then be
            decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least
            `DRAFT_MARGIN` times as long: several times faster for photos of a camera.
            None decodes in full.

    Returns:
        The picture, upright, in mode "RGB".

    Raises:
        PictureError: (a `DataError`) if the file is missing, unreadable, empty, no picture,
            damaged, cut short, or a decompression bomb.
    """
    if isinstance(item, np.ndarray):
        return Image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item).convert("RGB")
    try:
        with Image.open(item, formats=FORMATS) as image:
            if at_least is not None:
                image.draft(None, (DRAFT_MARGIN * at_least,) * 2)
            turn = _turn(image)
            image.load()
            upright = image if turn is None else image.transpose(turn)
            # A mode that needs no conversion is still bound to the open file: detach it.
            return _to_rgb(upright, image.info)
    except (*_BOMBS, *_DAMAGE) as error:
        raise PictureError(os.fspath(item), _reason(os.fspath(item), error)) from error


def resize(
    image: Image.Image, size: int, how: str = "stretch", method: str = "bilinear"
) -> np.ndarray:
    """Resize to a square, antialiased.

    Args:
        image: a picture in mode "RGB".
        size: pixels a side.
        how: "stretch" takes the whole picture whatever its shape; "crop" takes the largest
            square in its centre.
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
    return np.asarray(image.resize((size, size), FILTERS[method]))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Read the EXIF orientation; Pillow turns TIFF files itself. Broken EXIF says nothing."""
    if image.format == "TIFF":
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:
        return None


def _to_rgb(image: Image.Image, info: dict) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in info:
        return image
    if image.mode == "CMYK" or image.mode == "LAB":
        return _through_profile(image, info)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale deep grey values to 0..255: 16 bits by their full range, others by their own."""
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (numbers - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


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


def _reason(path: str, error: BaseException) -> str:
    if isinstance(error, _BOMBS):
        return f"decompression bomb: {str(error).split(',')[0]}"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    if isinstance(error, IsADirectoryError):
        return "a folder, not a picture"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "zero bytes"
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    return f"damaged or cut short ({error or type(error).__name__})"


def _unidentified(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(12)
    known = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
    if start.startswith(known):
        return "damaged or cut short (the header cannot be read)"
    return f"no picture (it starts with {start!r})"
