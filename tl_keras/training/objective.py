"""Say what a plan's stages learn from: by default the labels of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.modalities.base import Reader
from tl_keras.tasks.base import Scale
from tl_keras.training.plan import Plan

if TYPE_CHECKING:
    import keras

__all__ = ["Objective"]


class Objective:
    """Teaches the labels of the samples.

    A subclass may show other samples, give targets that hold more than the labels, and have
    another model compiled with another loss. What a stage is judged by stays the plain loss of
    the labels: the compiled metrics must be named "plain_loss" and "accuracy".

    Args:
        data: Samples.
        plan: Augmentation, class weights and label smoothing.

    Attributes:
        views: How many views there are of each sample; None is as many as are asked for.
    """

    views: int | None = None

    def __init__(self, data: Splits, plan: Plan) -> None:
        self.data, self.plan = data, plan
        self.task, self.outputs = data.train.kind, len(data.train.class_names)
        self.scale = self.task.scale(data.train.labels)
        self.labels = self.targets(data.train)
        self.weights: np.ndarray = np.ones(len(data.train), np.float32)
        if plan.class_weights:
            self.weights = self.task.balanced_weights(data.train.labels, self.outputs)

    def use_scale(self, scale: Scale | None) -> None:
        """Let targets be scaled so while the model learns; None leaves them as they are."""
        if scale is not self.scale:
            self.scale = scale
            self.labels = self.targets(self.data.train)

    def targets(self, samples: Samples) -> np.ndarray:
        """Return what the model should give while it learns, float32 (n, outputs)."""
        labels = samples.labels if self.scale is None else self.scale.apply(samples.labels)
        return self.task.targets(labels, self.outputs)

    @property
    def width(self) -> int:
        """Numbers in the target of one sample."""
        return int(self.labels.shape[1])

    def identity(self) -> dict[str, Any]:
        """Return JSON-able facts that a snapshot must agree with to be gone on from."""
        return {}

    def reader(self, model: keras.Model, seed: int) -> Reader:
        """Return what reads the training samples as a model takes them."""
        return self.data.train.reader(model, self.plan.augment, seed)

    def batch(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return targets float32 (n, width) and weights float32 (n,).

        Args:
            views: The view in which each sample is seen, int64 (n,).
            indices: The samples, int64 (n,).
        """
        return self.labels[indices], self.weights[indices]

    def learner(self, suffix: keras.Model) -> keras.Model:
        """Return the model to compile; it shares its layers with the suffix."""
        return suffix

    def compiled(self) -> tuple[Any, list[Any]]:
        """Return the loss, and the metrics: the loss without smoothing, and an accuracy.

        Validation gives both the labels alone (n, outputs) as targets.
        """
        return self.task.loss_and_metrics(self.plan.label_smoothing)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return what the suffix says, (n, outputs), from what the learner gives."""
        return outputs
