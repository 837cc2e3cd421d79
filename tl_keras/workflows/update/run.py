"""From a trained run and new pictures to a new run that knows both."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import tasks
from tl_keras.continual.growing import grow
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import RunError
from tl_keras.features.extract import predict
from tl_keras.runs import exemplars as kept
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import finish, first_record, guard, record_training
from tl_keras.runs.prepare import PreparedData
from tl_keras.utils.files import atomic_path, write_atomically
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.workflows.update.config import Update
from tl_keras.workflows.update.learn import Lesson, features_of, learn, refuse_lost, solve
from tl_keras.workflows.update.metrics import Scored, measured
from tl_keras.workflows.update.new_data import fresh_of, new_samples
from tl_keras.workflows.update.previous_data import Pool, past_of, pooled
from tl_keras.workflows.update.replay_buffer import (
    Memory,
    chosen_memory,
    write_memory,
    written_memory,
)

if TYPE_CHECKING:
    import keras

__all__ = ["Update", "update"]


@guard()
def update(
    request: Update,
    out: str | Path,
    *,
    progress: Progress = silent,
    command: str = "",
) -> RunDirectory:
    """Teach a trained run new classes, or new pictures of its own, into a new run.

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
    refuse_existing(Path(out))
    _refuse_within(Path(out), run)
    samples, classes = new_samples(request, run)
    start_tensorflow()
    old = run.model()
    past = past_of(run, progress)
    refuse_lost(request, run, past)
    config = _config_of(run)
    fresh, checked = fresh_of(request, config, samples, classes, past, progress)
    with atomic_path(out) as folder:
        step = _Step(request, config, run, old, past, fresh, checked, classes, folder, progress)
        step.run_all(command)
    return RunDirectory(out)


def _refuse_other_tasks(run: RunDirectory) -> None:
    tasks.get(run.fact("data", "task")).require_single_label("update")


def _refuse_within(out: Path, run: RunDirectory) -> None:
    if run.path.resolve() in out.absolute().resolve().parents:
        raise RunError(f"{out} lies within {run.path}, which must stay as it is; choose another")


def _config_of(run: RunDirectory) -> RunConfig:
    return run.config.replace(epochs=(), learning_rate=(), devices=1, lr_scale=1.0)


@dataclasses.dataclass
class _Step:
    """One update: its parts are run in order."""

    request: Update
    config: RunConfig
    old_run: RunDirectory
    old: keras.Model
    past: Pool
    fresh: Pool
    checked: PreparedData
    classes: tuple[str, ...]
    folder: Path
    progress: Progress

    def run_all(self, command: str) -> None:
        """Choose what is kept, learn, measure, report."""
        began = time.perf_counter()
        grown = grow(self.old, len(self.classes))
        pool, memory = self._memory()
        rows = written_memory(pool, memory, self.newest)
        run = RunDirectory.create(self.folder, self._record(grown, rows, command))
        write_memory(self.folder, pool, memory, self.past.known)
        write_atomically(self.folder / kept.TABLE, kept.written_rows(rows))
        data = run.splits()
        run.write_split(data)
        run.write_labels(self.classes)
        history = self._learn(run, grown, data)
        run.update(timings={**run.record["timings"], "update": time.perf_counter() - began})
        facts = self._measure(grown, data, rows)
        facts["memory"] = {"bytes": memory.bytes, "exemplars": len(memory.exemplars)}
        facts["gone"] = self.past.gone
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
        present = sorted({self.classes[label] for label in self.fresh.samples.labels})
        step = {"name": Path(self.request.data).name, "classes": present}
        return {
            "of": str(self.old_run.path.absolute()),
            "keep": list(self.request.keep),
            "exemplars": self.request.exemplars,
            "strength": self.request.strength,
            "new_classes": new,
            "steps": [*self._earlier(), step],
        }

    def _memory(self) -> tuple[Pool, Memory]:
        past = dataclasses.replace(
            self.past,
            samples=dataclasses.replace(self.past.samples, class_names=self.classes),
        )
        newest: np.ndarray = np.full(len(self.fresh.samples), self.newest, np.int64)
        fresh = dataclasses.replace(self.fresh, tasks=newest)
        pool = pooled([past, fresh], self.classes)

        def features(places: np.ndarray) -> np.ndarray:
            chosen = pool.samples.take(places)
            return features_of(self.old, chosen, self.config.run.precision, self.progress)

        specs = pool.samples.modality.specs(self.old)
        self.fresh = fresh
        return pool, chosen_memory(self.request, pool, specs, self.config.run.seed, features)

    def _record(self, grown: keras.Model, rows: list[kept.Row], command: str) -> dict[str, Any]:
        modality = self.fresh.samples.modality
        parts = {
            name: kept.samples_of(
                [r for r in rows if r.split == name], self.classes, kept.ROOT, modality
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
        lesson = Lesson(
            self.request, self.config, self.old, self.old_run, self.past, self.fresh, data,
            self.folder, self.progress,
        )  # fmt: skip
        began = time.perf_counter()
        if not self.request.trains:
            solve(lesson, grown)
            run.update(stages=[], best_stage="", plan={"name": "streaming", "stages": []})
            return []
        with guard(run, grown):
            plan, result = learn(lesson, grown)
        run.update(plan=plan.to_dict())
        record_training(run, result, {"training": time.perf_counter() - began})
        return result.history

    def _measure(self, grown: keras.Model, data: Splits, rows: list[kept.Row]) -> dict[str, Any]:
        samples = data.test if data.test is not None and _spans(data.test, data) else data.val
        tasks = {row.digest: row.task for row in rows}
        pool = Pool(samples, np.array([tasks[key] for key in samples.keys], np.int64))
        before, after = predict(self.old, samples), predict(grown, samples)
        scored = Scored(pool, before, after, int(before.shape[1]))
        return measured(scored, self.newest, self.old_run.record)

    def _plots(self, run: RunDirectory) -> dict[str, Path]:
        from tl_keras.reports.figures import plot_update

        return {"update": plot_update(run.record["update"], self.folder / "plots" / "update.png")}


def _spans(test: Samples, data: Splits) -> bool:
    """Whether the test split has every class that validation has."""
    return set(np.unique(data.val.labels)) <= set(np.unique(test.labels))
