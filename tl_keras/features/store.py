"""What a frozen prefix gives, computed once per view and kept.

One file a view: rows of one dtype and shape, in the samples' order. A file grows row by
row under a temporary name and is renamed when whole, so an interrupted write goes on where
it stopped and a reader never sees half of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import StorageError
from tl_keras.utils.limits import name_full_disk

__all__ = ["FeatureFile", "fill"]

IN_MEMORY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FeatureFile:
    """Features of all samples in one view.

    Attributes:
        path: Where the finished file is.
        rows: Samples.
        shape: Of one sample's features.
        dtype: "float32", "float16" or "bfloat16" on disk; always read as float32.
    """

    path: Path
    rows: int
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape)) * _numpy_dtype(self.dtype).itemsize

    @property
    def partial(self) -> Path:
        """Where the file grows until it is whole."""
        return self.path.with_suffix(".part")

    def done(self, step: int = 1) -> int:
        """Return how many rows are safely there, in whole multiples of `step`."""
        if self.path.exists():
            return self.rows
        written = self.partial.stat().st_size // self.row_bytes if self.partial.exists() else 0
        # Whole but not renamed is not done: the last batch is computed once more.
        return min(written, self.rows - 1) // step * step

    def open(self) -> Any:
        """Return the rows as an array (rows, *shape): in memory when small, else mapped."""
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


def fill(
    files: Sequence[FeatureFile],
    compute: Callable[[np.ndarray], Sequence[np.ndarray]],
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write what is missing of some files that one computation fills together.

    Args:
        files: One for each output of `compute`, all with the same rows.
        compute: From int64 indices (n,) to one array (n, *shape) for each file.
        batch_size: Rows a computation. The borders of the batches never move, so a fill that
            was interrupted gives the same bits as one that was not.
        progress: Called with the rows done and all rows.

    Returns:
        How many rows were computed; 0 when all was there.

    Raises:
        StorageError: The disk is full, or a feature is too large for the files' dtype.
    """
    rows = files[0].rows
    start = min(file.done(batch_size) for file in files)
    if start == rows:
        return 0
    with name_full_disk(files[0].path.parent), contextlib.ExitStack() as stack:
        handles = [stack.enter_context(_reopened(file, start)) for file in files]
        for first in range(start, rows, batch_size):
            indices = np.arange(first, min(first + batch_size, rows))
            for file, handle, values in zip(files, handles, compute(indices), strict=True):
                handle.write(_narrowed(np.ascontiguousarray(values), file.dtype).tobytes())
                handle.flush()
            progress(int(indices[-1]) + 1, rows)
    for file in files:
        file.partial.replace(file.path)
    return rows - start


@contextlib.contextmanager
def _reopened(file: FeatureFile, rows: int) -> Iterator[Any]:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    if file.path.exists():
        file.path.replace(file.partial)
    with open(file.partial, "ab") as handle:
        handle.truncate(rows * file.row_bytes)
        yield handle
