"""Describe what an export starts from: a trained model, its signature, its images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError
from tl_keras.modalities.image.reader import ImageReader
from tl_keras.runs.directory import RunDirectory
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["INPUT", "OUTPUT", "Signature", "Source", "from_run", "signature"]

INPUT = "image"
OUTPUT = "probabilities"

# Nothing that tells where things lay on the machine that trained.
_FACTS = ("data", "base", "plan", "seed", "metrics", "versions")


@dataclass(frozen=True)
class Signature:
    """One input, one output.

    Attributes:
        shape: of one picture, (height, width, 3); float32, RGB, values 0..255.
        outputs: numbers that come out for one picture.
    """

    shape: tuple[int, ...]
    outputs: int

    @property
    def size(self) -> int:
        """Side of the square picture in pixels.

        Raises:
            ExportError: if the input is no square picture.
        """
        if len(self.shape) != 3 or self.shape[0] != self.shape[1]:
            raise ExportError(f"The model takes {self.shape}; expected a square, (size, size, 3).")
        return self.shape[0]


def signature(model: keras.Model) -> Signature:
    """Read the shapes of a model.

    Raises:
        ExportError: if it has several inputs or outputs, an open dimension besides the batch,
            or an output that is not one row of numbers a picture.
    """
    inputs, outputs = model.inputs, model.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(
            f"The model has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each."
        )
    taken, given = tuple(inputs[0].shape[1:]), tuple(outputs[0].shape[1:])
    if None in taken or None in given:
        raise ExportError(
            f"The model takes {taken} and gives {given}, open sizes included; "
            "build it for one size, such as 224, to export it."
        )
    if len(given) != 1:
        raise ExportError(f"The model gives {given} for one picture; expected one row of numbers.")
    return Signature(taken, int(given[0]))


@dataclass(frozen=True, eq=False)
class Source:
    """A trained model and the pictures that its artifacts are compared on.

    Attributes:
        model: takes float32 (n, size, size, 3), RGB 0..255; gives (n, outputs).
        class_names: one per output, in output order.
        pictures: uint8 or float (n, size, size, 3), RGB 0..255; at least one.
        keys: one name per picture.
        task: "classes", "tags" or "values".
        name: what to call it.
        labels: of the pictures, as `Samples` has them; None where nobody knows them: what is
            made is then judged by whether it agrees with Keras.
        data: the run's samples; what is quantized is calibrated (and, if need be, trained) on
            those of "train". None allows only what needs neither.
        facts: what the run's record says, for the bundle's card.

    Raises:
        ExportError: if names, outputs, labels and pictures do not belong together.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    pictures: np.ndarray
    keys: tuple[str, ...]
    task: str = "classes"
    name: str = "model"
    labels: np.ndarray | None = None
    data: Splits | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        spec = signature(self.model)
        if len(self.class_names) != spec.outputs:
            raise ExportError(
                f"The model has {spec.outputs} outputs and {len(self.class_names)} class names; "
                "expected one name per output."
            )
        if self.pictures.shape[1:] != spec.shape or len(self.pictures) != len(self.keys):
            raise ExportError(
                f"Got pictures of shape {self.pictures.shape} and {len(self.keys)} keys; "
                f"expected {spec.shape} for each picture, and a key."
            )
        if not len(self.pictures):
            raise ExportError("There is no picture to compare on; expected at least one.")
        if self.labels is not None and len(self.labels) != len(self.pictures):
            raise ExportError(
                f"Got {len(self.labels)} labels for {len(self.pictures)} pictures; "
                "expected one label per picture, or none at all."
            )


def from_run(
    run: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    samples: int | None = None,
) -> Source:
    """Read a finished run.

    Args:
        run: a run directory.
        data: where the run's pictures are now, when they moved.
        samples: at most so many validation pictures, spread evenly over all; all by default.

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the pictures are not where they were, or cannot be read.
        ExportError: if the model cannot be exported, or there are no pictures.
    """
    if samples is not None and samples < 1:
        raise ExportError(f"Got {samples} pictures to compare on; expected at least 1.")
    directory = RunDirectory(run)
    directory.require_complete()
    splits = directory.splits(data)
    chosen = _spread(splits.val, samples)
    start_tensorflow()
    model = directory.model()
    return Source(
        model=model,
        class_names=tuple(directory.record["classes"]),
        pictures=ImageReader(chosen, signature(model).size).images(range(len(chosen)), 0),
        keys=chosen.keys,
        task=chosen.task,
        name=Path(run).resolve().name,
        labels=chosen.labels,
        data=splits,
        facts={key: directory.record[key] for key in _FACTS if key in directory.record},
    )


def _spread(samples: Samples, count: int | None) -> Samples:
    if not len(samples):
        raise ExportError("The run has no validation pictures to compare on.")
    count = min(count or len(samples), len(samples))
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(int))
