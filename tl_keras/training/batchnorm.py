"""Keeps BatchNorm's statistics fit to be used: in short training, and on images of a new kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.errors import DataError, ModelError
from tl_keras.features.backends import Batch, pack_inputs

if TYPE_CHECKING:
    import keras

__all__ = ["follow_training", "norms_of", "reestimate"]

PRIOR = 16


def reestimate(model: keras.Model, batches: Iterable[Batch], prior: int = PRIOR) -> int:
    """Set BatchNorm's moving statistics to what new images give; no label is needed.

    Li et al., 'Revisiting batch normalization for practical domain adaptation'
    (arXiv 1603.04779), with the weight that Schneider et al., 'Improving robustness against
    common corruptions by covariate shift adaptation' (NeurIPS 2020, arXiv 2006.16971), leave
    to the old statistics: as much as `prior` images of the known kind.

    Args:
        model: Changed in place; nothing but the moving statistics changes.
        batches: What the model takes, each best of 32 samples or more.
        prior: Images that the old statistics count for, 0 or more.

    Returns:
        How many layers were measured.

    Raises:
        ModelError: The model has no BatchNorm.
        DataError: There is no batch.
    """
    norms = norms_of(model)
    if not norms:
        raise ModelError(
            f"'{model.name}' has no BatchNorm whose statistics could be measured anew; take "
            "the remedy lp-ft or first-block"
        )
    before = [_statistics(norm) for norm in norms]
    with _measuring(model, norms):
        count = _measure(model, norms, batches)
    if not count:
        raise DataError("there is no image to measure BatchNorm's statistics on")
    old = prior / (prior + count)
    for norm, (mean, variance) in zip(norms, before, strict=True):
        new_mean, new_variance = _statistics(norm)
        norm.moving_mean.assign(old * mean + (1 - old) * new_mean)
        norm.moving_variance.assign(old * variance + (1 - old) * new_variance)
    return len(norms)


def norms_of(layer: keras.Layer) -> list[keras.layers.BatchNormalization]:
    """Return the BatchNorm layers of a model or layer, those within nested ones too."""
    import keras

    kind = keras.layers.BatchNormalization
    return [one for one in layer._flatten_layers() if isinstance(one, kind)]


@contextlib.contextmanager
def follow_training(model: keras.Model, steps: int) -> Iterator[None]:
    """Let the statistics of BatchNorm that trains follow its weights, and put momenta back.

    Moving averages over a thousand steps and more (momentum 0.999 in MobileNet, 0.9997 in
    NASNet) are made for hundreds of epochs of ImageNet. In a short training they are still near
    their start at its end, and validation, which uses them, is that of another model. Here they
    average over a quarter of an epoch, or ten steps where that is less.

    Args:
        model: Its `trainable` flags are set; the momentum counts when the step is traced.
        steps: Batches an epoch, at least 1.
    """
    norms = [norm for norm in norms_of(model) if norm.trainable]
    own = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = min(norm.momentum, max(0.9, 1 - 4 / steps))
    try:
        yield
    finally:
        for norm, momentum in zip(norms, own, strict=True):
            norm.momentum = momentum


def _statistics(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    from keras.ops import convert_to_numpy

    return convert_to_numpy(norm.moving_mean), convert_to_numpy(norm.moving_variance)


def _measure(
    model: keras.Model,
    norms: list[keras.layers.BatchNormalization],
    batches: Iterable[Batch],
) -> int:
    import keras

    seen = 0
    for batch in batches:
        inputs = pack_inputs(model, batch)
        count = len(keras.tree.flatten(inputs)[0])
        for norm in norms:
            norm.momentum = seen / (seen + count)  # the plain mean over all samples
        model(inputs, training=True)
        seen += count
    return seen


@contextlib.contextmanager
def _measuring(model: keras.Model, norms: list[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Let BatchNorm measure and switch dropout off, and put all back afterwards."""
    kept = [(norm, norm.momentum, norm.trainable) for norm in norms]
    dropping = [(one, one.rate) for one in model._flatten_layers() if getattr(one, "rate", 0)]
    try:
        for norm in norms:
            norm.trainable = True
        for layer, _ in dropping:
            layer.rate = 0.0
        yield
    finally:
        for norm, momentum, trainable in kept:
            norm.momentum, norm.trainable = momentum, trainable
        for layer, rate in dropping:
            layer.rate = rate
