"""From a trained run and new images to a new run that knows both."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import tasks
from tl_keras.continual.forgetting import transfer
from tl_keras.continual.growing import grow
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.features.extract import predict
from tl_keras.runs import exemplars
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import finish, first_record, guard, record_training
from tl_keras.runs.prepare import PreparedData
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.files import atomic_path, write_atomically
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.utils.stats import wilson
from tl_keras.workflows.update.config import UpdateConfig
from tl_keras.workflows.update.images import (
    HELD_SHARE,
    Pool,
    ReplayBuffer,
    choose_buffer,
    find_previous,
    join_pools,
    list_rows,
    load_new,
    prepare_new,
    write_buffer,
)
from tl_keras.workflows.update.learn import Learning, extract_features, learn, refuse_lost, solve

if TYPE_CHECKING:
    import keras

__all__ = ["UpdateConfig", "update"]


@guard()
def update(
    request: UpdateConfig,
    out: str | Path,
    *,
    progress: Progress = silent,
    command: str = "",
) -> RunDirectory:
    """Teach a trained run new classes, or new images of its own, into a new run.

    The old run is only read. The new one appears whole, or not at all.

    Args:
        request: What to learn and how to keep what is known.
        out: The directory to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.
        command: What the user wrote, for the record.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    run = RunDirectory(request.run)
    run.require_complete()
    _refuse_other_tasks(run)
    refuse_existing(Path(out), run.path, request.data, run.fact("data", "root"))
    samples, classes = load_new(request, run)
    start_tensorflow()
    old = run.model()
    previous = find_previous(run, progress)
    refuse_lost(request, run, previous)
    config = _config_of(run)
    new, checked = prepare_new(request, config, samples, classes, previous, progress)
    with atomic_path(out) as folder, repeatable(config.run.seed):
        step = _Step(request, config, run, old, previous, new, checked, classes, folder, progress)
        step.run_all(command)
    return RunDirectory(out)


def _refuse_other_tasks(run: RunDirectory) -> None:
    tasks.get(run.fact("data", "task")).require_single_label("update")


def _config_of(run: RunDirectory) -> RunConfig:
    share = run.config.val_share or HELD_SHARE
    return run.config.replace(epochs=(), learning_rate=(), devices=1, lr_scale=1.0, val=share)


@dataclasses.dataclass
class _Step:
    """One update: its parts are run in order."""

    request: UpdateConfig
    config: RunConfig
    old_run: RunDirectory
    old: keras.Model
    previous: Pool
    new: Pool
    checked: PreparedData
    classes: tuple[str, ...]
    folder: Path
    progress: Progress

    def run_all(self, command: str) -> None:
        """Choose what is kept, learn, measure, report."""
        began = time.perf_counter()
        grown = grow(self.old, len(self.classes))
        pool, memory = self._memory()
        rows = list_rows(pool, memory, self.newest)
        files = self.new.samples.modality.files
        run = RunDirectory.create(self.folder, self._record(grown, rows, command), files)
        write_buffer(self.folder, pool, memory, self.previous.known)
        write_atomically(self.folder / exemplars.TABLE, exemplars.format_rows(rows))
        data = run.splits()
        run.write_split(data)
        run.write_labels(self.classes)
        history = self._learn(run, grown, data)
        run.update(timings={**run.record["timings"], "update": time.perf_counter() - began})
        facts = self._measure(grown, data, rows)
        facts["memory"] = {"bytes": memory.bytes, "exemplars": len(memory.exemplars)}
        facts["gone"] = self.previous.gone
        run.update(update={**self._facts(), **facts})
        finish(run, grown, data, history, self.progress, self._plots(run))

    @property
    def newest(self) -> int:
        """This step's number, from 1."""
        return len(self._earlier()) or 1

    def _earlier(self) -> list[dict[str, Any]]:
        """Earlier steps as the old run's record has them."""
        first = {"name": Path(str(self.old_run.fact("data", "root"))).name,
                 "classes": self.old_run.fact("classes")}  # fmt: skip
        return self.old_run.record.get("update", {}).get("steps", [first])

    def _facts(self) -> dict[str, Any]:
        new = list(self.classes[len(self.old_run.fact("classes")) :])
        present = sorted({self.classes[label] for label in self.new.samples.labels})
        step = {"name": Path(self.request.data).name, "classes": present}
        return {
            "of": str(self.old_run.path.absolute()),
            "keep": list(self.request.keep),
            "exemplars": self.request.exemplars,
            "strength": self.request.strength,
            "new_classes": new,
            "steps": [*self._earlier(), step],
        }

    def _memory(self) -> tuple[Pool, ReplayBuffer]:
        previous = dataclasses.replace(
            self.previous,
            samples=dataclasses.replace(self.previous.samples, class_names=self.classes),
        )
        newest: np.ndarray = np.full(len(self.new.samples), self.newest, np.int64)
        new = dataclasses.replace(self.new, tasks=newest)
        pool = join_pools([previous, new], self.classes)

        def features(places: np.ndarray) -> np.ndarray:
            chosen = pool.samples.take(places)
            return extract_features(self.old, chosen, self.config.run.precision, self.progress)

        specs = pool.samples.modality.specs(self.old)
        self.new = new
        return pool, choose_buffer(self.request, pool, specs, self.config.run.seed, features)

    def _record(
        self, grown: keras.Model, rows: list[exemplars.Row], command: str
    ) -> dict[str, Any]:
        modality = self.new.samples.modality
        parts = {
            name: exemplars.make_samples(
                [r for r in rows if r.split == name], self.classes, exemplars.ROOT, modality
            )
            for name in ("train", "val", "test")
        }
        data = Splits(parts["train"], parts["val"], parts["test"] if len(parts["test"]) else None)
        config = self.config.replace(source=str(Path(self.request.data).absolute()))
        record = first_record(
            config, dataclasses.replace(self.checked, splits=data), grown, command
        )
        old = self.old_run.record
        return record | {key: old[key] for key in ("base", "weights", "head") if key in old}

    def _learn(self, run: RunDirectory, grown: keras.Model, data: Splits) -> list[dict[str, Any]]:
        task = Learning(
            self.request, self.config, self.old, self.old_run, self.previous, self.new, data,
            self.folder, self.progress,
        )  # fmt: skip
        began = time.perf_counter()
        if not self.request.trains:
            solve(task, grown)
            run.update(stages=[], best_stage="", plan={"name": "streaming", "stages": []})
            return []
        with guard(run, grown):
            plan, result = learn(task, grown)
        run.update(plan=plan.to_dict())
        record_training(run, result, {"training": time.perf_counter() - began})
        return result.history

    def _measure(
        self, grown: keras.Model, data: Splits, rows: list[exemplars.Row]
    ) -> dict[str, Any]:
        samples = data.test if data.test is not None and _spans(data.test, data) else data.val
        tasks = {row.digest: row.task for row in rows}
        pool = Pool(samples, np.array([tasks[key] for key in samples.keys], np.int64))
        before, after = predict(self.old, samples), predict(grown, samples)
        return measure(pool, before, after, self.newest, self.old_run.record)

    def _plots(self, run: RunDirectory) -> dict[str, Path]:
        from tl_keras.reports.figures import plot_update

        return {"update": plot_update(run.record["update"], self.folder / "plots" / "update.png")}


def _spans(test: Samples, data: Splits) -> bool:
    """Whether the test split has every class that validation has."""
    return set(np.unique(data.val.labels)) <= set(np.unique(test.labels))


def measure(
    pool: Pool, before: np.ndarray, after: np.ndarray, newest: int, record: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of an update.

    Args:
        pool: Held-out images of all steps.
        before: What the old model says of them, float32 (n, old classes).
        after: What the new model says, float32 (n, classes).
        newest: This step's number, 1 or more.
        record: The old run's record, whose own "update" has the figures of earlier steps.

    Returns:
        "accuracy": rows by what they are of, each with "count", "before", "after" (a share with
        its 95 % interval, or None); "matrix": accuracy on each step's images after each
        step; and :func:`tl_keras.continual.forgetting.transfer` of it.
    """
    steps, labels, known_classes = pool.tasks, pool.samples.labels, before.shape[1]
    before, after = before.argmax(1) == labels, after.argmax(1) == labels
    old_class = labels < known_classes
    rows = {
        "old pictures": steps < newest,
        "new pictures of old classes": (steps == newest) & old_class,
        "new classes": ~old_class,
        "all": np.ones(len(labels), bool),
    }
    accuracy = {
        name: {
            "count": int(mask.sum()),
            "before": _share(before[mask]),
            "after": _share(after[mask]),
        }
        for name, mask in rows.items()
        if mask.any()
    }
    matrix = _matrix(record, newest)
    for task in range(newest + 1):
        matrix[newest][task] = _mean(after[steps == task])
        known = (steps == task) & old_class
        matrix[newest - 1][task] = _mean(before[known])
    # What was measured at each step is compared on the images that are at hand today.
    start = [1 / max(known_classes, 1)] * (newest + 1)
    filled = [[np.nan if value is None else value for value in row] for row in matrix]
    return {"accuracy": accuracy, "matrix": matrix, **transfer(filled, start)}


def _matrix(record: dict[str, Any], newest: int) -> list[list[float | None]]:
    earlier: Sequence[Sequence[float | None]] = record.get("update", {}).get("matrix", [])
    size = newest + 1
    matrix: list[list[float | None]] = [[None] * size for _ in range(size)]
    for i, row in enumerate(earlier[:size]):
        matrix[i][: len(row)] = list(row)[:size]
    return matrix


def _mean(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None


def _share(right: np.ndarray) -> dict[str, float]:
    low, high = wilson(right.sum(), len(right))
    return {"value": float(right.mean()), "low": low, "high": high}
