"""A finished run as the source of an export: its model, its classes, its validation pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import ExportError
from export.signature import signature
from export.stage import Source
from tl_keras.errors import RunError

if TYPE_CHECKING:
    import keras

    from tl_keras.data.samples import Samples

__all__ = ["from_run", "read_record"]


def read_record(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `run.json` of a finished run.

    Raises:
        RunError: if there is none, it cannot be read, or the run is not complete.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise RunError(f"There is no run directory {folder}; expected what `tl-keras fit` writes.")
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} has no run.json; expected a run directory as `tl-keras fit` writes it."
        ) from error
    except ValueError as error:
        raise RunError(f"{folder / 'run.json'} is damaged: {error}.") from error
    if not isinstance(record, dict) or record.get("state") != "complete":
        raise RunError(f"{folder} is not complete; finish it with: tl-keras resume {folder}")
    return record


def from_run(
    run: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None, samples: int = 200
) -> Source:
    """Read a finished run.

    Args:
        run: a run directory.
        data: where to take pictures from (a folder, a CSV file or a built-in name), of which
            the validation split where it has one; by default the validation pictures that the
            run was trained beside.
        samples: at most so many pictures, spread evenly over all.

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the pictures cannot be read.
        ExportError: if the model cannot be loaded or there are no pictures.
    """
    if samples < 1:
        raise ExportError(f"Got {samples} pictures to compare on; expected at least 1.")
    record, folder = read_record(run), Path(run)
    task = record.get("data", {}).get("task", "classes")
    chosen = _spread(_samples_of(folder, data, task), samples)
    model = _model(folder)
    return Source(
        model=model,
        class_names=tuple(record["classes"]),
        pictures=_pictures(chosen, signature(model).size),
        keys=chosen.keys,
        task=task,
        name=folder.resolve().name,
    )


def _model(folder: Path) -> keras.Model:
    from export.runtimes import KerasRuntime

    path = folder / "model.keras"
    if not path.is_file():
        raise RunError(f"{folder} has no model.keras; expected what `tl-keras fit` writes.")
    return KerasRuntime(path).model


def _samples_of(folder: Path, data: str | os.PathLike[str] | None, task: str) -> Samples:
    if data is None:
        from tl_keras.runs import RunDirectory

        return RunDirectory(folder).samples("val")
    from tl_keras.data.sources import load_samples

    samples = load_samples(data, task=task)
    validation = samples.where("val")
    return validation if len(validation) else samples


def _spread(samples: Samples, count: int) -> Samples:
    if not len(samples):
        raise ExportError("There is no picture to compare on; name a folder with --data.")
    count = min(count, len(samples))
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(int))


def _pictures(samples: Samples, size: int) -> np.ndarray:
    from tl_keras.data.pipeline import PictureReader

    return PictureReader(samples, size).read(range(len(samples)), 0)
