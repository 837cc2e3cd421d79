"""Fetch inputs, targets and weights for a stage: from features or from samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tl_keras.errors import TLKerasError
from tl_keras.modalities.base import Reader
from tl_keras.training.batches import Fetch, input_specs, read_inputs
from tl_keras.training.objective import Objective
from tl_keras.training.stage import StageData

__all__ = ["Guarded", "cached_data", "sample_data"]


class Guarded:
    """A fetch that remembers why it failed: `tf.data` would only tell a traceback's text."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.error: TLKerasError | None = None

    def __call__(self, epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        """Return the batch.

        Raises:
            TLKerasError: What the fetch raised; kept in `error`.
        """
        try:
            return self.fetch(epoch, indices)
        except TLKerasError as error:
            self.error = error
            raise


def _specs(inputs: Any, objective: Objective) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    rich = tf.TensorSpec((None, objective.width), tf.float32)
    plain = tf.TensorSpec((None, objective.labels.shape[1]), tf.float32)
    return (inputs, rich, tf.TensorSpec((None,), tf.float32)), (inputs, plain)


def cached_data(
    objective: Objective, train: list[Any], val: Any, shape: tuple[int, ...]
) -> StageData:
    """Feed features; sample i is seen in view (epoch + i) modulo their number.

    Args:
        objective: Gives targets and weights.
        train: One array (n, *shape) for each view.
        val: An array (m, *shape).
        shape: Of one sample's features.
    """
    data, val_labels = objective.data, objective.targets(objective.data.val)

    def fetch(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        rows: np.ndarray = np.empty((len(indices), *shape), np.float32)
        views: np.ndarray = (int(epoch) + indices) % len(train)
        for view in np.unique(views):
            chosen = views == view
            rows[chosen] = train[view][indices[chosen]]
        return rows, *objective.batch(views, indices)

    def fetch_val(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        return np.asarray(val[indices], np.float32), val_labels[indices]

    spec, val_spec = _specs(tf.TensorSpec((None, *shape), tf.float32), objective)
    # Vectors are cheap to pass on: one large batch instead of many small ones.
    val_batch = 1024 if len(shape) == 1 else objective.plan.batch_size
    sizes = len(data.train), len(data.val)
    return StageData(fetch, fetch_val, *sizes, spec, val_spec, val_batch)


def sample_data(objective: Objective, train: Reader, val: Reader) -> StageData:
    """Feed samples; epoch e shows view e of each, modulo the objective's number of views."""
    data, val_labels = objective.data, objective.targets(objective.data.val)

    def fetch(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        view = int(epoch) if train.varied else 0
        views = np.full(len(indices), view % objective.views if objective.views else view)
        return read_inputs(train, indices, views), *objective.batch(views, indices)

    def fetch_val(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        return read_inputs(val, indices), val_labels[indices]

    spec, val_spec = _specs(input_specs(train), objective)
    sizes, batch = (len(data.train), len(data.val)), objective.plan.batch_size
    return StageData(Guarded(fetch), Guarded(fetch_val), *sizes, spec, val_spec, batch)
