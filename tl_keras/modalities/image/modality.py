"""Images: upright RGB of one size, 0..255."""

from __future__ import annotations

import copy
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tl_keras.errors import DataError, ModelError
from tl_keras.modalities.base import (
    BadSample,
    CheckReport,
    InputSpec,
    Modality,
    SampleLike,
    in_order,
)
from tl_keras.modalities.image import decode, platforms, steps
from tl_keras.modalities.image.augment import parse_augment
from tl_keras.modalities.image.perceptual_hash import SIDE, perceptual_hash
from tl_keras.modalities.image.reader import ImageReader

if TYPE_CHECKING:
    import keras

__all__ = ["SUFFIXES", "ImageModality", "check_images", "pixel_digest"]

SUFFIXES = frozenset(
    {"jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "avif", "heic", "heif"}
)
"""Endings of the files that a folder is searched for."""
_LOSSLESS, _QUALITY = 64, 92
_BAND = 4_000_000
_DARK = 64
_MOST_PIXELS = 64_000_000
"""Of a file that came with somebody's bundle: 192 MB of RGB."""


def _notes(deep: Sequence[decode.Extremes], levels: decode.Levels) -> tuple[str, ...]:
    notes = []
    for kind, (low, high) in sorted(levels.items()):
        spans = [(least, most) for found, least, most in deep if found == kind]
        beyond = sum(least < low or most > high for least, most in spans)
        clipped = f"; {beyond} go beyond and are clipped" if beyond else ""
        if spans:
            notes.append(
                f"{len(spans)} images are deep gray ({kind}s): {low:g} becomes black and "
                f"{high:g} white{clipped}"
            )
    colors = [high for kind, _, high in deep if kind == "color"]
    if colors and max(colors) < _DARK:
        notes.append(
            f"{len(colors)} color images hold 16 bits a channel, of which Pillow reads the upper "
            f"8, and none is brighter than {max(colors):g} of 255: if they use fewer bits, save "
            "them with 8 bits a channel"
        )
    return tuple(notes)


class ImageModality(Modality):
    """Images, as files of any common format or as uint8 arrays (height, width, 1 or 3).

    Args:
        levels: Of deep gray images, see :mod:`tl_keras.modalities.image.decode`; None before
            a check decided them.
    """

    name = "image"
    noun = "image"
    suffixes = SUFFIXES
    default_augment = "flip+crop"
    input_name = "image"
    elsewhere = "of another camera, light or place"
    size_unit = "px"
    last_step = "resize"
    # Of 255: other decoders round otherwise, and a JPEG that was decoded in full differs by 0.5 to
    # 1; no antialias makes 3 to 8 on photos.
    tolerance = 1.0
    preparation = "the whole image to this size, bilinear, antialiased"

    def __init__(self, levels: decode.Levels | None = None) -> None:
        self.levels = levels

    @property
    def settings(self) -> dict[str, Any]:
        """The levels of deep gray images, where there are any."""
        return {"levels": {k: list(v) for k, v in self.levels.items()}} if self.levels else {}

    def with_settings(
        self, settings: Mapping[str, Any], folder: str | os.PathLike[str] | None = None
    ) -> ImageModality:
        """Return a modality with these levels."""
        made, levels = copy.copy(self), settings.get("levels") or {}
        made.levels = {kind: (float(low), float(high)) for kind, (low, high) in levels.items()}
        return made

    def open(self, item: Any, at_least: int | None = None) -> Image.Image:
        """Return an item as an upright RGB image.

        Args:
            item: A path or an array.
            at_least: Shorter side in pixels that suffices; a large JPEG is decoded reduced.

        Raises:
            DataError: It cannot be decoded.
        """
        return decode.open_image(item, at_least, self.levels)

    def specs(self, model: keras.Model) -> dict[str, InputSpec]:
        """Return the one image that a model takes.

        Raises:
            ModelError: It takes several inputs, or no square RGB image of one size.
        """
        shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        shape = shapes[0]
        if len(shapes) != 1 or len(shape) != 3 or shape[0] != shape[1] or None in shape:
            raise ModelError(
                f"'{model.name}' takes {', '.join(map(str, shapes))}; expected one square RGB "
                "image of a fixed size, (size, size, 3)"
            )
        return {self.input_name: InputSpec(shape, "uint8", "RGB, 0..255, no scaling")}

    def reader(
        self, samples: SampleLike, specs: dict[str, InputSpec], augment: str = "none", seed: int = 0
    ) -> ImageReader:
        """Return what reads images at the size of the first spec."""
        size = next(iter(specs.values())).shape[0]
        return ImageReader(samples, size, augment, seed)

    def check_augment(self, text: str) -> None:
        """See :func:`tl_keras.modalities.image.augment.parse_augment`."""
        parse_augment(text)

    def check(
        self,
        samples: SampleLike,
        *,
        progress: Callable[[int, int], None] | None = None,
        workers: int | None = None,
    ) -> CheckReport:
        """Decode every image in full; decide levels where none are given.

        Threads do the work: Pillow and hashlib release the interpreter's lock while they decode
        and hash. Only a short window of images is in flight, so memory stays flat.
        """

        def look(index: int) -> tuple[str, decode.Extremes | None, BadSample | None]:
            try:
                image = decode.load_image(samples.items[index])
                return pixel_digest(image), decode.find_extremes(image), None
            except decode.ImageError as error:
                return "", None, BadSample(error.path, error.reason, index)
            except DataError as error:
                return "", None, BadSample(samples.keys[index], str(error), index)

        digests: list[str] = []
        bad: list[BadSample] = []
        deep: list[decode.Extremes] = []
        total = len(samples.keys)
        for digest, extremes, found in in_order(look, total, workers or os.cpu_count() or 1):
            digests.append(digest)
            if extremes is not None:
                deep.append(extremes)
            if found is not None:
                bad.append(found)
            if progress is not None and (len(digests) % 8 == 0 or len(digests) == total):
                progress(len(digests), total)
        levels = self.levels or decode.decide_levels(deep)
        return CheckReport(
            tuple(bad), tuple(digests), samples.root, self.noun,
            ImageModality(levels).settings, _notes(deep, levels),
        )  # fmt: skip

    def digest(self, item: Any) -> str:
        """Return a hash of an image's size and pixels, of deep gray ones as they are stored."""
        # Their 8 bits depend on the levels, and may make two images alike.
        return pixel_digest(decode.load_image(item))

    def facts(self, specs: dict[str, InputSpec]) -> dict[str, Any]:
        """Return the side in pixels too."""
        return {"size": next(iter(specs.values())).shape[0], **super().facts(specs)}

    def check_arrays(self, items: np.ndarray) -> np.ndarray:
        """Return uint8 (n, height, width, 1 or 3).

        Raises:
            DataError: Shape or dtype is another.
        """
        items = np.asarray(items)
        if items.dtype != np.uint8:
            raise DataError(
                f"Images are {items.dtype}; expected uint8, 0..255. "
                "For values in 0..1: (images * 255).round().astype('uint8')."
            )
        if items.ndim == 3:
            items = items[..., np.newaxis]
        if items.ndim != 4 or items.shape[-1] not in (1, 3) or not items.size:
            raise DataError(
                f"Images have the shape {items.shape}; expected (n, height, width, 3) or "
                "(n, height, width, 1), with at least one image."
            )
        return items

    def thumbnail(self, item: Any, most: int = 320) -> Image.Image | None:
        """Return the image, at most so many pixels wide and high; None if it cannot be opened."""
        try:
            image = self.open(item, most).convert("RGB")
        except (OSError, ValueError):
            return None  # moved or damaged since
        image.thumbnail((most, most))
        return image

    def perceptual_hash(self, item: Any) -> np.ndarray | None:
        """See :func:`tl_keras.modalities.image.perceptual_hash.perceptual_hash`."""
        try:
            return perceptual_hash(self.open(item, SIDE))
        except (DataError, OSError, ValueError):
            return None  # moved or damaged since

    def encode(self, batch: dict[str, np.ndarray], index: int) -> dict[str, bytes]:
        """Return one image as PNG."""
        (values,) = batch.values()
        pixels = np.clip(np.rint(values[index]), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return {"png": stream.getvalue()}

    def describe_steps(self, specs: Mapping[str, InputSpec]) -> list[dict[str, Any]]:
        """See :func:`tl_keras.modalities.image.steps.describe_steps`."""
        height, width, _ = next(iter(specs.values())).shape
        return steps.describe_steps((width, height), self.levels)

    def trace(self, item: Any, specs: Mapping[str, InputSpec]) -> dict[str, Any]:
        """Return size, means and hash of the decoded image; see `steps.trace`."""
        _, width, height, _ = decode.read_header(item)
        if width * height > _MOST_PIXELS:
            raise DataError(
                f"{item} has {width} x {height} pixels; expected at most {_MOST_PIXELS:,}"
            )
        return steps.trace(self.open(item, next(iter(specs.values())).shape[0]))

    def sketch(self, item: Any) -> str:
        """Return format, mode, shape and whether it is turned, from the header alone."""
        kind, width, height, turned = decode.read_header(item)
        shape = "wide" if width > 1.2 * height else "tall" if height > 1.2 * width else "square"
        return f"{kind} {shape}{' turned' * turned}"

    def other_ways(self) -> Sequence[platforms.Way]:
        """See :data:`tl_keras.modalities.image.platforms.WAYS`."""
        return platforms.WAYS

    def make_probes(self) -> dict[str, tuple[str, bytes]]:
        """See :func:`tl_keras.modalities.image.steps.make_probes`."""
        return steps.make_probes()

    def compress(self, item: Any, specs: dict[str, InputSpec]) -> tuple[str, bytes]:
        """Return an image as a small file.

        Small images (64 pixels or less) are kept to the last bit, as PNG; larger ones as JPEG
        of quality 92, the shorter side at most 1.25 times what the model sees, so that crops
        still have something to choose from.
        """
        image, stream = self.open(item), io.BytesIO()
        if max(image.size) <= _LOSSLESS:
            image.save(stream, "PNG", optimize=True)
            return "png", stream.getvalue()
        size = next(iter(specs.values())).shape[0]
        factor = max(1.25 * size, _LOSSLESS) / min(image.size)
        if factor < 1:
            wide, high = (max(1, round(side * factor)) for side in image.size)
            image = image.resize((wide, high), Image.Resampling.BILINEAR, reducing_gap=3.0)
        image.save(stream, "JPEG", quality=_QUALITY)
        return "jpg", stream.getvalue()


def check_images(
    samples: Any,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decode every image in full, before any training.

    Args:
        samples: What to check.
        workers: Threads; as many as there are cores by default.
        progress: Called now and then, in this thread, with (done, total).

    Returns:
        The report; nothing is raised for a bad image.
    """
    return samples.modality.check(samples, workers=workers, progress=progress)


def pixel_digest(image: Image.Image) -> str:
    """Hash an image's size and pixels (blake2b, 128 bits, hexadecimal)."""
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    # Band by band, so that a huge image is not held twice.
    band = max(1, _BAND // max(1, image.width))
    for top in range(0, image.height, band):
        bottom = min(top + band, image.height)
        part = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        digest.update(part.tobytes())
    return digest.hexdigest()
