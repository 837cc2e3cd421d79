"""Makes a run's model fit for other images, as a new run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError
from tl_keras.features.backends import Batch
from tl_keras.features.extract import predict, read_ahead
from tl_keras.models import graph
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import create, finish, guard, record_training
from tl_keras.runs.prepare import PreparedData, prepare
from tl_keras.training.batchnorm import reestimate
from tl_keras.training.plan import Plan, Stage, named_plan
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.utils.stats import paired_difference
from tl_keras.utils.suggest import did_you_mean
from tl_keras.workflows.drift import Others, find_others, held_out

if TYPE_CHECKING:
    import keras

__all__ = ["METHODS", "AdaptConfig", "adapt"]

METHODS = ("batchnorm", "first-block", "lp-ft")
_VAL, _TEST, _BATCH = 0.2, 0.3, 64
_FIRST = {"epochs": 10, "learning_rate": 1e-3, "patience": 4}


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """What a run is made fit for, and how.

    Attributes:
        run: A complete run; it stays as it is.
        data: The other images.
        method: "batchnorm" (see :func:`tl_keras.training.batchnorm.reestimate`), "first-block"
            (the first block alone, Lee et al., 'Surgical fine-tuning improves adaptation to
            distribution shifts', ICLR 2023, arXiv 2210.11466) or "lp-ft" (the plan).
        skip_bad: Go on without new images that cannot be read.
    """

    run: Path
    data: str | None
    method: str
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Check what can be known before an image is looked at.

        Raises:
            PlanError: There is no such method, or nothing to apply it to.
        """
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            raise PlanError(
                f"unknown remedy '{self.method}', expected one of {', '.join(METHODS)}.{hint}"
            )
        if self.data is None:
            raise PlanError(
                f"the remedy {self.method} makes a run fit for images that you have; give OTHER, "
                "their folder, in place of --corrupt: "
                f"tl-keras drift RUN other_photos/ --remedy {self.method}"
            )


@guard()
def adapt(
    config: AdaptConfig, out: str | Path, *, progress: Progress = silent, command: str = ""
) -> RunDirectory:
    """Make a run's model fit for other images, and write it as a new run.

    The new images are split (or were already): a method learns from the training part, and
    before and after are compared on the part that it never saw. Without labels only
    "batchnorm" can be had; it then learns from all of them, and accuracy is told on the known
    images alone.

    Args:
        config: What to do.
        out: The directory to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.
        command: What the user wrote, for the record.

    Returns:
        The new run; its record's `remedy` says what it gave.

    Raises:
        RunError: The run is not complete, or `out` exists.
        DataError: Labels are needed and their classes are not the run's.
        ModelError: "batchnorm" for a model without BatchNorm.
    """
    run, name = RunDirectory(config.run), config.method
    run.require_complete()
    refuse_existing(Path(out), config.data, run.fact("data", "root"))
    start_tensorflow()
    others = find_others(run, str(config.data), config.skip_bad, progress)
    parts = _new_parts(run, str(config.data), name, others, progress)
    model = run.model()
    judged = {"known": held_out(run)} | ({"new": _unseen(parts.splits)} if parts else {})
    before = {part: _right(model, samples, progress) for part, samples in judged.items()}
    with atomic_path(out) as folder:
        made = _begin(run, parts, model, folder, command)
        images = parts.splits.train if parts else others.samples
        history = _apply(name, made, model, parts, images, progress)
        after = {part: _right(model, samples, progress) for part, samples in judged.items()}
        facts = {part: _compared(before[part], after[part]) for part in judged}
        made.update(remedy={"name": name, "from": str(config.run), **facts})
        finish(made, model, parts.splits if parts else run.splits(), history, progress)
    return RunDirectory(out)


def _new_parts(
    run: RunDirectory, data: str, name: str, others: Others, progress: Progress
) -> PreparedData | None:
    """Return the new images in splits, or None where nobody labelled them."""
    present = set(others.samples.labels.tolist()) if others.labelled else set()
    if others.samples.kind.single_label and len(present) == len(run.fact("classes")):
        config = _config_of(run, data)
        return prepare(config, progress, others.samples)
    if name == "batchnorm":
        return None
    raise DataError(
        f"the remedy {name} learns from labels; {data} must have the run's classes, "
        f"{', '.join(run.fact('classes')[:10])}. Without labels there is --remedy batchnorm"
    )


def _config_of(run: RunDirectory, source: str) -> RunConfig:
    return run.config.replace(source=source, epochs=(), learning_rate=(), val=_VAL, test=_TEST)


def _unseen(splits: Splits) -> Samples:
    return splits.val if splits.test is None else splits.test


def _right(model: keras.Model, samples: Samples, progress: Progress) -> np.ndarray:
    outputs = predict(model, samples, progress=lambda d, n: progress("accuracy", d, n))
    return outputs.argmax(axis=1) == samples.labels


def _begin(
    run: RunDirectory, parts: PreparedData | None, model: keras.Model, folder: Path, command: str
) -> RunDirectory:
    if parts is not None:
        config = _config_of(run, parts.splits.train.root)
        return create(folder, config, parts, model, command=command, state="incomplete")
    record = {key: value for key, value in run.record.items() if key != "schema"}
    record |= {"state": "incomplete", "command": command}
    made = RunDirectory.create(folder, record, run.modality.files)
    made.write_split(run.splits(), run.digests())
    made.write_labels(tuple(run.fact("classes")))
    return made


def _apply(
    name: str,
    made: RunDirectory,
    model: keras.Model,
    parts: PreparedData | None,
    images: Samples,
    progress: Progress,
) -> list[dict[str, Any]]:
    began = time.perf_counter()
    if name != "batchnorm" and parts is not None:
        return _train(name, made, model, parts, progress)
    reestimate(model, _batches(images, model, progress))
    seconds = round(time.perf_counter() - began, 2)
    made.write_history([])
    made.update(
        plan={"name": name, "stages": []}, stages=[], best_stage="",
        timings={**made.record["timings"], "training": seconds},
    )  # fmt: skip
    return []


def _batches(samples: Samples, model: keras.Model, progress: Progress) -> Iterator[Batch]:
    # In an order of chance: a batch of one class alone would have statistics of its own.
    order = np.random.default_rng(0).permutation(len(samples))
    parts = np.array_split(order, max(1, round(len(samples) / _BATCH)))
    done = np.cumsum([len(part) for part in parts])
    for batch, count in zip(read_ahead(samples.reader(model), parts), done, strict=True):
        yield batch
        progress("statistics", int(count), len(samples))


def _train(
    name: str, made: RunDirectory, model: keras.Model, parts: PreparedData, progress: Progress
) -> list[dict[str, Any]]:
    from tl_keras.training.config import FitOptions
    from tl_keras.training.trainer import fit_with

    plan = _plan(name, model, made.config.plan.settings)
    options = FitOptions(
        seed=made.fact("seed"),
        state_dir=made.state,
        precision=made.config.run.precision,
        progress=progress,
        fingerprint=parts.fingerprint,
    )
    began = time.perf_counter()
    result = fit_with(model, parts.splits, plan, options)
    made.update(plan=plan.to_dict())
    record_training(made, result, {"training": time.perf_counter() - began})
    return result.history


def _plan(name: str, model: keras.Model, settings: Mapping[str, Any]) -> Plan:
    blocks = graph.blocks(model)
    if name == "lp-ft":
        return named_plan(name, blocks=len(blocks), **settings)
    learning = {layer.name for layer in model.layers if layer.weights}
    stage = Stage(name, tuple(one for one in blocks[0] if one in learning), **_FIRST)  # type: ignore[arg-type]
    return Plan(name, (stage,), **settings)


def _compared(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    value, low, high = paired_difference(after, before)
    return {
        "pictures": len(before),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": {"value": value, "low": low, "high": high},
    }
