"""What a plan's stages learn from: by default the labels of the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.modalities.image.reader import PictureReader
from tl_keras.training.plan import Plan

if TYPE_CHECKING:
    import keras

__all__ = ["Objective", "class_weights", "targets"]


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


class Objective:
    """Teaches the labels of the pictures.

    A subclass may show other pictures, give targets that hold more than the labels, and have
    another model compiled with another loss. What a stage is judged by stays the plain loss of
    the labels: the compiled metrics must be named "plain_loss" and "accuracy".

    Args:
        data: Samples.
        plan: Augmentation, class weights and label smoothing.

    Attributes:
        views: How many views there are of each picture; None is as many as are asked for.
    """

    views: int | None = None

    def __init__(self, data: Splits, plan: Plan) -> None:
        self.data, self.plan = data, plan
        self.labels = targets(data.train)
        ones: np.ndarray = np.ones(len(data.train), np.float32)
        self.weights = class_weights(data.train) if plan.class_weights else ones

    @property
    def width(self) -> int:
        """Numbers in the target of one picture."""
        return int(self.labels.shape[1])

    def identity(self) -> dict[str, Any]:
        """Return JSON-able facts that a snapshot must agree with to be gone on from."""
        return {}

    def reader(self, size: int, seed: int) -> PictureReader:
        """Return what reads the training pictures."""
        return PictureReader(self.data.train, size, self.plan.augment, seed)

    def batch(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return targets float32 (n, width) and weights float32 (n,).

        Args:
            views: The view in which each picture is seen, int64 (n,).
            indices: The pictures, int64 (n,).
        """
        return self.labels[indices], self.weights[indices]

    def learner(self, suffix: keras.Model) -> keras.Model:
        """Return the model to compile; it shares its layers with the suffix."""
        return suffix

    def compiled(self) -> tuple[Any, list[Any]]:
        """Return the loss, and the metrics: the loss without smoothing, and an accuracy.

        Validation gives both the labels alone (n, outputs) as targets.
        """
        import keras

        if self.data.train.task == "tags":
            plain = keras.metrics.BinaryCrossentropy(name="plain_loss")
            return "binary_crossentropy", [plain, keras.metrics.BinaryAccuracy(name="accuracy")]
        if self.data.train.task == "values":
            return "mean_squared_error", [keras.metrics.MeanSquaredError(name="plain_loss")]
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=self.plan.label_smoothing)
        plain = keras.metrics.CategoricalCrossentropy(name="plain_loss")
        return loss, [plain, keras.metrics.CategoricalAccuracy(name="accuracy")]

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return what the suffix says, (n, outputs), from what the learner gives."""
        return outputs
