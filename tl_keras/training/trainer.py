"""Fits a model through a plan: flat, on one or more devices, with scaled targets."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import ModelError, PlanError
from tl_keras.models import graph
from tl_keras.models.rewrite import flat_view
from tl_keras.training.config import FitOptions, FitResult
from tl_keras.training.objective import Objective
from tl_keras.training.plan import Plan, named_plan
from tl_keras.training.repeatable import repeatable
from tl_keras.training.scaling import scaled_output
from tl_keras.training.stage_runner import StageRunner

__all__ = ["fit", "fit_with"]


def fit(model: keras.Model, data: Splits, plan: Plan | str = "lp-ft", **options: Any) -> FitResult:
    """Train a model through a plan's stages; frozen layers are computed once per view.

    Each stage keeps its epoch with the least validation loss. The weights of a later stage are
    kept where its validation loss is lower by more than chance would explain (see
    :func:`tl_keras.training.model_selection.clearly_better`); where it is lower by less, the
    average of both stages' weights is kept if its loss is lower too. The model is changed in
    place.

    Args:
        model: A functional or built sequential model that takes what the samples' modality reads
            (images: RGB 0..255), such as :func:`tl_keras.models.build.build_model` makes. Models
            in it, as in `Sequential([base, pooling, Dense])`, are trained as if their layers
            stood in it.
        data: Training, validation and test samples; the test samples are not looked at.
        plan: A plan or the name of one.
        **options: Fields of :class:`FitOptions`.

    Raises:
        PlanError: The plan or an option makes no sense for this model.
        ModelError: The model's output does not fit the data.
        StorageError: The disk is full.
        TrainingError: The loss is not a number; the model holds its last good weights.
        RunError: `state_dir` belongs to another model or plan.
    """
    try:
        chosen = FitOptions(**options)
    except TypeError as error:
        raise PlanError(f"fit: {error}") from error
    return fit_with(model, data, plan, chosen)


def fit_with(
    model: keras.Model, data: Splits, plan: Plan | str, options: FitOptions
) -> FitResult:
    """Do what :func:`fit` does, with the options in one object."""
    view = flat_view(model)
    try:
        return _fit_flat(view.model, data, plan, options)
    finally:
        view.share_weights()


def _fit_flat(
    model: keras.Model, data: Splits, plan: Plan | str, options: FitOptions
) -> FitResult:
    if isinstance(plan, str):
        plan = named_plan(plan, blocks=len(graph.blocks(model)))
    _check_outputs(model, data.train)
    with contextlib.ExitStack() as stack:
        stack.enter_context(repeatable(options.seed))
        folder = options.state_dir or stack.enter_context(tempfile.TemporaryDirectory())
        replica = stack.enter_context(_on_devices(model, options.devices))
        objective = options.objective or Objective(data, plan)
        chosen = replace(options, state_dir=folder, objective=objective)
        try:
            with scaled_output(replica, objective.scale) as scale:
                objective.use_scale(scale)
                return StageRunner(replica, data, plan, chosen).run()
        finally:
            if replica is not model:
                model.set_weights(replica.get_weights())


def _check_outputs(model: keras.Model, samples: Samples) -> None:
    expected = len(samples.class_names)
    got = model.output_shape[-1]
    if got != expected:
        raise ModelError(
            f"the model has {got} outputs and the data {expected} ({samples.task}: "
            f"{', '.join(samples.class_names[:5])} ...); build the model with outputs={expected}"
        )


@contextlib.contextmanager
def _on_devices(model: keras.Model, devices: int) -> Iterator[keras.Model]:
    if devices == 1:
        yield model
        return
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise PlanError(f"{devices} devices asked for and {len(found)} found; use devices=1")
    strategy = tf.distribute.MirroredStrategy([device.name for device in found[:devices]])
    with strategy.scope():
        replica = keras.models.clone_model(model)
        replica.set_weights(model.get_weights())
        yield replica
