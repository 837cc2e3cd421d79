"""Every image is decoded once before training, in parallel; what is wrong is told at once.

Threads do the work: Pillow and hashlib release the interpreter's lock while they decode and
hash. Only a short window of images is in flight, so memory stays flat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from tl_keras.modalities.base import CheckReport

__all__ = ["check_images", "pixel_digest"]

_BAND = 4_000_000


def check_images(
    samples: Any,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decode every image in full.

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
