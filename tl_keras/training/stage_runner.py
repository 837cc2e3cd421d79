"""Runs a plan's stages: cut, cache, solve or fit, record, and go on where it stopped."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.data.splits import Splits
from tl_keras.errors import PlanError, RunError
from tl_keras.features.stage_cache import Cut, FeatureStore, plan_cuts
from tl_keras.models import graph
from tl_keras.training import freezing
from tl_keras.training.batches import read_inputs
from tl_keras.training.checkpoint import (
    assign,
    model_variables,
    read_snapshot,
    values,
    write_snapshot,
)
from tl_keras.training.config import FitOptions, FitResult
from tl_keras.training.model_selection import (
    average,
    clearly_better,
    interpolate,
    judge,
    lower,
)
from tl_keras.training.objective import Objective
from tl_keras.training.optimizers import depth_factors
from tl_keras.training.plan import Plan, stage_epochs
from tl_keras.training.solve_stage import (
    SOLVED_VIEWS,
    dense_layer,
    head_activation,
    solve_stage,
)
from tl_keras.training.stage import StageData, StageTrainer
from tl_keras.training.stage_data import cached_data, sample_data
from tl_keras.training.trials import Folded, choose
from tl_keras.utils.progress import Progress

__all__ = ["StageRunner"]

_CACHE_BYTES = 6 * 2**30


class StageRunner:
    """One run of a plan, stage by stage, with its state in `options.state_dir`."""

    def __init__(self, model: keras.Model, data: Splits, plan: Plan, options: FitOptions) -> None:
        self.model, self.data, self.plan, self.options = model, data, plan, options
        self.stages = list(plan.stages)
        self.folder = folder = Path(options.state_dir or ".")
        self.result = FitResult()
        self.cuts = self._find_cuts()
        self.objective = options.objective or Objective(data, plan)
        self.store = FeatureStore(
            model,
            self._affordable_views(),
            plan.cache_dtype,
            self.cuts,
            folder / "features",
            self.objective.reader(model, options.seed),
            data.val.reader(model),
            options.precision,
            options.progress,
        )

    def _affordable_views(self) -> int:
        """The plan's views; where speeds are tried on folds, as many as a small disk can take."""
        wide = max((math.prod(cut.shape) for cut in self.cuts if cut.layer), default=0)
        if not wide or not any(stage.factors for stage in self.plan.stages):
            return self.plan.views
        each = wide * len(self.data.train) * (4 if self.plan.cache_dtype == "float32" else 2)
        return max(2, min(self.plan.views, _CACHE_BYTES // max(each, 1)))

    def _find_cuts(self) -> list[Cut]:
        layers = []
        for stage in self.plan.stages:
            freezing.freeze(self.model, stage.train, batchnorm=stage.batchnorm)
            layers.append(freezing.last_frozen_cut(self.model))
        return plan_cuts(self.model, layers)

    def run(self) -> FitResult:
        """Run what is left of the plan."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for index in range(self._restore(), len(self.plan.stages)):
            self._run_stage(index)
        self._restore_best()
        for epoch, row in enumerate(self.result.history):
            row["epoch"] = epoch
        self.result.engine = self.store.engine
        return self.result

    def _identity(self) -> dict[str, Any]:
        return {
            "plan": self.plan.to_dict(),
            "seed": self.options.seed,
            "fingerprint": self.options.fingerprint,
            **self.objective.identity(),
        }

    def _restore(self) -> int:
        saved = read_snapshot(self.folder / "start.npz")
        if saved is None:
            self._begin_stage(0)
            return 0
        meta, groups = saved
        # Through JSON, because that is what the state went through.
        if meta["identity"] != _through_json(self._identity()):
            raise RunError(
                f"{self.folder} holds the state of another plan, seed or data; expected the "
                "ones it was begun with. Choose another folder for a new run"
            )
        assign(model_variables(self.model), groups["weights"])
        self.result.history, self.result.stages = meta["history"], meta["stages"]
        if "out_of_fold" in groups:
            rows, outputs = groups["out_of_fold"]
            self.result.out_of_fold = (rows, outputs)
        return int(meta["stage"])

    def _begin_stage(self, index: int) -> None:
        meta = {
            "identity": self._identity(),
            "stage": index,
            "history": self.result.history,
            "stages": self.result.stages,
        }
        weights = values(model_variables(self.model))
        found = {"out_of_fold": self.result.out_of_fold} if self.result.out_of_fold else {}
        write_snapshot(self.folder / "start.npz", meta, weights=weights, **found)

    def _run_stage(self, index: int) -> None:
        began = time.perf_counter()
        if self.stages[index].solve:
            self._solve(index, began)
        elif self.stages[index].factors:
            self._train_chosen(index, began)
        else:
            trainer = self.trainer(index)
            rows = trainer.run({"stage": index})
            self._note(index, rows, trainer.best_row(), began)
            self._keep_if_better(trainer)
        self._begin_stage(index + 1)
        self.store.forget(index)

    def _solve(self, index: int, began: float) -> None:
        """Set the head to its optimum, its strength and views chosen on folds."""
        suffix = self._suffix(index)
        found = self.folded = self._solved(index, suffix)
        dense_layer(suffix).set_weights(list(found.head.weights))
        task = self.objective.task
        rows = np.concatenate([held for _, held in found.folds])
        outputs, targets = found.head.outputs[rows], found.targets[rows]
        loss, accuracy = judge(task, outputs, found.labels[rows], targets, found.weights[rows])
        row = {
            "stage": self.stages[index].name, "stage_epoch": 0, "learning_rate": None,
            "loss": None, "accuracy": None, "val_loss": loss, "val_accuracy": accuracy,
            "seconds": round(time.perf_counter() - began, 3),
        }  # fmt: skip
        strength = {"strength": found.head.strength, "tried": found.head.tried}
        self._note(index, [row], row, began, solved=strength)
        self._tell(rows, outputs)
        losses = task.sample_losses(outputs, targets) if len(self.data.val) else np.zeros(0)
        self._keep(self.stages[index].name, self.stages[index].name, losses)

    def _solved(self, index: int, suffix: keras.Model) -> Folded:
        head_activation(suffix)
        views, val = self.store.arrays(index, SOLVED_VIEWS)
        return solve_stage(suffix, self.objective, views, val, self.options.seed)

    def _tell(self, rows: np.ndarray, outputs: np.ndarray) -> None:
        """Keep what was said of samples by what had not seen them, unless they are validation's."""
        if len(self.data.val):
            return
        if self.objective.scale is not None:
            outputs = outputs * self.objective.scale.spread + self.objective.scale.mean
        self.result.out_of_fold = (rows, outputs.astype(np.float32))

    def _train_chosen(self, index: int, began: float) -> None:
        """Train a stage as fast, and go as far, as was best on folds."""
        folded = self._folded(index)
        stage, plan = self.stages[index], self.plan
        self._begin_at(index)
        trainer = self.trainer(index)
        choice = choose(
            trainer,
            dataclasses.replace(folded, plain=self._plain(index)),
            dense_layer(trainer.suffix),
            self.folder / "trials",
            minutes=self.options.minutes,
            spent=self._seconds_spent(began),
            progress=functools.partial(self.options.progress, f"trials of stage {stage.name}"),
        )
        rows: list[dict[str, Any]] = []
        if choice.alpha:
            epochs = stage_epochs(stage.epochs, stage.steps, len(self.data.train), plan.batch_size)
            self.stages[index] = dataclasses.replace(
                stage, learning_rate=stage.learning_rate * choice.factor, epochs=epochs
            )
            trainer = self.trainer(index)
            variables = list(trainer.suffix.trainable_variables)
            first = values(variables)
            rows = trainer.run({"stage": index})
            assign(variables, interpolate(first, values(variables), choice.alpha))
        self._note(index, rows, rows[-1] if rows else None, began, choice=choice.facts())
        self._tell(choice.rows, choice.outputs)
        name = stage.name if choice.alpha else self.stages[0].name
        self._keep(name, stage.name, trainer.val_losses())

    def _folded(self, index: int) -> Folded:
        """What the head's stage left; solved once more where the run went on after it."""
        if not hasattr(self, "folded"):
            solved = next((i for i in range(index) if self.stages[i].solve), None)
            if solved is None:
                raise PlanError(
                    f"stage '{self.stages[index].name}' tries factors on folds, which needs a "
                    "stage before it that solves the head"
                )
            self.folded = self._solved(solved, self._suffix(solved))
        return self.folded

    def _begin_at(self, index: int) -> None:
        """Let the model stand where its stage began, whatever was done since."""
        saved = read_snapshot(self.folder / "start.npz")
        if saved is not None:
            assign(model_variables(self.model), saved[1]["weights"])

    def _seconds_spent(self, began: float) -> float:
        """Seconds of the stages before and, since it began, of this one's features."""
        before = sum(stage["seconds"] for stage in self.result.stages)
        return before + time.perf_counter() - began

    def _plain(self, index: int) -> Callable[[np.ndarray], Any]:
        """What fetches training samples, and validation's after them, as they are."""
        count, cut = len(self.data.train), self.cuts[index]
        if cut.layer:
            views, val = self.store.arrays(index)
            sides: tuple[Any, Any] = views[0], val
        else:
            readers = self.store.train, self.store.val

        def fetch(rows: np.ndarray) -> Any:
            if cut.layer:
                parts = [sides[0][rows[rows < count]], sides[1][rows[rows >= count] - count]]
                return np.asarray(np.concatenate(parts), np.float32)
            own, held = rows[rows < count], rows[rows >= count] - count
            return read_inputs(readers[0], own) if len(own) else read_inputs(readers[1], held)

        return fetch

    def _note(
        self,
        index: int,
        rows: list[dict[str, Any]],
        best: dict[str, Any] | None,
        began: float,
        **more: Any,
    ) -> None:
        """Tell of a stage that came to its end."""
        stage, best = self.stages[index], best or {}
        self.result.history += rows
        self.result.stages.append(
            {
                "name": stage.name,
                "train": list(stage.train),
                "trainable_parameters": _count(self.model),
                "cut": self.cuts[index].layer,
                "views": self.store.views if self.cuts[index].layer else len(rows),
                "epochs_run": len(rows),
                "best_epoch": best.get("stage_epoch"),
                "best_val_loss": best.get("val_loss"),
                "best_val_accuracy": best.get("val_accuracy"),
                "seconds": round(time.perf_counter() - began, 2),
                **more,
            }
        )

    def trainer(self, index: int) -> StageTrainer:
        """Return what trains a stage, its features computed."""
        stage = self.stages[index]
        return StageTrainer(
            self.objective.learner(self._suffix(index)),
            stage,
            self.plan,
            self.objective,
            self._stage_data(index),
            # Another order in each stage, and the same one whenever the stage runs.
            self.options.seed * 1000 + index,
            depth_factors(graph.blocks(self.model), stage.decay),
            self.folder / "epoch.npz",
            self.options.save_every,
            (_Progress(f"stage {stage.name}", stage.epochs, self.options.progress),),
        )

    def _suffix(self, index: int) -> keras.Model:
        """Return what learns in a stage, its `trainable` flags set."""
        stage, cut = self.stages[index], self.cuts[index]
        freezing.freeze(self.model, stage.train, batchnorm=stage.batchnorm)
        # Never the user's own object: compiled, it would carry our optimizer into what it saves.
        whole = keras.Model(graph.alone(self.model.inputs), self.model.outputs[0])
        return graph.split(self.model, cut.layer)[1] if cut.layer else whole

    def _stage_data(self, index: int) -> StageData:
        cut = self.cuts[index]
        if cut.layer:
            train, val = self.store.arrays(index)
            return cached_data(self.objective, train, val, cut.shape)
        return sample_data(self.objective, self.store.train, self.store.val)

    def _keep_if_better(self, trainer: StageTrainer) -> None:
        name, losses = trainer.stage.name, trainer.val_losses()
        kept = read_snapshot(self.folder / "best.npz")
        # A run that was killed right here has judged this stage before.
        if kept is not None and kept[0]["judged"] == name:
            return
        if kept is None or clearly_better(losses, kept[1]["losses"][0]):
            self._keep(name, name, losses)
        elif lower(losses, kept[1]["losses"][0]):
            self._keep_average(trainer, kept)

    def _keep(self, stage: str, judged: str, losses: np.ndarray) -> None:
        weights = values(model_variables(self.model))
        meta = {"stage": stage, "judged": judged}
        write_snapshot(self.folder / "best.npz", meta, weights=weights, losses=[losses])

    def _keep_average(self, trainer: StageTrainer, kept: Any) -> None:
        variables, old = model_variables(self.model), kept[1]["weights"]
        new, suffix = values(variables), {id(v) for v in model_variables(trainer.suffix)}
        # What lies before the cut is in the features, where it cannot be averaged.
        pairs = zip(variables, old, new, strict=True)
        if any(id(v) not in suffix and not np.array_equal(a, b) for v, a, b in pairs):
            return
        assign(variables, average(old, new))
        losses = trainer.val_losses()
        if lower(losses, kept[1]["losses"][0]):
            name = trainer.stage.name
            self._keep(f"{kept[0]['stage']} + {name}", name, losses)
        assign(variables, new)

    def _restore_best(self) -> None:
        saved = read_snapshot(self.folder / "best.npz")
        if saved is not None:
            assign(model_variables(self.model), saved[1]["weights"])
            self.result.best_stage = saved[0]["stage"]


class _Progress(keras.callbacks.Callback):
    def __init__(self, task: str, epochs: int, progress: Progress) -> None:
        super().__init__()
        self.task, self.epochs, self.progress = task, epochs, progress

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params["steps"]
        self.progress(self.task, self.epoch * steps + batch + 1, self.epochs * steps)


def _count(model: keras.Model) -> int:
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
