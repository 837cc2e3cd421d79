"""Callbacks for a `model.fit` of your own."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

import keras

from tl_keras.errors import PlanError, TrainingError
from tl_keras.models import graph
from tl_keras.models.rewrite import flat_view
from tl_keras.training import freezing
from tl_keras.training.batchnorm import follow_training
from tl_keras.training.optimizers import (
    LayerwiseAdamW,
    depth_factors,
    inner_optimizer,
    warmup_cosine,
)
from tl_keras.training.plan import Plan, Stage, named_plan

__all__ = ["StagedUnfreezing", "StopOnNaN"]

_LOG = logging.getLogger(__name__)


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
    keeps the variables it was traced with. Before training this callback lets the
    optimizer build its slots for every variable that any stage trains; at a stage's first
    epoch it sets the flags and has the step traced anew. Learning rates follow warm-up and
    cosine within each stage; rates that fall with depth need
    :class:`tl_keras.training.optimizers.LayerwiseAdamW`.

    Use it with `model.fit(..., epochs=plan.epochs, callbacks=[StagedUnfreezing(plan)])` on a
    compiled model; a `base(x)` or `Sequential([base, ...])` within it is seen layer by layer.
    Training ends with the plan where `fit` is told more epochs. It can be used again for
    another `fit`, and goes on from where `keras.callbacks.BackupAndRestore` resumes, in
    whichever order the two are listed. The compiled metrics and loss are untouched. `patience`
    and `ema` of the plan are not used here: add `keras.callbacks.EarlyStopping` and the
    optimizer's `use_ema` as you like.

    Args:
        plan: A plan or the name of one.
        verbose: 1 prints a line at each stage's start.
        steps_per_epoch: Batches an epoch, for a dataset that does not know how many it has.

    Raises:
        PlanError: The name is unknown; when training begins: a selector matches no layer, the
            optimizer was built for other variables or has a rate of its own kind, the length of
            an epoch is not known, several steps are run in one execution, or the first epoch
            lies behind the plan's last.
        ModelError: The model's graph cannot be read.
    """

    def __init__(
        self, plan: Plan | str, verbose: int = 0, *, steps_per_epoch: int | None = None
    ) -> None:
        super().__init__()
        self.plan = named_plan(plan) if isinstance(plan, str) else plan
        self.verbose = verbose
        self.steps_per_epoch = steps_per_epoch
        self.stage: Stage | None = None

    def set_model(self, model: keras.Model) -> None:
        """Let the optimizer know every variable that a stage trains.

        Here and not as training begins, for what resumes a run does so then, and can give back
        only those moments that the optimizer has slots for.
        """
        super().set_model(model)
        self.stage = None
        self._momenta = contextlib.ExitStack()
        self._view = flat_view(model)
        names = set()
        for stage in self.plan.stages:
            names |= set(self._freeze(stage))
        model.trainable = True
        for layer in self._view.model.layers:
            layer.trainable = layer.name in names
        self._view.share_flags()
        self._build_optimizer()

    def _freeze(self, stage: Stage) -> list[str]:
        # Flags of nested models hide those of their layers.
        self.model.trainable = True
        learning = freezing.freeze(self._view.model, stage.train, batchnorm=stage.batchnorm)
        self._view.share_flags()
        return learning

    def _build_optimizer(self) -> None:
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        known = {id(variable) for variable in optimizer._trainable_variables}
        if not all(id(variable) in known for variable in self.model.trainable_variables):
            raise PlanError(
                "the optimizer was built for fewer variables than the plan trains; compile the "
                "model again before this fit"
            )
        try:
            optimizer.learning_rate = self.plan.stages[0].learning_rate
        except (TypeError, AttributeError) as error:
            raise PlanError(
                "the optimizer has a schedule as its learning rate, and the plan sets the rate of "
                "each step; compile the model with a number, such as Adam(1e-3)"
            ) from error

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the plan can be followed."""
        self._steps = self.steps_per_epoch or self.params.get("steps")
        if not self._steps:
            raise PlanError(
                "the dataset does not say how many batches an epoch has, which rates that follow "
                "warm-up and cosine need; give StagedUnfreezing(plan, steps_per_epoch=N)"
            )
        if self.model.steps_per_execution != 1:
            raise PlanError(
                f"the model runs {self.model.steps_per_execution} steps in one execution, and the "
                "plan sets the rate of each step; compile it with steps_per_execution=1"
            )
        epochs = self.params.get("epochs", self.plan.epochs)
        if epochs != self.plan.epochs:
            _LOG.warning(
                "plan '%s' has %d epochs and fit was told %d; %s", self.plan.name,
                self.plan.epochs, epochs,
                "training ends with the plan" if epochs > self.plan.epochs
                else f"give fit epochs={self.plan.epochs} to go through all of its stages",
            )
        factored = isinstance(inner_optimizer(self.model.optimizer), LayerwiseAdamW)
        if not factored and any(stage.decay != 1 for stage in self.plan.stages):
            _LOG.warning(
                "plan '%s' has rates that fall with depth, which this optimizer cannot give; "
                "compile the model with tl_keras.LayerwiseAdamW()", self.plan.name)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the stage that this epoch belongs to, if it is a new one."""
        stage, self._stage_epoch = self._stage_at(epoch)
        if stage is self.stage:
            return
        self.stage = stage
        learning = self._freeze(stage)
        optimizer = inner_optimizer(self.model.optimizer)
        if isinstance(optimizer, LayerwiseAdamW):
            optimizer.factors = depth_factors(graph.blocks(self._view.model), stage.decay)
        self._momenta.close()
        self._momenta.enter_context(follow_training(self.model, self._steps))
        self.model.make_train_function(force=True)
        if self.verbose:
            rate = stage.learning_rate
            print(f"stage '{stage.name}': {len(learning)} layers learn, rate {rate:g}")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set this step's rate."""
        if self.stage is not None:
            steps, at = self._steps * self.stage.epochs, self._stage_epoch * self._steps + batch
            self.model.optimizer.learning_rate = warmup_cosine(
                at, steps, self.stage.learning_rate, self.stage.warmup)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """End training with the plan."""
        if epoch + 1 >= self.plan.epochs:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put back the momentum of BatchNorm that trained."""
        self._momenta.close()

    def _stage_at(self, epoch: int) -> tuple[Stage, int]:
        first = 0
        for stage in self.plan.stages:
            if epoch < first + stage.epochs:
                return stage, epoch - first
            first += stage.epochs
        raise PlanError(
            f"epoch {epoch + 1} lies behind the {first} epochs of plan '{self.plan.name}'; give "
            f"fit an initial_epoch below {first}, or the plan more epochs")
