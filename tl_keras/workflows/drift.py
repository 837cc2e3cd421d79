"""A run against other images: what the model makes of both, compared, drawn and reported."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.drift import FeatureSet, Shift, find_drift
from tl_keras.analysis.drift_tests import FEWEST
from tl_keras.data.folders import from_unlabeled, listed
from tl_keras.data.samples import Samples
from tl_keras.data.sources import load_samples
from tl_keras.errors import DataError
from tl_keras.features.backends import Batch
from tl_keras.features.extract import collect, open_backend
from tl_keras.modalities.image.corruptions import corrupted, parse_corruption
from tl_keras.models import graph
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import usable
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["DriftReport", "Others", "describe_pictures", "held_out", "find_others",
           "report_drift"]  # fmt: skip

_MOST_TRAINING = 1000


@dataclass(frozen=True, eq=False)
class Others:
    """Other images, and what is known of them.

    Attributes:
        samples: The images; labels are the run's classes where `labelled`.
        labelled: Whether the labels can be compared with the run's answers.
        note: Why not, for the reader.
    """

    samples: Samples
    labelled: bool
    note: str = ""


@dataclass(frozen=True, eq=False)
class DriftReport:
    """A comparison and where it was written.

    Attributes:
        title: Which run and which images.
        shift: What was found.
        others: The new images.
        notes: Sentences for the reader.
        page: The report, drift.json and the images beside it.
    """

    title: str
    shift: Shift
    others: Others
    notes: list[str]
    page: Path

    def write(self, remedy: dict[str, Any] | None = None) -> None:
        """Write the report, with what a remedy gave (see `tl_keras.workflows.adapt`).

        Raises:
            StorageError: It cannot be written.
        """
        from tl_keras.reports.drift_report import write_drift_report

        shift, samples = self.shift, self.others.samples
        facts = {**shift.facts, "notes": self.notes, "noun": samples.modality.noun}
        if remedy:
            facts["remedy"] = remedy
        evidence = {
            "null": shift.mmd.null, "points": shift.points, "novelty": shift.novelty,
            "confidence": shift.confidence,
        }  # fmt: skip
        write_drift_report(
            self.page.parent, self.title, facts, evidence, samples.keys,
            lambda index: samples.modality.thumbnail(samples.items[index]),
        )  # fmt: skip


@guard()
def report_drift(
    path: Path,
    data: str | None,
    *,
    corruption: str = "",
    out: Path | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Progress = silent,
) -> DriftReport:
    """Compare other images with those a run knows, and write a report.

    Args:
        path: A complete run.
        data: Other images: class folders, a folder of images, a CSV file or a built-in
            name; None with a corruption.
        corruption: Compare one half of the run's held-out images with the other half,
            corrupted so ("blur:3"), in place of other images.
        out: The folder to write; `drift` in the run's by default. An older report of a shift
            that is there is replaced, anything else is left alone.
        seed: Makes everything that is drawn repeatable.
        skip_bad: Go on without other images that cannot be read.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        RunError: The run is not complete, or `out` holds something else.
        DataError: The images are too few, or neither or both of data and corruption are given.
    """
    run = RunDirectory(path)
    run.require_complete()
    if (data is None) == (not corruption):
        raise DataError("expected either other pictures or --corrupt, such as --corrupt blur:3")
    folder = out or run.path / "drift"
    if not (folder / "drift.json").exists():
        refuse_existing(folder, data, run.fact("data", "root"))
    held = held_out(run)
    if corruption:
        held, others = _halves(held, corruption, seed)
    else:
        others = find_others(run, str(data), skip_bad, progress)
    _require_enough(others.samples, held)
    start_tensorflow()
    shift = _found(run, held, others, seed, progress)
    notes = [note for note in (others.note, _reading(run)) if note]
    title = f"{run.path.name} and {data or corruption}"
    report = DriftReport(title, shift, others, notes, folder / "report.html")
    report.write()
    return report


def find_others(
    run: RunDirectory, data: str, skip_bad: bool = False, progress: Progress = silent
) -> Others:
    """Return other images, with labels where their classes are the run's.

    A folder without class folders is taken as images that nobody labelled.

    Raises:
        DataError: There is nothing there.
    """
    others = _found_others(run, data)
    return dataclasses.replace(others, samples=usable(others.samples, skip_bad, progress))


def _found_others(run: RunDirectory, data: str) -> Others:
    task, modality = run.fact("data", "task"), run.modality
    try:
        samples = load_samples(data, task=task, modality=modality)
    except DataError as error:
        if not Path(data).is_dir():
            raise
        found = from_unlabeled(data, modality)
        return Others(found, False, f"No true accuracy: {error}")
    known, unknown = run.fact("classes"), ""
    if not samples.kind.single_label:
        return Others(samples, False)
    if new := [name for name in samples.class_names if name not in known]:
        unknown = f"No true accuracy: {data} has classes that the run does not know, {listed(new)}."
        return Others(samples, False, unknown)
    places = np.array([known.index(name) for name in samples.class_names])
    labels = places[samples.labels]
    return Others(dataclasses.replace(samples, labels=labels, class_names=tuple(known)), True)


def held_out(run: RunDirectory) -> Samples:
    """Return the run's validation and test images, which it was not trained on.

    Of a run that has none of them, its training images.
    """
    splits = run.splits()
    if not has_held_out(run):
        return splits.train
    return splits.val if splits.test is None else _joined(splits.val, splits.test)


def has_held_out(run: RunDirectory) -> bool:
    """Return whether there are images of a run that it was not trained on."""
    pictures = run.fact("data").get("pictures", {})
    return bool(pictures.get("val") or pictures.get("test"))


def _joined(first: Samples, second: Samples) -> Samples:
    arrays = isinstance(first.items, np.ndarray)
    items: Any = (
        np.concatenate([first.items, second.items]) if arrays else [*first.items, *second.items]
    )
    labels = np.concatenate([first.labels, second.labels])
    keys = first.keys + second.keys
    return dataclasses.replace(first, items=items, labels=labels, keys=keys, splits=None)


def _halves(held: Samples, corruption: str, seed: int) -> tuple[Samples, Others]:
    kind, severity = parse_corruption(corruption)
    order = np.random.default_rng(seed).permutation(len(held))
    if held.kind.single_label:
        order = order[np.argsort(held.labels[order], kind="stable")]
    changed = corrupted(held.take(order[1::2]), kind, severity)
    return held.take(order[::2]), Others(changed, held.kind.single_label)


def _require_enough(others: Samples, held: Samples) -> None:
    if len(others) < FEWEST:
        where = others.root or "the other pictures"
        raise DataError(
            f"{where} holds {len(others)} pictures; a shift needs at least {FEWEST} to be told "
            "from chance, 50 or more to be told well. Add pictures"
        )
    if len(held) < FEWEST:
        raise DataError(
            f"the run has {len(held)} pictures that it was not trained on, expected at least "
            f"{FEWEST}; fit with a larger --val or --test"
        )


def _found(
    run: RunDirectory, held: Samples, others: Others, seed: int, progress: Progress
) -> Shift:
    classes = held.kind.single_label
    train = run.samples("train")
    chosen = np.random.default_rng(seed).permutation(len(train))[:_MOST_TRAINING]
    sets = (held, others.samples, train.take(np.sort(chosen)))
    known, new, bank = describe_pictures(run.model(), sets, progress)
    known = dataclasses.replace(known, labels=held.labels if classes else None)
    new = dataclasses.replace(new, labels=others.samples.labels if others.labelled else None)
    return find_drift(
        bank.features,
        known,
        new,
        tuple(run.fact("classes")) if classes else (),
        extra=bank.features if base_untouched(run) else None,
        seed=seed,
    )


def base_untouched(run: RunDirectory) -> bool:
    """Whether the model's features are those of its base as it came.

    Features that were trained on the training images lie elsewhere for these than for any
    others: to compare with them would show a shift where there is none.
    """
    names = [stage["name"] for stage in run.record["plan"]["stages"]]
    kept = names.index(run.record["best_stage"]) if run.record.get("best_stage") in names else -1
    stages = run.record["plan"]["stages"][: kept + 1]
    return bool(stages) and all(list(stage["train"]) == ["head"] for stage in stages)


def _reading(run: RunDirectory) -> str:
    if not has_held_out(run):
        return (
            "The run was trained on all its images, so these stand for it: it knows them too well, "
            "and a difference may be smaller than it seems."
        )
    if base_untouched(run):
        return "Compared with all of the run's pictures: its base was not trained on them."
    return (
        "Compared with the run's validation and test pictures: its features were trained on "
        "the training pictures, which therefore lie apart from all others."
    )


def describe_pictures(
    model: keras.Model, sets: tuple[Samples, ...], progress: Progress
) -> list[FeatureSet]:
    """Return features where the base ends (averaged over positions), and the answers.

    Args:
        model: A run's model.
        sets: The images.
        progress: Called with a task's name, what is done and of how much.

    Returns:
        For each set, float32 features (n, channels) and outputs (n, outputs), no labels.

    Raises:
        DataError: An image cannot be read.
    """
    import keras

    outputs = [graph.feature_point(model).tensor, model.outputs[0]]
    both = keras.Model(graph.alone(model.inputs), outputs)
    readers = [samples.reader(model) for samples in sets]
    total, done = sum(map(len, readers)), 0
    engine, predict = open_backend(both, readers[0], rows=total)

    def described(batch: Batch) -> list[np.ndarray]:
        features, outputs = predict(batch)
        return [_averaged(features), outputs]

    found = []
    for reader in readers:
        told = functools.partial(_told, progress, f"features ({engine.name})", done, total)
        found.append(FeatureSet(*collect(described, reader, progress=told)))
        done += len(reader)
    return found


def _told(progress: Progress, task: str, before: int, total: int, done: int, _: int) -> None:
    progress(task, before + done, total)


def _averaged(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
