"""The new pictures of an update: checked, not known yet, their classes beside the old ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from tl_keras.data.builtin import is_builtin
from tl_keras.data.class_names import merged_classes
from tl_keras.data.samples import SPLITS, Samples, in_order
from tl_keras.data.sources import load_samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import CheckReport
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.prepare import PreparedData, prepare
from tl_keras.utils.progress import Progress
from tl_keras.workflows.update.config import Update
from tl_keras.workflows.update.previous_data import Pool

__all__ = ["fresh_of", "new_samples"]


def new_samples(request: Update, run: RunDirectory) -> tuple[Samples, tuple[str, ...]]:
    """Return the new pictures, not looked at yet, and all classes, the old ones first.

    Raises:
        DataError: There is nothing there, or a class is written almost as another.
    """
    samples = load_samples(request.data, fewest=1, modality=run.modality)
    if is_builtin(samples.root.removeprefix("builtin:")):
        raise DataError(
            f"update takes a folder or a CSV file, not the built-in set {request.data}; write its "
            "pictures to class folders first"
        )
    return samples, merged_classes(run.fact("classes"), samples.class_names, request.new_classes)


def fresh_of(
    request: Update,
    config: RunConfig,
    samples: Samples,
    classes: tuple[str, ...],
    past: Pool,
    progress: Progress,
) -> tuple[Pool, PreparedData]:
    """Check the new pictures and split them.

    Args:
        request: The update.
        config: Of the old run: its shares and its seed split the new pictures too.
        samples: From :func:`new_samples`.
        classes: All classes, the old ones first.
        past: What the run knows.
        progress: Called with a task's name, what is done and of how much.

    Returns:
        The pictures, their labels counted as the classes do; and the check's facts.

    Raises:
        DataError: Pictures cannot be used or are known already, or none is new.
    """
    report = samples.modality.check(
        samples, progress=lambda d, n: progress("check of images", d, n)
    )
    known = [i for i, digest in enumerate(report.digests) if digest in past.known]
    if len(known) == len(samples):
        raise DataError(
            f"{request.data} holds no new picture: all {len(samples)} are known to the run"
        )
    if known and not request.skip_bad:
        raise DataError(_already_known(request, samples, known))
    rest = [i for i in range(len(samples)) if i not in set(known)]
    asked = config.replace(source=request.data, skip_bad=request.skip_bad)
    checked = prepare(asked, progress, _of_present(samples.take(rest)), _part(report, rest))
    left = [{"path": samples.keys[i], "reason": "known to the run"} for i in known]
    checked = dataclasses.replace(checked, left_out=[*checked.left_out, *left])
    return _pool(checked, classes, int(past.tasks.max(initial=0)) + 1), checked


def _already_known(request: Update, samples: Samples, known: list[int]) -> str:
    first = ", ".join(samples.keys[i] for i in known[:3])
    return (
        f"{len(known)} of the {len(samples)} pictures in {request.data} are known to the run "
        f"already (the same pixels), such as {first}; remove them, or leave them out: --skip-bad"
    )


def _of_present(samples: Samples) -> Samples:
    """Drop the names of classes that have no picture left: they are old and known."""
    present = [samples.class_names[label] for label in np.unique(samples.labels)]
    return in_order(samples, present)


def _part(report: CheckReport, places: list[int]) -> CheckReport:
    index = {old: new for new, old in enumerate(places)}
    bad = tuple(
        dataclasses.replace(one, index=index[one.index]) for one in report.bad if one.index in index
    )
    digests = tuple(report.digests[i] for i in places)
    return dataclasses.replace(report, bad=bad, digests=digests)


def _pool(checked: PreparedData, classes: tuple[str, ...], task: int) -> Pool:
    named = {name: getattr(checked.splits, name) for name in SPLITS}
    parts = {name: in_order(part, classes) for name, part in named.items() if part is not None}
    first = parts["train"]
    keys = [key for part in parts.values() for key in part.keys]
    samples = dataclasses.replace(
        first,
        items=[item for part in parts.values() for item in part.items],
        labels=np.concatenate([part.labels for part in parts.values()]),
        keys=tuple(checked.digests[key] for key in keys),
        splits=tuple(name for name, part in parts.items() for _ in part.keys),
    )
    unique = sorted({key: i for i, key in reversed(list(enumerate(samples.keys)))}.values())
    return Pool(samples, np.full(len(samples), task, np.int64)).take(unique)
