"""Batches of inputs, targets and weights for a stage: from features or from pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tl_keras.data.pipeline import Fetch, PictureReader
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import TLKerasError
from tl_keras.training.plans import Plan
from tl_keras.training.stage import StageData

__all__ = ["Guarded", "cached_data", "class_weights", "picture_data", "targets"]


class Guarded:
    """A fetch that remembers why it failed: `tf.data` would only tell a traceback's text."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.error: TLKerasError | None = None

    def __call__(self, epoch: int, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the batch.

        Raises:
            TLKerasError: What the fetch raised; kept in `error`.
        """
        try:
            return self.fetch(epoch, indices)
        except TLKerasError as error:
            self.error = error
            raise


def targets(samples: Samples) -> np.ndarray:
    """Return what the model should give as float32 (n, outputs); one-hot for classes."""
    if samples.task == "classes":
        return np.eye(len(samples.class_names), dtype=np.float32)[samples.labels]
    return np.asarray(samples.labels, np.float32)


def class_weights(samples: Samples) -> np.ndarray:
    """Return float32 (n,) weights, mean 1, under which every class counts the same.

    The weight of a sample is n / (classes * samples of its class), as scikit-learn's
    "balanced". Tasks other than "classes" get ones.
    """
    if samples.task != "classes":
        return np.ones(len(samples), np.float32)
    counts = np.bincount(samples.labels, minlength=len(samples.class_names))
    present = np.count_nonzero(counts)
    weights = len(samples) / (present * np.maximum(counts, 1))
    return weights[samples.labels].astype(np.float32)


def _spec(shape: tuple[int, ...], dtype: Any, outputs: int) -> tuple[tf.TensorSpec, ...]:
    return (
        tf.TensorSpec((None, *shape), dtype),
        tf.TensorSpec((None, outputs), tf.float32),
        tf.TensorSpec((None,), tf.float32),
    )


def _weights(data: Splits, plan: Plan) -> np.ndarray:
    if plan.class_weights:
        return class_weights(data.train)
    return np.ones(len(data.train), np.float32)


def cached_data(
    data: Splits, plan: Plan, train: list[Any], val: Any, shape: tuple[int, ...]
) -> StageData:
    """Feed features; picture i is seen in view (epoch + i) modulo their number.

    Args:
        data: Samples.
        plan: Batch size and class weights.
        train: One array (n, *shape) for each view.
        val: An array (m, *shape).
        shape: Of one sample's features.
    """
    labels, weights, val_labels = targets(data.train), _weights(data, plan), targets(data.val)

    def fetch(epoch: int, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        rows: np.ndarray = np.empty((len(indices), *shape), np.float32)
        views: np.ndarray = (int(epoch) + indices) % len(train)
        for view in np.unique(views):
            chosen = views == view
            rows[chosen] = train[view][indices[chosen]]
        return rows, labels[indices], weights[indices]

    def fetch_val(epoch: int, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.asarray(val[indices], np.float32), val_labels[indices]

    spec = _spec(shape, tf.float32, labels.shape[1])
    # Vectors are cheap to pass on: one large batch instead of many small ones.
    val_batch = 1024 if len(shape) == 1 else plan.batch_size
    return StageData(fetch, fetch_val, len(labels), len(val_labels), spec, val_batch)


def picture_data(
    data: Splits, plan: Plan, train: PictureReader, val: PictureReader, augmented: bool
) -> StageData:
    """Feed pictures; with augmentation epoch e shows view e of each."""
    labels, weights, val_labels = targets(data.train), _weights(data, plan), targets(data.val)

    def fetch(epoch: int, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        pictures = train.read(indices, int(epoch) if augmented else 0)
        return pictures, labels[indices], weights[indices]

    def fetch_val(epoch: int, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return val.read(indices, 0), val_labels[indices]

    spec = _spec((train.size, train.size, 3), tf.uint8, labels.shape[1])
    sizes = len(labels), len(val_labels)
    return StageData(Guarded(fetch), Guarded(fetch_val), *sizes, spec, plan.batch_size)
