"""Looks for what harms in a data set: reads it, computes features, examines them, writes a page."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from tl_keras.analysis.data_quality import Quality, examine, number_groups
from tl_keras.analysis.label_quality import DropDecision, decide_drop, find_suspects
from tl_keras.analysis.near_duplicates import describe_group, find_near_duplicates
from tl_keras.analysis.weak_groups import group_by_value
from tl_keras.data.samples import Samples, fingerprint
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError
from tl_keras.features.backends import Batch
from tl_keras.features.extract import collect, open_backend
from tl_keras.features.places import candidate_places, feature_model
from tl_keras.modalities.base import in_order
from tl_keras.reports.run_report import GROUPS, MEMBERS, SUSPECTS
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import PreparedData, load, usable
from tl_keras.utils.files import write_atomically
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = [
    "Description", "check_labels", "describe_samples", "examine_training", "hash_samples",
    "save_previews",
]  # fmt: skip

_TASKS = ("classes", "tags", "values")
_FEWEST = 4
_KINDS = ("leak", "contradict", "repeat")
_MOST_GROUPS, _SIDE = 100, 200
_MOST_COMPARED = 50_000


@dataclass(frozen=True, eq=False)
class Description:
    """What a model and a look make of samples.

    Attributes:
        views: features float32 (n, d): plain and, of images, mirrored.
        brightness: float64 (n,), mean of the pixels, 0..255; NaN where there are none.
    """

    views: tuple[np.ndarray, ...]
    brightness: np.ndarray


@guard()
def check_labels(config: RunConfig, page: Path | None, progress: Progress = silent) -> Quality:
    """Find likely wrong labels, copies, outliers, hard classes and weak groups, and show them.

    Args:
        config: data, backbone, size, weights and seed.
        page: the HTML file to write, see `tl_keras.reports.data_report`; None for none. An older
            page of this kind is replaced, anything else is left alone.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    from tl_keras.reports.data_report import require_replaceable, write_data_report

    if config.data.task not in _TASKS:
        raise DataError(
            f"got task '{config.data.task}'; labels can be checked of {', '.join(_TASKS)}"
        )
    if page:
        require_replaceable(page, config.data.source)
    samples = load(config)
    if len(samples) < _FEWEST:
        raise DataError(
            f"{config.data.source} holds {len(samples)} {samples.modality.noun}s; labels can be "
            f"checked of {_FEWEST} or more"
        )
    start_tensorflow()
    # Not at the top: workflows.probe is not needed for a plain check.
    from tl_keras.workflows.probe import open_backbone

    model = open_backbone(config, samples.modality.input_size)
    samples = usable(samples, config.data.skip_bad, progress)
    found = describe_samples(model, samples, config.run.precision, progress)
    hashes = hash_samples(samples, progress)
    about = {
        "brightness": group_by_value(found.brightness, ("the darkest quarter", "the brightest")),
        "size": group_by_value(_sides(samples), ("the smallest quarter", "the largest")),
    }
    quality = examine(samples, found.views, hashes, about, config.run.seed)
    if page:
        write_data_report(page, config.data.source, quality, config.model.backbone)
    return quality


def describe_samples(
    model: keras.Model, samples: Samples, precision: str = "auto", progress: Progress = silent
) -> Description:
    """Compute pooled features where a backbone ends; of images also those of the mirror image.

    Args:
        model: A backbone, see `tl_keras.workflows.probe.open_backbone`.
        samples: What to describe.
        precision: See :func:`tl_keras.features.extract.open_backend`.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        DataError: A sample cannot be read.
        ModelError: The model takes something else.
    """
    prefix = feature_model(model, candidate_places(model)[-1])
    reader = samples.reader(prefix)
    engine, predict = open_backend(prefix, reader, precision)

    def described(batch: Batch) -> list[np.ndarray]:
        plain = predict(batch)[0]
        if samples.modality.name != "image" or not isinstance(batch, Mapping):
            return [plain, np.full(len(plain), np.nan)]
        mirrored = {name: values[:, :, ::-1] for name, values in batch.items()}
        (image,) = batch.values()
        return [plain, image.mean((1, 2, 3), dtype=np.float64), predict(mirrored)[0]]

    told = functools.partial(progress, f"features ({engine.name})")
    plain, brightness, *mirrored = collect(described, reader, progress=told)
    return Description((plain, *mirrored), brightness)


def hash_samples(samples: Samples, progress: Progress = silent) -> list[np.ndarray | None]:
    """Return the perceptual hash of each sample, None where there is none."""
    kind, items, found = samples.modality, samples.items, []
    work = in_order(lambda i: kind.perceptual_hash(items[i]), len(samples), os.cpu_count() or 1)
    for made in work:
        found.append(made)
        progress("search for copies", len(found), len(samples))
    return found


def _sides(samples: Samples) -> np.ndarray:
    """The shorter side of each image in pixels, from its header; NaN where that says nothing."""
    if samples.modality.name != "image":
        return np.full(len(samples), np.nan)
    return np.array([_side(item) for item in samples.items])


def _side(item: Any) -> float:
    from PIL import Image

    if isinstance(item, np.ndarray):
        return float(min(item.shape[:2]))
    try:
        with Image.open(item) as image:
            return float(min(image.size))
    except (OSError, ValueError):
        return float("nan")




def examine_training(
    config: RunConfig, model: keras.Model, data: PreparedData, progress: Progress = silent
) -> tuple[PreparedData, dict[str, Any]]:
    """Look for what harms in a run's data, before it trains; drop suspects where that is asked.

    Near duplicates are looked for among all splits, of 50,000 samples at most: the search
    compares all pairs (3 s for 20,000 on two cores, four times that for twice as many). Labels
    are judged where `drop_suspects` is set, by the features of the untrained model's backbone:
    those of the training split alone, so that validation and test stay untouched.

    Args:
        config: What the run is asked for.
        model: Its model, before training.
        data: Its data.
        progress: Called with a task's name, what is done and of how much.

    Returns:
        The data to train on, and findings for the run's record ("data_quality").

    Raises:
        DataError: Suspects are to be dropped, and the task has none or a class would be emptied.
    """
    parts = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    known = {name: part for name, part in parts.items() if part is not None}
    count = sum(map(len, known.values()))
    if count > _MOST_COMPARED and not config.data.drop_suspects:
        note = (
            f"Near duplicates were not looked for, since {count} samples make too many pairs; "
            "'tl-keras check-data --labels' looks for them."
        )
        return dataclasses.replace(data, notes=[*data.notes, note]), {}
    hashes = [one for part in known.values() for one in hash_samples(part, progress)]
    facts = _copies(known, hashes)
    if not config.data.drop_suspects:
        return data, facts
    train = data.splits.train
    train.kind.require_single_label("--drop-suspects")
    views = describe_samples(model, train, config.run.precision, progress).views
    copies = find_near_duplicates(hashes[: len(train)])
    numbers = number_groups(copies, len(train))
    given = (views, train.labels, train.kind)
    suspects, judged = find_suspects(
        *given, train.outputs, groups=numbers, seed=config.run.seed
    )  # fmt: skip
    decision = decide_drop(
        *given, train.class_names, suspects, groups=numbers, seed=config.run.seed
    )
    found = Quality(train, suspects, judged, [], np.zeros(0, int), np.zeros(len(train)))
    told = {key: found.facts()[key] for key in ("suspects", "suspect_count", "accuracy")}
    drop = {"reason": decision.reason, **decision.evidence, "dropped": len(decision.indices)}
    return _without(data, found, decision), {**facts, **told, "drop": drop}


def _copies(parts: Mapping[str, Samples], hashes: list[np.ndarray | None]) -> dict[str, Any]:
    """Near duplicates among all splits, by key, leaks first; at most 100 groups."""
    keys = [key for part in parts.values() for key in part.keys]
    words = [name for name, part in parts.items() for _ in part.keys]
    labels = [
        part.kind.describe(label, part.class_names) for part in parts.values()
        for label in part.labels
    ]  # fmt: skip
    groups = find_near_duplicates(hashes)
    told = [
        {"kind": describe_group(group, labels, words), "keys": [keys[i] for i in group]}
        for group in groups
    ]
    told.sort(key=lambda one: _KINDS.index(str(one["kind"])))
    return {"near_duplicates": told[:_MOST_GROUPS], "near_duplicate_count": len(told)}


def _without(data: PreparedData, found: Quality, decision: DropDecision) -> PreparedData:
    """The data without the training samples that are dropped."""
    train, gone = data.splits.train, set(decision.indices.tolist())
    if not gone:
        return dataclasses.replace(data, notes=[*data.notes, decision.reason])
    left = [
        {"path": train.keys[i], "reason": f"suspect: is {found.label(i)}, looks like "
         f"{found.suggestion(i)}"}
        for i in decision.indices.tolist()
    ]  # fmt: skip
    splits = dataclasses.replace(
        data.splits, train=train.take([i for i in range(len(train)) if i not in gone])
    )
    lost = {one["path"] for one in left}
    return dataclasses.replace(
        data, splits=splits, left_out=[*data.left_out, *left],
        digests={key: value for key, value in data.digests.items() if key not in lost},
        fingerprint=_fingerprint(splits, data.digests), notes=[*data.notes, decision.reason],
    )  # fmt: skip


def _fingerprint(splits: Splits, digests: Mapping[str, str]) -> str:
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    keys = tuple(key for part in parts for key in part.keys)
    labels = np.concatenate([part.labels for part in parts])
    # Only keys and labels are hashed, besides the digests.
    whole = dataclasses.replace(
        splits.train, items=list(keys), keys=keys, labels=labels, splits=None
    )
    return fingerprint(whole, [digests[key] for key in keys])


def save_previews(run: RunDirectory, data: PreparedData) -> None:
    """Keep small images of what the report shows of the data's quality, beside the run's plots.

    Args:
        run: Its record has the findings, and gets the files' places in the run, by key.
        data: As it was examined, before anything was dropped.
    """
    quality = run.record.get("data_quality") or {}
    shown = [one["key"] for one in quality.get("suspects", [])[:SUSPECTS]]
    for group in quality.get("near_duplicates", [])[:GROUPS]:
        shown += group["keys"][:MEMBERS]
    wanted, files = set(shown), dict[str, str]()
    parts = (data.splits.train, data.splits.val, data.splits.test)
    for part in (part for part in parts if part is not None and wanted):
        for index in (index for index, key in enumerate(part.keys) if key in wanted):
            image, key = part.modality.thumbnail(part.items[index], _SIDE), part.keys[index]
            if isinstance(image, Image):
                place = Path("plots", "data", f"{len(files)}.jpg")
                stream = io.BytesIO()
                image.save(stream, "JPEG", quality=85)
                write_atomically(run.path / place, stream.getvalue())
                files[key] = place.as_posix()
    if files:
        run.update(data_quality={**quality, "previews": files})
