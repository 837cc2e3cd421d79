"""Names what a machine cannot give: memory, and room on its disk."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tl_keras.errors import RunError, StorageError

__all__ = ["name_full_disk", "name_small_memory", "ran_out_of_memory"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = (
    "failed to allocate memory", "bad allocation", "bad_alloc", "oom when allocating",
    "failed to map segment", "cannot allocate memory",
)  # fmt: skip


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy, TensorFlow or ONNX Runtime is about memory."""
    if isinstance(error, MemoryError):
        return True
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(error, tensorflow.errors.ResourceExhaustedError):
        return "no space left" not in str(error).lower()
    return any(word in str(error).lower() for word in _WORDS)


@contextlib.contextmanager
def name_small_memory() -> Iterator[None]:
    """Turn an error about memory into a message that says what to do.

    Raises:
        RunError: The memory is too small.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RunError) or not ran_out_of_memory(error):
            raise
        raise RunError(
            "the memory is too small for this; try a smaller --size or --batch-size, or end other "
            "programs"
        ) from error


@contextlib.contextmanager
def name_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a message that says what to do.

    Args:
        folder: On the disk, where the error names no file.

    Raises:
        StorageError: The disk is full.
    """
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in _FULL or "no space left" in str(error).lower()
        if isinstance(error, StorageError) or not full:
            raise
        place = next((p for p in (_place(error), folder) if p and p.exists()), Path("/"))
        free = shutil.disk_usage(place).free / 2**20
        raise StorageError(
            f"the disk is full: {free:.0f} MB are left at {place.absolute()}; free some space and "
            "resume the run or repeat the command (fewer views, a smaller size or "
            "cache_dtype=float16 need less)"
        ) from error


def _place(error: Exception) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(name).parent if isinstance(name, str) else None
