"""Callbacks for a `model.fit` of your own."""

from __future__ import annotations

import math
from typing import Any

import keras

from tl_keras.errors import PlanError, TrainingError
from tl_keras.models import graph
from tl_keras.training import freezing
from tl_keras.training.optimizers import LayerwiseAdamW, depth_factors
from tl_keras.training.plan import Plan, Stage, named_plan
from tl_keras.training.schedules import warmup_cosine

__all__ = ["StagedUnfreezing", "StopOnNaN"]


class StopOnNaN(keras.callbacks.Callback):
    """Ends training at the first step whose loss is not a number."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss.

        Raises:
            TrainingError: It is NaN or infinite.
        """
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            rate = float(self.model.optimizer.learning_rate)
            raise TrainingError(
                f"the loss is {loss} at step {batch + 1} with a rate of {rate:.2g}; expected a "
                f"number. Try a rate of {rate / 10:.1g}, or find one with lr-find"
            )


class StagedUnfreezing(keras.callbacks.Callback):
    """Goes through a plan's stages inside one `model.fit`, keeping the optimizer's moments.

    Setting `layer.trainable` during `fit` has no effect by itself, because the traced step
    keeps the variables it was traced with. At the start of training this callback lets the
    optimizer build its slots for every variable that any stage trains; at a stage's first
    epoch it sets the flags and has the step traced anew. Rates follow warm-up and cosine
    within each stage; rates that fall with depth need
    :class:`tl_keras.training.optimizers.LayerwiseAdamW`.

    Use it with `model.fit(..., epochs=plan.epochs, callbacks=[StagedUnfreezing(plan)])` on a
    compiled model. It can be used again for another `fit`. The compiled metrics and loss are
    untouched. `patience` and `ema` of the plan are not used here: add
    `keras.callbacks.EarlyStopping` and the optimizer's `use_ema` as you like.

    Args:
        plan: A plan or the name of one.
        verbose: 1 prints a line at each stage's start.

    Raises:
        PlanError: The name is unknown; at the start of training, when a selector matches no
            layer, or the optimizer was built for other variables.
    """

    def __init__(self, plan: Plan | str, verbose: int = 0) -> None:
        super().__init__()
        self.plan = named_plan(plan) if isinstance(plan, str) else plan
        self.verbose = verbose
        self.stage: Stage | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Let the optimizer know every variable that a stage trains."""
        self.stage, self._step = None, 0
        for stage in self.plan.stages:
            freezing.freeze(self.model, stage.train, batchnorm=stage.batchnorm)
        self._build_optimizer()

    def _build_optimizer(self) -> None:
        names = set()
        for stage in self.plan.stages:
            names |= set(freezing.freeze(self.model, stage.train, batchnorm=stage.batchnorm))
        for layer in self.model.layers:
            layer.trainable = layer.name in names
        optimizer = self.model.optimizer
        if optimizer.built and len(optimizer._trainable_variables) < len(
            self.model.trainable_variables
        ):
            raise PlanError(
                "the optimizer was built for fewer variables than the plan trains; compile the "
                "model again before this fit"
            )
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the stage that this epoch belongs to, if it is a new one."""
        stage, first = self._stage_at(epoch)
        self._stage_epoch = epoch - first
        if stage is self.stage:
            return
        self.stage, self._step = stage, 0
        learning = freezing.freeze(self.model, stage.train, batchnorm=stage.batchnorm)
        if isinstance(self.model.optimizer, LayerwiseAdamW):
            self.model.optimizer.factors = depth_factors(graph.blocks(self.model), stage.decay)
        self.model.make_train_function(force=True)
        if self.verbose:
            rate = stage.learning_rate
            print(f"stage '{stage.name}': {len(learning)} layers learn, rate {rate:g}")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set this step's rate."""
        if self.stage is None:
            return
        per_epoch = self.params.get("steps") or 0
        steps = max(1, per_epoch * self.stage.epochs)
        at = self._stage_epoch * per_epoch + batch
        rate = (
            warmup_cosine(at, steps, self.stage.learning_rate, self.stage.warmup)
            if per_epoch
            else self.stage.learning_rate
        )
        self.model.optimizer.learning_rate = rate

    def _stage_at(self, epoch: int) -> tuple[Stage, int]:
        first = 0
        for stage in self.plan.stages:
            if epoch < first + stage.epochs:
                return stage, first
            first += stage.epochs
        return self.plan.stages[-1], first - self.plan.stages[-1].epochs
