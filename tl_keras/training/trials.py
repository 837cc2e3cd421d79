"""Chooses how a stage is trained, on folds: how fast, and how far from where it began.

Each trial trains the stage's layers on a part of the samples, from the head that was solved on
that part, and is judged on the samples left out. Between the weights it began with and those it
ended with lie others, often better than both (WiSE-FT, Wortsman et al., arXiv 2109.01903); how
far to go is chosen by the same samples. Nothing is kept that is not better there than the head
alone.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import TrainingError
from tl_keras.features.backends import prefix_function
from tl_keras.training.checkpoint import (
    assign,
    model_variables,
    read_snapshot,
    values,
    write_snapshot,
)
from tl_keras.training.model_selection import interpolate, judge
from tl_keras.training.plan import stage_epochs

if TYPE_CHECKING:
    from tl_keras.training.solved_head import SolvedHead
    from tl_keras.training.stage import StageData, StageTrainer

__all__ = ["ALPHAS", "Choice", "Folded", "choose"]

ALPHAS = (0.25, 0.5, 0.75, 1.0)
_EARLY = 2
"""Folds on which every learning rate is tried; the best goes on to the others."""


@dataclass(frozen=True, eq=False)
class Folded:
    """What a stage is tried on.

    Attributes:
        folds: Rows to learn from and rows to judge by, int64 each.
        head: The solved head, of all samples and of each fold.
        labels: Of the rows, as the task has them; the judged ones may be validation's.
        targets: Float32 (n, outputs).
        weights: Float32 (n,).
        plain: Fetches the inputs of rows as they are, not augmented.
        task: The task.
    """

    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    head: SolvedHead
    labels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    plain: Callable[[np.ndarray], Any]
    task: Any


@dataclass(eq=False)
class Choice:
    """How to train a stage.

    Attributes:
        factor: On the learning rate.
        alpha: How far to go from the weights before the stage, 0 (not at all) to 1.
        tried: What was tried: factor, alpha, folds, loss, accuracy.
        rows: Which samples were judged, int64; of no trial the head's.
        outputs: What was said of them by what had not seen them, float32 (rows, outputs).
        seconds: What the trials took.
        note: What cut them short.
    """

    factor: float
    alpha: float
    tried: list[dict[str, Any]] = field(default_factory=list)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    outputs: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    seconds: float = 0.0
    note: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what is JSON-able."""
        return {
            "factor": self.factor, "alpha": self.alpha, "tried": self.tried,
            "seconds": round(self.seconds, 2), "note": self.note,
        }  # fmt: skip


def choose(
    trainer: StageTrainer,
    folded: Folded,
    head: Any,
    folder: Path,
    *,
    minutes: float | None = None,
    spent: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> Choice:
    """Try a stage's factors on folds, and say which factor and how far is best.

    Every factor is tried on two folds, the best of them on the others, and all points between
    the head alone and the trained weights are compared there. Trials that were made before a
    run was stopped are read from the folder.

    Args:
        trainer: Trains the stage; its model is as the stage begins.
        folded: What to try on.
        head: The dense layer that the head was solved for.
        folder: Keeps what trials gave.
        minutes: That the plan may take; None is no limit. A first trial is made all the same where
            any time is left, and the stage itself is never cut short.
        spent: Seconds that were spent on the plan before.
        progress: Called with trials done and of how many.
    """
    runner = _Runner(trainer, folded, head, folder)
    factors, folds = trainer.stage.factors, range(len(folded.folds))
    early = list(folds)[:_EARLY]
    first = [(factor, fold) for fold in early for factor in factors]
    count = len(first) + len(folds) - len(early)
    done: list[tuple[float, int]] = []
    note = ""

    def go_on(trials: Sequence[tuple[float, int]]) -> str:
        for factor, fold in trials:
            if minutes is not None and spent + runner.seconds + 2.2 * runner.longest > 60 * minutes:
                return f"{minutes:g} minutes were over after {len(done)} of {count} trials"
            runner.run(factor, fold)
            done.append((factor, fold))
            progress(len(done), count)
        return ""

    note = go_on(first)
    if not note:
        best = _compare(runner, factors, early)[0]["factor"]
        note = go_on([(best, fold) for fold in folds if fold not in early])
    return _decide(runner, done, note)


def _decide(runner: _Runner, done: list[tuple[float, int]], note: str) -> Choice:
    folded = runner.folded
    if not done:
        rows = np.concatenate([held for _, held in folded.folds])
        return Choice(1.0, 0.0, [], rows, folded.head.outputs[rows], runner.seconds, note)
    by_factor = {
        factor: [fold for one, fold in done if one == factor] for factor in {f for f, _ in done}
    }
    common = sorted(set.intersection(*(set(folds) for folds in by_factor.values())))
    tried = _compare(runner, list(by_factor), common)
    factor = tried[0]["factor"]
    folds = sorted(by_factor[factor])
    final = _compare(runner, [factor], folds)
    alone = _score(runner, folds, None, 0.0)
    better = [
        one
        for one in final
        if one["loss"] < alone["loss"]
        and (one["accuracy"] is None or one["accuracy"] > alone["accuracy"] - 1.5 / one["images"])
    ]
    alpha = better[0]["alpha"] if better else 0.0
    rows = np.concatenate([folded.folds[fold][1] for fold in folds])
    outputs = runner.outputs(folds, factor if alpha else None, alpha)
    told = [alone, *final, *(one for one in tried if one["factor"] != factor)]
    return Choice(factor, alpha, told, rows, outputs, runner.seconds, note)


def _compare(
    runner: _Runner, factors: Sequence[float], folds: Sequence[int]
) -> list[dict[str, Any]]:
    scores = [_score(runner, folds, factor, alpha) for factor in factors for alpha in ALPHAS]
    return sorted(scores, key=lambda one: one["loss"])


def _score(
    runner: _Runner, folds: Sequence[int], factor: float | None, alpha: float
) -> dict[str, Any]:
    folded = runner.folded
    rows = np.concatenate([folded.folds[fold][1] for fold in folds])
    outputs = runner.outputs(folds, factor, alpha)
    if np.isfinite(outputs).all():
        loss, accuracy = judge(
            folded.task, outputs, folded.labels[rows], folded.targets[rows], folded.weights[rows]
        )
    else:  # a rate under which the loss grew without end
        loss, accuracy = float("inf"), 0.0
    return {
        "factor": factor, "alpha": alpha, "folds": len(folds), "images": len(rows),
        "loss": loss, "accuracy": accuracy,
    }  # fmt: skip


class _Runner:
    """Makes trials with one compiled model, and keeps what they gave."""

    def __init__(self, trainer: StageTrainer, folded: Folded, head: Any, folder: Path) -> None:
        self.trainer, self.folded, self.head, self.folder = trainer, folded, head, folder
        self.stage, self.data = trainer.stage, trainer.data
        self.begin = values(model_variables(trainer.suffix))
        self.found: dict[tuple[float, int], list[np.ndarray]] = {}
        self.seconds = self.longest = 0.0
        self.ready = False

    def outputs(self, folds: Sequence[int], factor: float | None, alpha: float) -> np.ndarray:
        if factor is None:
            held = np.concatenate([self.folded.folds[fold][1] for fold in folds])
            return self.folded.head.outputs[held]
        return np.concatenate([self.found[factor, fold][ALPHAS.index(alpha)] for fold in folds])

    def run(self, factor: float, fold: int) -> None:
        """Make a trial, or read what it gave before."""
        path = self.folder / f"trial-{factor:g}-{fold}.npz"
        kept = read_snapshot(path)
        if kept is None:
            began = time.monotonic()
            found = self._train(factor, fold)
            facts = {"seconds": time.monotonic() - began}
            write_snapshot(path, json.loads(json.dumps(facts)), outputs=found)
        else:
            facts, found = kept[0], kept[1]["outputs"]
        self.found[factor, fold] = found
        self.seconds += facts["seconds"]
        self.longest = max(self.longest, facts["seconds"])

    def _train(self, factor: float, fold: int) -> list[np.ndarray]:
        trainer, (rows, held) = self.trainer, self.folded.folds[fold]
        suffix = trainer.suffix
        if not self.ready:
            trainer.compile()
            self.optimizer = values(suffix.optimizer.variables)
            self.predict = prefix_function(suffix, "float32")
            self.ready = True
        assign(model_variables(suffix), self.begin)
        assign(suffix.optimizer.variables, self.optimizer)
        self.head.set_weights(self.folded.head.folded[fold])
        first = values(suffix.trainable_variables)
        batch = trainer.plan.batch_size
        trainer.stage = dataclasses.replace(
            self.stage,
            learning_rate=self.stage.learning_rate * factor,
            epochs=stage_epochs(self.stage.epochs, self.stage.steps, len(rows), batch),
        )
        trainer.data = _only(self.data, rows)
        try:
            try:
                trainer.train_once()
            except TrainingError:
                nothing = np.full((len(held), *self.folded.head.outputs.shape[1:]), np.nan)
                return [nothing.astype(np.float32)] * len(ALPHAS)
            last = values(suffix.trainable_variables)
            given = []
            for alpha in ALPHAS:
                assign(suffix.trainable_variables, interpolate(first, last, alpha))
                given.append(self._ask(held))
            return given
        finally:
            trainer.stage, trainer.data = self.stage, self.data
            assign(model_variables(suffix), self.begin)

    def _ask(self, rows: np.ndarray) -> np.ndarray:
        size = self.data.val_batch_size
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        return np.concatenate([self.predict(self.folded.plain(part))[0] for part in parts])


def _only(data: StageData, rows: np.ndarray) -> StageData:
    """The same data of some of its training rows, without validation."""

    def fetch(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        return data.train(epoch, rows[indices])

    return dataclasses.replace(data, train=fetch, rows=len(rows), val_rows=0)
