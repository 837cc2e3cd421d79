"""Run a model over samples: the one loop that does, in memory or onto disk, resumable in ranges.

Samples have an order, and batches have fixed borders in it: multiples of the batch size. A range
of rows is computed in the batches that the whole would have, so that what a row gives depends on
the samples, the view and the backend alone, whoever computes it and wherever a range begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.features.backends import Engine, Predict, choose_engine, prefix_function
from tl_keras.features.store import FeatureFile, appended
from tl_keras.modalities.base import InputSpec, Reader

if TYPE_CHECKING:
    import keras

__all__ = [
    "BATCH", "Arrays", "collect", "fill", "open_backend", "predict", "read_ahead", "run_rows",
]  # fmt: skip

BATCH = 32
Told = Callable[[int, int], None]


class Arrays:
    """Samples that are in memory already, as a model takes them.

    Args:
        inputs: One array (n, ...) for each input.
    """

    varied = False

    def __init__(self, inputs: Mapping[str, np.ndarray]) -> None:
        self.samples = self.inputs = dict(inputs)
        self.specs = {
            name: InputSpec(array.shape[1:], str(array.dtype), "as they are")
            for name, array in self.inputs.items()
        }

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.inputs.values())))

    def read(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> dict[str, np.ndarray]:
        """Return the samples of these indices."""
        return {name: array[np.asarray(indices)] for name, array in self.inputs.items()}


def read_ahead(
    reader: Reader, parts: Iterable[np.ndarray], view: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of samples; while one is used, the next is read.

    Args:
        reader: Reads them.
        parts: Indices int64 (n,) of each batch.
        view: In which augmented view; 0 is the plain sample.

    Raises:
        DataError: A sample cannot be read.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="tl_keras-ahead") as pool:
        waiting = None
        for part in parts:
            coming = pool.submit(reader.read, part, view)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def run_rows(
    predict: Predict,
    reader: Reader,
    rows: range | None = None,
    view: int = 0,
    batch_size: int = BATCH,
) -> Iterator[list[np.ndarray]]:
    """Yield what a model gives for a range of samples, batch after batch.

    Args:
        predict: From `tl_keras.features.backends`.
        reader: Reads the samples as the model sees them.
        rows: Which, without gaps; None is all of them. Whatever the range, each row is computed
            in the same batch, so that its bits are the same.
        view: In which augmented view.
        batch_size: Samples a batch.

    Raises:
        DataError: A sample cannot be read.
    """
    total = len(reader)
    rows = range(total) if rows is None else rows
    starts = range(rows.start // batch_size * batch_size, rows.stop, batch_size) if rows else ()
    parts = [np.arange(first, min(first + batch_size, total)) for first in starts]
    for part, batch in zip(parts, read_ahead(reader, parts, view), strict=True):
        first = int(part[0])
        wanted = slice(max(rows.start - first, 0), rows.stop - first)
        yield [np.asarray(one)[wanted] for one in predict(batch)]


def collect(
    predict: Predict,
    reader: Reader,
    *,
    rows: range | None = None,
    view: int = 0,
    batch_size: int = BATCH,
    progress: Told | None = None,
) -> list[np.ndarray]:
    """Return what a model gives for samples: one array (rows, ...) for each of its outputs.

    Of no samples the list is empty: nothing tells their shapes.

    Args:
        predict: See :func:`run_rows`, as the other arguments.
        reader: See :func:`run_rows`.
        rows: See :func:`run_rows`.
        view: See :func:`run_rows`.
        batch_size: See :func:`run_rows`.
        progress: Called with the rows done and all rows.
    """
    count, done = len(reader) if rows is None else len(rows), 0
    found: list[np.ndarray] = []
    for batch in run_rows(predict, reader, rows, view, batch_size):
        if not found:
            found = [np.empty((count, *one.shape[1:]), one.dtype) for one in batch]
        first, done = done, done + len(batch[0])
        for whole, part in zip(found, batch, strict=True):
            whole[first:done] = part
        if progress:
            progress(done, count)
    return found


def fill(
    files: Sequence[FeatureFile],
    predict: Predict,
    reader: Reader,
    *,
    view: int = 0,
    batch_size: int = BATCH,
    progress: Told | None = None,
) -> int:
    """Write what is missing of some files that one run over samples fills together.

    Args:
        files: One for each output of the model, all of the same range of rows.
        predict: See :func:`run_rows`.
        reader: See :func:`run_rows`.
        view: See :func:`run_rows`.
        batch_size: See :func:`run_rows`.
        progress: Called with the rows done and all rows.

    Returns:
        How many rows were computed; 0 when all was there.

    Raises:
        DataError: A sample cannot be read.
        StorageError: The disk is full, or a feature is too large for the files' dtype.
    """
    there, rows = min(file.done() for file in files), files[0].rows
    if there == rows:
        return 0
    first, done = files[0].first, there
    with appended(files, there) as write:
        wanted = range(first + there, first + rows)
        for batch in run_rows(predict, reader, wanted, view, batch_size):
            write(batch)
            done += len(batch[0])
            if progress:
                progress(done, rows)
    return rows - there


def open_backend(
    model: keras.Model, reader: Reader, precision: str = "auto", rows: int | None = None
) -> tuple[Engine, Predict]:
    """Return what runs a model, chosen by name or by measuring.

    Args:
        model: A functional model; it is run in inference mode.
        reader: Reads samples to measure with.
        precision: "auto" or one of `tl_keras.features.backends.ENGINES`. What "auto" chooses
            depends on the machine: a run that goes on elsewhere must be told the name.
        rows: Samples that are going to be run, all of the reader's by default.

    Raises:
        PlanError: The precision is unknown.
    """
    if precision != "auto":
        return Engine(precision, f"{precision}: as asked for"), prefix_function(model, precision)
    sample = reader.read(range(min(BATCH, len(reader))))
    return choose_engine(model, sample, len(reader) if rows is None else rows)


def predict(
    model: keras.Model,
    samples: Samples,
    *,
    rows: range | None = None,
    batch_size: int = BATCH,
    precision: str = "float32",
    progress: Told | None = None,
) -> np.ndarray:
    """Return a model's first output for samples, in their order.

    Args:
        model: Takes what the samples' modality reads.
        samples: What to predict; labels are not looked at.
        rows: A part of them, as a range; all by default.
        batch_size: Samples a batch.
        precision: What computes it, see :func:`open_backend`.
        progress: Called with what is done and of how much.

    Returns:
        float32 (n, outputs): probabilities for "classes" and "tags", numbers for "values".

    Raises:
        DataError: A sample cannot be read.
        ModelError: The model takes something else.
    """
    reader = samples.reader(model)
    if not len(range(len(samples)) if rows is None else rows):
        return np.zeros((0, *model.outputs[0].shape[1:]), np.float32)
    run = open_backend(model, reader, precision)[1]
    return collect(run, reader, rows=rows, batch_size=batch_size, progress=progress)[0]
