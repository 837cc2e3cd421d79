"""Keep features on disk, one file a view: rows of one dtype and shape, in the samples' order.

A file grows row by row under a temporary name and is renamed when whole, so an interrupted
write goes on where it stopped and a reader never sees half of it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import StorageError
from tl_keras.utils.limits import name_full_disk

__all__ = ["FeatureFile", "appended", "require_room"]

IN_MEMORY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FeatureFile:
    """Features of samples in one view.

    Attributes:
        path: Where the finished file is.
        rows: Samples.
        shape: Of one sample's features.
        dtype: "float32", "float16" or "bfloat16" on disk; always read as float32.
        first: Which sample is the first row, where the file holds a part of them.
    """

    path: Path
    rows: int
    shape: tuple[int, ...]
    dtype: str = "float32"
    first: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape)) * _numpy_dtype(self.dtype).itemsize

    @property
    def partial(self) -> Path:
        """Where the file grows until it is whole."""
        return self.path.with_suffix(".part")

    def done(self) -> int:
        """Return how many rows are safely there."""
        if self.path.exists():
            return self.rows
        written = self.partial.stat().st_size // self.row_bytes if self.partial.exists() else 0
        # Whole but not renamed is not done: the last row is computed once more.
        return max(0, min(written, self.rows - 1))

    def open(self) -> Any:
        """Return the rows as an array (rows, *shape): in memory when small, else mapped."""
        if not self.rows:
            return np.zeros((0, *self.shape), np.float32)
        kept: np.ndarray = np.memmap(
            self.path, dtype=_numpy_dtype(self.dtype), mode="r", shape=(self.rows, *self.shape)
        )
        return np.array(kept) if kept.nbytes <= IN_MEMORY_BYTES else kept


def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _narrowed(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        kept: np.ndarray = values.astype(_numpy_dtype(dtype))
    if dtype == "float16" and np.isinf(kept).any() and not np.isinf(values).any():
        raise StorageError(
            f"a feature is {np.abs(values).max():.6g}, and float16 ends at 65504; set "
            "cache_dtype=bfloat16 (as small) or float32"
        )
    return kept


@contextlib.contextmanager
def appended(
    files: Sequence[FeatureFile], rows: int
) -> Iterator[Callable[[Sequence[np.ndarray]], None]]:
    """Open files to write what comes after some rows, and give them their names when whole.

    Args:
        files: All with the same rows.
        rows: How many to keep of what is there.

    Yields:
        What takes one array (n, *shape) for each file and writes it.

    Raises:
        StorageError: The disk is full, or a feature is too large for the files' dtype.
    """
    with name_full_disk(files[0].path.parent), contextlib.ExitStack() as stack:
        handles = [stack.enter_context(_reopened(file, rows)) for file in files]

        def write(batch: Sequence[np.ndarray]) -> None:
            for file, handle, values in zip(files, handles, batch, strict=True):
                handle.write(_narrowed(np.ascontiguousarray(values), file.dtype).tobytes())
                handle.flush()

        yield write
    for file in files:
        file.partial.replace(file.path)


@contextlib.contextmanager
def _reopened(file: FeatureFile, rows: int) -> Iterator[Any]:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    if file.path.exists():
        file.path.replace(file.partial)
    with open(file.partial, "ab") as handle:
        handle.truncate(rows * file.row_bytes)
        yield handle


def require_room(folder: Path, missing: int, what: str, way_out: str) -> None:
    """Check that a disk has room.

    Args:
        folder: Where to write; it is made.
        missing: Bytes to write.
        what: They are, for the message ("the features at 'x' take").
        way_out: What needs less.

    Raises:
        StorageError: It has not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise StorageError(
            f"{what} {missing / 1e9:.2f} GB more and {free / 1e9:.2f} GB are free at {folder}; "
            f"free some space, or use {way_out}"
        )
