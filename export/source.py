"""Describe what an export starts from: a trained model, its signature, its samples."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.quantize.calibration import choose_stratified
from tl_keras import modalities, tasks
from tl_keras.data.folders import from_unlabeled
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, ExportError, ModelError
from tl_keras.modalities.base import InputSpec, Modality
from tl_keras.models.views import average_views
from tl_keras.runs.directory import RunDirectory
from tl_keras.tasks.base import Task
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = [
    "ENOUGH", "MOST_FIGURES", "NONE", "OWN", "Duties", "Part", "Shown", "Signature", "Source",
    "allot", "from_run", "read_signature", "require_originals",
]  # fmt: skip

ENOUGH, MOST_FIGURES = 500, 500
"""Samples that decide well about a point of accuracy, and that show it well enough."""

OWN, NONE = "own", "none"
"""What `Source.originals` says where files of the data set go into a bundle, or nothing of it."""
# Nothing that tells where things lay on the machine that trained.
_FACTS = ("data", "base", "plan", "seed", "metrics", "versions", "thresholds")


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
class Shown:
    """Samples that files are compared on.

    Attributes:
        inputs: by the input's name, (n, ...).
        labels: of the first samples, as `Samples` has them; None where nobody knows any.
        images: which samples they are, in words, with how many: {"test images": 153}.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    images: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Part:
    """Samples that a search may choose by.

    Attributes:
        name: which they are, such as "validation images".
        samples: in order; nothing is read yet.
        labelled: whether their labels tell how good a model is: not where it learned them.
    """

    name: str
    samples: Samples
    labelled: bool


@dataclass(frozen=True, eq=False)
class Source:
    """A trained model and the samples that its artifacts are compared on.

    What is reported comes from `inputs`. What is chosen is chosen by `parts`, and what is
    calibrated from `calibration`, which have no sample in common with each other or with those.

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
        data: the run's samples; what is compressed is trained on those of "train", which has none
            of those compared on. None allows only what needs neither training nor calibration.
        modality: what the samples are.
        facts: what the run's record says, for the bundle's card.
        origin: which samples are compared on, in words, such as "test images".
        parts: what a search chooses by, those with labels first; by default the samples above.
        calibration: what files are calibrated with; by default `data.train`.
        memo: what was made of all this and takes long, by a key of whoever made it; for this source
            alone, and gone with it.
        files: the item of each sample, where they are files or can be written as such.
        originals: which files a bundle carries: "own" some of the samples, "none" nothing of the
            data set, resized samples neither; else a file, or a folder of files.
        resize_in_graph: whether the files take images of any size and resize them themselves.

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
    origin: str = "samples"
    parts: tuple[Part, ...] = ()
    calibration: Samples | None = None
    memo: dict[Hashable, Any] = field(init=False, default_factory=dict, repr=False)
    files: tuple[Any, ...] = ()
    originals: str = OWN
    resize_in_graph: bool = False

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

    @functools.cached_property
    def shown(self) -> Shown:
        """The samples that reported figures come from."""
        return Shown(self.inputs, self.labels, {self.origin: len(self)})

    @functools.cached_property
    def deciding(self) -> Shown:
        """The samples that a search chooses by, read when they are first asked for.

        Raises:
            DataError: if one cannot be read.
        """
        if not self.parts:
            return self.shown
        specs = dict(self.signature.inputs)
        read = [
            one.samples.modality.reader(one.samples, specs).read(range(len(one.samples)), 0)
            for one in self.parts
        ]
        labels = [one.samples.labels for one in self.parts if one.labelled]
        return Shown(
            {name: np.concatenate([one[name] for one in read]) for name in specs},
            np.concatenate(labels) if labels else None,
            {one.name: len(one.samples) for one in self.parts},
        )

    def remember(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` makes, made once for a key."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    @property
    def calibrating(self) -> Samples | None:
        """The samples that files are calibrated with."""
        if self.calibration is not None or self.data is None:
            return self.calibration
        return self.data.train

    def describe_images(self) -> dict[str, dict[str, int]]:
        """Return which samples do what, in words with their number, for the record."""
        noun = f"{self.modality.noun}s"
        chosen = {one.name: len(one.samples) for one in self.parts} or dict(self.shown.images)
        found = {"figures": dict(self.shown.images), "choice": chosen}
        if self.calibrating is not None:
            found["calibration"] = {f"training {noun}": len(self.calibrating)}
        return found


def _describe(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def require_originals(place: str, noun: str) -> None:
    """Refuse files for a bundle that are not there.

    Args:
        place: `OWN`, `NONE`, a file or a folder.
        noun: what one sample is called.

    Raises:
        ExportError: there is no such file or folder.
    """
    if place not in (OWN, NONE) and not os.path.exists(place):
        raise ExportError(
            f"--originals: there is no file or folder '{place}'; expected own, none, or {noun}s to "
            "take instead."
        )


def from_run(
    run: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    samples: int | None = None,
    unlabeled: str | os.PathLike[str] | None = None,
    originals: str = OWN,
    views: tuple[str, ...] = (),
    resize_in_graph: bool = False,
) -> Source:
    """Read a finished run, and give each of its samples one duty, see :func:`allot`.

    Args:
        run: a run directory.
        data: where the run's samples are now, when they moved.
        samples: compare and choose on at most so many each, spread evenly over all; all by
            default.
        unlabeled: a folder of files without labels to choose by, such as those that the device
            will see.
        originals: see `Source`.
        views: what the model averages inside beside the image itself, see
            :mod:`tl_keras.models.views`.
        resize_in_graph: see `Source`.

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
    others = None
    if unlabeled is not None:
        if not os.path.isdir(unlabeled):
            raise DataError(f"{unlabeled} is no folder; expected one of samples without labels.")
        others = from_unlabeled(os.fspath(unlabeled), splits.train.modality)
    require_originals(originals, splits.train.modality.noun)
    duties = allot(splits, others, samples)
    chosen = duties.figures.samples
    start_tensorflow()
    model = average_views(directory.model(), views)
    signature = read_signature(model, chosen.modality, chosen.task)
    reader = chosen.modality.reader(chosen, dict(signature.inputs))
    return Source(
        model=model,
        class_names=tuple(directory.record["classes"]),
        inputs=reader.read(range(len(chosen)), 0),
        keys=chosen.keys,
        task=chosen.task,
        name=Path(run).resolve().name,
        labels=chosen.labels if duties.figures.labelled else None,
        data=duties.data,
        modality=chosen.modality,
        facts={key: directory.record[key] for key in _FACTS if key in directory.record}
        | ({"views": ", ".join(views)} if views else {}),
        origin=duties.figures.name,
        parts=duties.choice,
        calibration=duties.calibration,
        files=() if isinstance(chosen.items[0], np.ndarray) else tuple(chosen.items),
        originals=originals,
        resize_in_graph=resize_in_graph,
    )


@dataclass(frozen=True, eq=False)
class Duties:
    """Which samples of a run do what.

    Attributes:
        figures: what is reported comes from them.
        choice: a search chooses by them, those with labels first.
        calibration: what files are calibrated with.
        data: the run's samples, without those of `figures` in "train".
    """

    figures: Part
    choice: tuple[Part, ...]
    calibration: Samples
    data: Splits


def allot(splits: Splits, unlabeled: Samples | None = None, most: int | None = None) -> Duties:
    """Give each sample of a run one duty.

    Figures come from the test split. Without one, half of validation is kept for them, and without
    both a quarter of training, `MOST_FIGURES` at most; a model has learned those, so that no
    accuracy is taken from them. A search chooses by the rest of validation, by what was given
    without labels, and where those are fewer than `ENOUGH` by half of training at most. What is
    left of training calibrates. The shares are stratified, and the same each time.

    Args:
        splits: the run's samples.
        unlabeled: others, without labels.
        most: how many may be compared and chosen on, each; no limit by default.

    Raises:
        ExportError: if there is no sample.
    """
    noun, data = f"{splits.train.modality.noun}s", splits
    train = _shuffled(splits.train)
    val = _shuffled(splits.val) if splits.val is not None else train.take([])
    test = splits.test
    if test is not None and len(test):
        figures = Part(f"test {noun}", test, True)
    elif len(val):
        half = (len(val) + 1) // 2
        figures = Part(f"validation {noun}", val.take(range(half)), True)
        val = val.take(range(half, len(val)))
    elif len(train):
        held = min(MOST_FIGURES, max(1, len(splits.train) // 4))
        first = len(train) - held
        figures = Part(f"held-back training {noun}", train.take(range(first, len(train))), False)
        train = train.take(range(max(1, first)))
        data = replace(splits, train=train)
    else:
        raise ExportError(f"The run has no {noun} to compare on.")
    choice = [Part(f"validation {noun}", val, True)] if len(val) else []
    if unlabeled is not None and len(unlabeled):
        choice.append(Part(f"unlabeled {noun}", unlabeled, False))
    lacking = ENOUGH - sum(len(one.samples) for one in choice)
    taken = min(lacking, len(splits.train) // 2, len(train) - 1)
    if taken > 0:
        first = len(train) - taken
        choice.append(Part(f"training {noun}", train.take(range(first, len(train))), False))
        train = train.take(range(first))
    if most is not None:
        figures = replace(figures, samples=_spread(figures.samples, most))
        choice = [replace(one, samples=_spread(one.samples, most)) for one in choice]
    return Duties(figures, tuple(choice), train, data)


def _shuffled(samples: Samples) -> Samples:
    """Put samples in an order of which every part is stratified."""
    if not len(samples):
        return samples
    return samples.take(choose_stratified(samples, len(samples)))


def _spread(samples: Samples, count: int) -> Samples:
    count = min(count, len(samples))
    return samples.take(np.linspace(0, len(samples) - 1, count).round().astype(int))
