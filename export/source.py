"""Describe what an export starts from: a trained model, its signature, its samples."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import modalities, tasks
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError, ModelError
from tl_keras.modalities.base import InputSpec, Modality
from tl_keras.runs.directory import RunDirectory
from tl_keras.tasks.base import Task
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["Signature", "Source", "from_run", "read_signature"]

# Nothing that tells where things lay on the machine that trained.
_FACTS = ("data", "base", "plan", "seed", "metrics", "versions")


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out.

    Attributes:
        inputs: by name, what one sample is for each input, in the model's order.
        outputs: numbers that come out for one sample.
        output: the name of what comes out.
    """

    inputs: Mapping[str, InputSpec]
    outputs: int
    output: str

    @property
    def in_bytes(self) -> frozenset[str]:
        """Names of the inputs whose values are whole numbers 0..255."""
        return frozenset(name for name, spec in self.inputs.items() if spec.dtype == "uint8")


def read_signature(
    model: keras.Model, modality: Modality | None = None, task: str = "classes"
) -> Signature:
    """Read what a model takes and gives.

    Args:
        model: functional.
        modality: says what its inputs are; by default an image where there is one input of rank 3,
            else plain numbers under the names of the inputs.
        task: says what its output is called.

    Raises:
        ExportError: if it has several outputs, an open dimension besides the batch, an output that
            is not one row of numbers a sample, or takes what is not of the modality.
    """
    if len(model.outputs) != 1:
        raise ExportError(f"The model has {len(model.outputs)} outputs; expected one.")
    taken = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    given = tuple(model.outputs[0].shape[1:])
    if None in given or any(None in shape for shape in taken):
        raise ExportError(
            f"The model takes {', '.join(map(str, taken))} and gives {given}, open sizes included; "
            "build it for one size, such as 224, to export it."
        )
    if len(given) != 1:
        raise ExportError(f"The model gives {given} for one sample; expected one row of numbers.")
    if modality is None and [len(shape) for shape in taken] == [3]:
        specs = {"image": InputSpec(taken[0], "uint8", "RGB, 0..255, no scaling")}
    else:
        try:
            specs = (modality or Modality()).specs(model)
        except ModelError as error:
            raise ExportError(str(error)) from error
    return Signature(specs, int(given[0]), tasks.get(task).output_name)


@dataclass(frozen=True, eq=False)
class Source:
    """A trained model and the samples that its artifacts are compared on.

    Attributes:
        model: functional, with one output (n, outputs).
        class_names: one per output, in output order.
        inputs: by the input's name, what the samples are, (n, ...) as `signature` has them; at
            least one sample.
        keys: one name per sample.
        task: name of a task.
        name: what to call it.
        labels: of the samples, as `Samples` has them; None where nobody knows them: what is
            made is then judged by whether it agrees with Keras.
        data: the run's samples; what is quantized is calibrated (and, if need be, trained) on
            those of "train". None allows only what needs neither.
        modality: what the samples are.
        facts: what the run's record says, for the bundle's card.

    Raises:
        ExportError: if names, outputs, labels and samples do not belong together.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    inputs: Mapping[str, np.ndarray]
    keys: tuple[str, ...]
    task: str = "classes"
    name: str = "model"
    labels: np.ndarray | None = None
    data: Splits | None = None
    modality: Modality = field(default_factory=lambda: modalities.get("image"))
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        spec, count = self.signature, len(self.keys)
        if len(self.class_names) != spec.outputs:
            raise ExportError(
                f"The model has {spec.outputs} outputs and {len(self.class_names)} class names; "
                "expected one name per output."
            )
        found = {name: array.shape for name, array in self.inputs.items()}
        expected = {name: (count, *one.shape) for name, one in spec.inputs.items()}
        if found != expected:
            raise ExportError(
                f"Got {_describe(found)} and {count} keys; expected {_describe(expected)}, and a "
                "key for each sample."
            )
        if not count:
            raise ExportError("There is no sample to compare on; expected at least one.")
        if self.labels is not None and len(self.labels) != count:
            raise ExportError(
                f"Got {len(self.labels)} labels for {count} samples; expected one label per "
                "sample, or none at all."
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    @functools.cached_property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return read_signature(self.model, self.modality, self.task)

    @property
    def kind(self) -> Task:
        """The task itself."""
        return tasks.get(self.task)


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def from_run(
    run: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    samples: int | None = None,
) -> Source:
    """Read a finished run.

    Args:
        run: a run directory.
        data: where the run's samples are now, when they moved.
        samples: at most so many of validation, spread evenly over all; all by default.

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the samples are not where they were, or cannot be read.
        ExportError: if the model cannot be exported, or there are no samples.
    """
    if samples is not None and samples < 1:
        raise ExportError(f"Got {samples} samples to compare on; expected at least 1.")
    directory = RunDirectory(run)
    directory.require_complete()
    splits = directory.splits(data)
    chosen = _spread(splits.val, samples)
    start_tensorflow()
    model = directory.model()
    signature = read_signature(model, chosen.modality, chosen.task)
    reader = chosen.modality.reader(chosen, dict(signature.inputs))
    return Source(
        model=model,
        class_names=tuple(directory.record["classes"]),
        inputs=reader.read(range(len(chosen)), 0),
        keys=chosen.keys,
        task=chosen.task,
        name=Path(run).resolve().name,
        labels=chosen.labels,
        data=splits,
        modality=chosen.modality,
        facts={key: directory.record[key] for key in _FACTS if key in directory.record},
    )


def _spread(samples: Samples, count: int | None) -> Samples:
    if not len(samples):
        raise ExportError(f"The run has no validation {samples.modality.noun}s to compare on.")
    count = min(count or len(samples), len(samples))
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(int))
