"""A finished run as the source of an export: its model, its classes, its validation pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from export.errors import ExportError
from export.signature import signature
from export.stage import Source
from tl_keras.data.pipeline import PictureReader
from tl_keras.data.samples import Samples
from tl_keras.quiet import start_tensorflow
from tl_keras.runs import RunDirectory

__all__ = ["from_run"]


def from_run(
    run: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None, samples: int = 200
) -> Source:
    """Read a finished run.

    Args:
        run: a run directory.
        data: where the run's pictures are now, when they moved.
        samples: at most so many validation pictures, spread evenly over all.

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the pictures are not where they were, or cannot be read.
        ExportError: if the model cannot be exported, or there are no pictures.
    """
    if samples < 1:
        raise ExportError(f"Got {samples} pictures to compare on; expected at least 1.")
    directory = RunDirectory(run)
    directory.require_complete()
    chosen = _spread(directory.samples("val", data), samples)
    start_tensorflow()
    model = directory.model()
    return Source(
        model=model,
        class_names=tuple(directory.record["classes"]),
        pictures=PictureReader(chosen, signature(model).size).read(range(len(chosen)), 0),
        keys=chosen.keys,
        task=chosen.task,
        name=Path(run).resolve().name,
    )


def _spread(samples: Samples, count: int) -> Samples:
    if not len(samples):
        raise ExportError("The run has no validation pictures to compare on.")
    count = min(count, len(samples))
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(int))
