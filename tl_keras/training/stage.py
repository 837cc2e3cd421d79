"""Trains one stage: compile, fit, keep the best weights, leave what resuming needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_keras.features.backends import prefix_function
from tl_keras.training.batches import Epochs, Fetch, batches
from tl_keras.training.batchnorm import follow_training
from tl_keras.training.callbacks import StopOnNaN
from tl_keras.training.checkpoint import (
    assign,
    model_variables,
    read_snapshot,
    values,
    write_snapshot,
)
from tl_keras.training.objective import Objective
from tl_keras.training.optimizers import LayerwiseAdamW, warmup_cosine
from tl_keras.training.plan import Plan, Stage

__all__ = ["StageData", "StageTrainer"]


@dataclass(frozen=True)
class StageData:
    """What a stage's model is fed with.

    Attributes:
        train: Fetches (inputs, targets, weights) of training samples.
        val: Fetches (inputs, targets) of validation samples.
        rows: Training samples.
        val_rows: Validation samples; may be 0.
        spec: Shapes and dtypes of what `train` fetches.
        val_spec: Shapes and dtypes of what `val` fetches.
        val_batch_size: Samples a validation batch.
    """

    train: Fetch
    val: Fetch
    rows: int
    val_rows: int
    spec: tuple[Any, ...]
    val_spec: tuple[Any, ...]
    val_batch_size: int


@dataclass
class StageTrainer:
    """Trains a suffix through a stage, from its start or from a snapshot.

    Attributes:
        suffix: The part that learns, as its objective has it compiled; its `trainable` flags
            are set.
        stage: What to do.
        plan: What holds for all stages.
        objective: Loss and metrics.
        data: What to feed.
        seed: Decides the order of the samples.
        factors: Factors on the rate by layer.
        snapshot: Where to keep what resuming needs, or None.
        save_every: Least seconds between snapshots.
        callbacks: More callbacks, such as a progress bar's.
    """

    suffix: keras.Model
    stage: Stage
    plan: Plan
    objective: Objective
    data: StageData
    seed: int
    factors: dict[str, float]
    snapshot: Path | None = None
    save_every: float = 5.0
    callbacks: tuple[Any, ...] = ()
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: list[np.ndarray] | None = None

    def run(self, tag: dict[str, Any]) -> list[dict[str, Any]]:
        """Train; afterwards the suffix holds the best epoch's weights.

        Args:
            tag: Facts that a snapshot carries; one with another tag is not used.

        Returns:
            A row for each epoch of this stage.

        Raises:
            TrainingError: The loss is not a number. The suffix then holds the best weights
                so far, or those of the stage's start.
            DataError: A sample can no longer be read.
        """
        self.tag = tag
        self.compile()
        start = values(self._kept())
        first = self._restore()
        try:
            if first < self.stage.epochs and not self._out_of_patience():
                self._fit(first)
        except tf.errors.OpError:
            for fetch in (self.data.train, self.data.val):
                cause = getattr(fetch, "error", None)
                if cause is not None:
                    raise cause from None
            raise
        finally:
            assign(self._kept(), self.best if self.best is not None else start)
        return self.rows

    def train_once(self) -> None:
        """Train the compiled suffix through the stage; it holds the last epoch's weights then."""
        snapshot, kept = self.snapshot, (self.rows, self.best)
        self.snapshot, self.rows, self.best = None, [], None
        try:
            self._fit(0)
        finally:
            self.snapshot, (self.rows, self.best) = snapshot, kept

    def _kept(self) -> list[Any]:
        return model_variables(self.suffix)

    def compile(self) -> None:
        """Compile the suffix for this stage."""
        steps = Epochs(self.data.rows, self.plan.batch_size).steps
        loss, metrics = self.objective.compiled()
        optimizer = LayerwiseAdamW(
            self.stage.learning_rate,
            self.factors,
            weight_decay=self.plan.weight_decay,
            use_ema=self.plan.ema,
            ema_momentum=min(0.999, max(0.9, 1 - 1 / steps)),
            ema_overwrite_frequency=None,
        )
        # XLA on a CPU runs depthwise convolutions several times slower than TensorFlow does.
        jit = "auto" if _has_gpu() else False
        self.suffix.compile(optimizer, loss, metrics=metrics, jit_compile=jit)
        optimizer.build(self.suffix.trainable_variables)

    def _restore(self) -> int:
        saved = read_snapshot(self.snapshot) if self.snapshot else None
        if saved is None or saved[0]["tag"] != self.tag:
            return 0
        meta, groups = saved
        assign(self._kept(), groups["weights"])
        assign(self.suffix.optimizer.variables, groups["optimizer"])
        self.best, self.rows = groups.get("best"), meta["rows"]
        return len(self.rows)

    def _fit(self, first: int) -> None:
        epochs = Epochs(self.data.rows, self.plan.batch_size, self.seed, first, self.stage.epochs)
        val = Epochs(self.data.val_rows, self.data.val_batch_size)
        val_data = (
            batches(self.data.val, self.data.val_spec, val) if self.data.val_rows else None)
        with follow_training(self.suffix, epochs.steps):
            self.suffix.fit(
                batches(self.data.train, self.data.spec, epochs),
                steps_per_epoch=epochs.steps,
                initial_epoch=first,
                epochs=self.stage.epochs,
                validation_data=val_data,
                callbacks=[_StageCallback(self, epochs.steps), StopOnNaN(), *self.callbacks],
                verbose=0,
                shuffle=False,
            )

    def val_losses(self) -> np.ndarray:
        """Return the loss of each validation sample, float64 (n,); of none, n is 0."""
        predict = prefix_function(self.suffix, "float32")
        losses = [np.zeros(0)]
        for first in range(0, self.data.val_rows, self.data.val_batch_size):
            last = min(first + self.data.val_batch_size, self.data.val_rows)
            inputs, targets = self.data.val(0, np.arange(first, last))
            outputs = self.objective.predictions(predict(inputs)[0])
            losses.append(self.objective.task.sample_losses(outputs, targets))
        return np.concatenate(losses)

    def best_row(self) -> dict[str, Any] | None:
        """Return the row of the best epoch so far."""
        return min(self.rows, key=score, default=None)

    def _out_of_patience(self) -> bool:
        best = self.best_row()
        waited = len(self.rows) - 1 - self.rows.index(best) if best else 0
        return bool(self.stage.patience) and waited >= self.stage.patience

    def end_epoch(self, row: dict[str, Any], weights: Callable[[], list[np.ndarray]]) -> bool:
        """Take an epoch's row; return whether the stage should stop here."""
        self.rows.append(row)
        # What was chosen on folds is trained to its end there.
        last = bool(self.stage.factors) or self.best_row() is row
        if last and np.isfinite(score(row)):
            self.best = weights()
        return self._out_of_patience()

    def save(self) -> None:
        """Write the snapshot."""
        if self.snapshot is None:
            return
        write_snapshot(
            self.snapshot,
            {"tag": self.tag, "rows": self.rows},
            weights=values(self._kept()),
            optimizer=values(self.suffix.optimizer.variables),
            best=self.best or [],
        )


def score(row: dict[str, Any]) -> float:
    """Return what the best epoch has least of: the validation loss, else the training loss."""
    value = row["val_loss"] if row.get("val_loss") is not None else row["loss"]
    return value if np.isfinite(value) else float("inf")


class _StageCallback(keras.callbacks.Callback):
    """Sets rates, averages weights for validation, records epochs, writes snapshots."""

    def __init__(self, trainer: StageTrainer, steps: int) -> None:
        super().__init__()
        self.trainer, self.steps = trainer, steps
        self.averaged: list[np.ndarray] | None = None
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch, self.began, self.averaged = epoch, time.perf_counter(), None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        stage = self.trainer.stage
        at = self.epoch * self.steps + batch
        steps = self.steps * stage.epochs
        self.rate = warmup_cosine(at, steps, stage.learning_rate, stage.warmup)
        self.model.optimizer.learning_rate = self.rate

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.trainer.plan.ema:
            return
        self.raw = values(self.model.trainable_variables)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.averaged = values(model_variables(self.model))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.averaged is not None:
            assign(self.model.trainable_variables, self.raw)

    def _weights(self) -> list[np.ndarray]:
        return self.averaged if self.averaged is not None else values(model_variables(self.model))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        row = {
            "stage": self.trainer.stage.name,
            "stage_epoch": epoch,
            "learning_rate": self.rate,
            "loss": _number(logs.get("loss")),
            "accuracy": _number(logs.get("accuracy")),
            "val_loss": _number(logs.get("val_plain_loss")),
            "val_accuracy": _number(logs.get("val_accuracy")),
            "seconds": round(time.perf_counter() - self.began, 3),
        }
        self.model.stop_training = self.trainer.end_epoch(row, self._weights)
        if time.monotonic() - self.saved >= self.trainer.save_every:
            self.trainer.save()
            self.saved = time.monotonic()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
