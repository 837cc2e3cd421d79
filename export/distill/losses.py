"""Measure on logits what a student has yet to learn from its teacher.

Targets and outputs are packed side by side, so that one stock model with one output learns from
all of it: a target row holds the labels (classes), the teacher's logits (classes) and its
features; an output row the student's logits (classes) and its projected features. In validation
a target row holds the labels alone.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from export.distill.config import DistillationConfig

__all__ = [
    "DistillationLoss", "LabelAccuracy", "LabelLoss", "inter_class", "intra_class", "softened_kl",
]  # fmt: skip

_TINY = 1e-8


def softened_kl(teacher: Any, student: Any, temperature: float) -> Any:
    """Return T² KL(teacher ‖ student) of the softened probabilities, (n,).

    The factor T² keeps the gradient's size where T changes. Source: Hinton, Vinyals and Dean,
    "Distilling the knowledge in a neural network", arXiv 1503.02531.

    Args:
        teacher: Logits (n, classes), float32.
        student: Logits (n, classes), float32.
        temperature: T, above 0; the larger, the more the unlikely classes count.
    """
    said, learned = (ops.log_softmax(logits / temperature) for logits in (teacher, student))
    return temperature**2 * ops.sum(ops.exp(said) * (said - learned), axis=-1)


def inter_class(teacher: Any, student: Any, temperature: float) -> Any:
    """Return 1 - Pearson's correlation of each sample's probabilities over classes, (n,).

    A correlation forgives a student that is less sure than its teacher and asks only for the
    same order and proportions. Source: Huang et al., "Knowledge distillation from a stronger
    teacher" (DIST), arXiv 2205.10536, its inter-class relation.

    Args:
        teacher: Logits (n, classes), float32.
        student: Logits (n, classes), float32.
        temperature: Divides both, above 0.
    """
    said, learned = (ops.softmax(logits / temperature) for logits in (teacher, student))
    return 1.0 - _correlation(said, learned, ops.ones_like(said), axis=-1)


def intra_class(teacher: Any, student: Any, temperature: float, weights: Any) -> Any:
    """Return 1 - the correlation of each class's probabilities over the batch, (classes,).

    Source: as :func:`inter_class`, the intra-class relation: which samples of the batch look
    most like this class.

    Args:
        teacher: Logits (n, classes), float32.
        student: Logits (n, classes), float32.
        temperature: Divides both, above 0.
        weights: Of each sample in the correlation, (n, 1), 0 or more.
    """
    said, learned = (ops.softmax(logits / temperature) for logits in (teacher, student))
    return 1.0 - _correlation(said, learned, ops.broadcast_to(weights, ops.shape(said)), axis=0)


def _correlation(left: Any, right: Any, weights: Any, axis: int) -> Any:
    total = ops.maximum(ops.sum(weights, axis=axis, keepdims=True), _TINY)
    shares = weights / total
    left = left - ops.sum(shares * left, axis=axis, keepdims=True)
    right = right - ops.sum(shares * right, axis=axis, keepdims=True)
    product = ops.sum(shares * left * right, axis=axis)
    power = ops.sum(shares * left**2, axis=axis) * ops.sum(shares * right**2, axis=axis)
    # The root of zero has no slope; a batch of one sample has no variance.
    return product / ops.sqrt(power + _TINY**2)


class DistillationLoss(keras.losses.Loss):
    """(1 - alpha) labels + alpha teacher + beta features.

    See :class:`export.distill.config.DistillationConfig`.

    Sample weights count in every part; the intra-class correlation is taken under them.

    Args:
        mix: Which losses, and how much of each.
        classes: Number of classes.
        smoothing: Label smoothing, in [0, 1).
    """

    def __init__(self, mix: DistillationConfig, classes: int, smoothing: float = 0.0) -> None:
        super().__init__(name="distillation_loss")
        self.mix, self.classes, self.smoothing = mix, classes, smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the weighted mean over the batch, a scalar."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        ones = ops.ones_like(y_true[:, :1])
        weights = ones if sample_weight is None else ops.reshape(sample_weight, (-1, 1)) * ones
        each = ops.mean(self._each(y_true, y_pred) * weights[:, 0])
        if "dist" not in self.mix.parts or y_true.shape[-1] == self.classes:
            return each
        said, logits = self._answers(y_true, y_pred)
        intra = ops.mean(intra_class(said, logits, self.mix.temperature, weights))
        return each + self.mix.share * intra * ops.mean(weights)

    def _answers(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        return y_true[:, self.classes : 2 * self.classes], y_pred[:, : self.classes]

    def _each(self, y_true: Any, y_pred: Any) -> Any:
        mix, labels, logits = self.mix, y_true[:, : self.classes], y_pred[:, : self.classes]
        hard = keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=self.smoothing
        )
        if y_true.shape[-1] == self.classes:
            return hard
        said, _ = self._answers(y_true, y_pred)
        loss = (1 - mix.soft) * hard
        if "kd" in mix.parts:
            loss = loss + mix.share * softened_kl(said, logits, mix.temperature)
        if "dist" in mix.parts:
            loss = loss + mix.share * inter_class(said, logits, mix.temperature)
        return loss + mix.beta * self._features(y_true, y_pred)

    def _features(self, y_true: Any, y_pred: Any) -> Any:
        shown, seen = y_true[:, 2 * self.classes :], y_pred[:, self.classes :]
        if not seen.shape[-1]:
            return 0.0
        return ops.mean((shown - seen) ** 2, axis=-1)


class LabelLoss(keras.metrics.CategoricalCrossentropy):
    """The plain loss of the labels, as in any training, whatever else targets and outputs hold.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(name="plain_loss", from_logits=True)
        self.classes = classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch (see `keras.metrics.Metric`)."""
        at = self.classes
        super().update_state(y_true[:, :at], y_pred[:, :at], sample_weight)


class LabelAccuracy(keras.metrics.CategoricalAccuracy):
    """The accuracy by the labels, whatever else targets and outputs hold.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(name="accuracy")
        self.classes = classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch (see `keras.metrics.Metric`)."""
        at = self.classes
        super().update_state(y_true[:, :at], y_pred[:, :at], sample_weight)
