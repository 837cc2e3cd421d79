"""Every picture is decoded once before training, in parallel; what is wrong is told at once.

Threads do the work: Pillow and hashlib release the interpreter's lock while they decode and
hash. Only a short window of pictures is in flight, so memory stays flat.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from tl_keras.data.samples import Samples
from tl_keras.errors import DataError
from tl_keras.modalities.image import decode

__all__ = ["BadPicture", "CheckReport", "check_pictures", "fingerprint", "pixel_digest"]

_SHOWN = 20
_CHUNK = 8
_BAND = 4_000_000


@dataclass(frozen=True)
class BadPicture:
    """A picture that cannot be used: its path, why, and its index among the samples."""

    path: str
    reason: str
    index: int = -1


@dataclass(frozen=True)
class CheckReport:
    """What the check found.

    Attributes:
        bad: the pictures that cannot be used, in the samples' order.
        digests: for each sample a hash of its decoded pixels, "" for a bad one.
        root: where the samples came from.
    """

    bad: tuple[BadPicture, ...]
    digests: tuple[str, ...]
    root: str = ""

    @property
    def good(self) -> tuple[int, ...]:
        """Indices of the samples that can be used."""
        return tuple(i for i, digest in enumerate(self.digests) if digest)

    def error(self) -> DataError:
        """Build the error that lists what is bad (the first 20, and how many there are)."""
        lines = [f"  {picture.path}: {picture.reason}" for picture in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"  ... and {len(self.bad) - _SHOWN} more")
        return DataError(
            f"{len(self.bad)} of {len(self.digests)} pictures in {self.root or 'the data'} "
            "cannot be used:\n" + "\n".join(lines) + "\nReplace or remove them, or go on "
            "without them (--skip-bad)."
        )


def check_pictures(
    samples: Samples,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decode every picture in full.

    Args:
        samples: what to check.
        workers: threads; as many as there are cores by default.
        progress: called now and then, in this thread, with (done, total).

    Returns:
        The report; nothing is raised for a bad picture.
    """
    total = len(samples)
    digests: list[str] = []
    bad: list[BadPicture] = []
    for chunk in _in_order(samples, workers or os.cpu_count() or 1):
        for digest, picture in chunk:
            digests.append(digest)
            if picture is not None:
                bad.append(picture)
        if progress is not None:
            progress(len(digests), total)
    return CheckReport(tuple(bad), tuple(digests), samples.root)


def pixel_digest(image: Image.Image) -> str:
    """Hash a picture's size and pixels (blake2b, 128 bits, hexadecimal)."""
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    # Band by band, so that a huge picture is not held twice.
    band = max(1, _BAND // max(1, image.width))
    for top in range(0, image.height, band):
        bottom = min(top + band, image.height)
        part = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        digest.update(part.tobytes())
    return digest.hexdigest()


def fingerprint(samples: Samples, digests: Sequence[str]) -> str:
    """Hash a data set: SHA-256 of its (key, label, pixel digest) rows, in sorted order.

    It changes with any picture, label or name, and not with the order of the files.
    """
    rows = zip(samples.keys, samples.labels.tolist(), digests, strict=True)
    names = "\x1f".join((samples.task, *samples.class_names))
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape"))
    for row in sorted("\x1f".join((key, repr(label), pixels)) for key, label, pixels in rows):
        digest.update(b"\x1e" + row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


_Result = tuple[str, "BadPicture | None"]


def _in_order(samples: Samples, workers: int) -> Iterator[list[_Result]]:
    starts = range(0, len(samples), _CHUNK)
    waiting: deque[Future[list[_Result]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="check")
    try:
        for start in starts:
            waiting.append(pool.submit(_check_chunk, samples, start))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # On Ctrl-C nobody waits for the pictures that have not begun.
        pool.shutdown(wait=True, cancel_futures=True)


def _check_chunk(samples: Samples, start: int) -> list[_Result]:
    stop = min(start + _CHUNK, len(samples))
    return [_check(samples, index) for index in range(start, stop)]


def _check(samples: Samples, index: int) -> _Result:
    try:
        return pixel_digest(samples.decoder(samples.items[index])), None
    except decode.PictureError as error:
        return "", BadPicture(error.path, error.reason, index)
    except DataError as error:
        return "", BadPicture(samples.keys[index], str(error), index)
