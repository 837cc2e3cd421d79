"""`LinearHead`: one dense layer with softmax, found on fixed features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tl_keras.errors import DataError
from tl_keras.utils.stats import temperature

__all__ = [
    "PENALTIES",
    "Facts",
    "LinearHead",
    "bounded_scale",
    "calibrate",
    "check_features",
    "fold_scaling",
    "scale_of",
]

Facts = dict[str, float | str]
# Factors on the mean eigenvalue of the features' covariance.
PENALTIES = tuple(float(10.0**power) for power in np.arange(-4.0, 3.01, 0.5))
_CONSTANT = 1e-4


@dataclass(frozen=True, eq=False)
class LinearHead:
    """One dense layer with softmax.

    Attributes:
        weights: float32 (features, classes).
        bias: float32 (classes,).
        facts: How it was found, such as {"penalty": 1.0}.
    """

    weights: np.ndarray
    bias: np.ndarray
    facts: Facts = field(default_factory=dict)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (n, classes) before the softmax, of features (n, d)."""
        return np.asarray(features, np.float32) @ self.weights + self.bias

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities, float32 (n, classes), of features (n, d)."""
        from scipy.special import softmax

        return softmax(self.logits(features), axis=1).astype(np.float32)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return class indices, int64 (n,), of features (n, d)."""
        return self.logits(features).argmax(1)

    def scale(self, factor: float) -> LinearHead:
        """Return the head with its logits multiplied, which changes confidence alone."""
        weights, bias = self.weights * np.float32(factor), self.bias * np.float32(factor)
        return LinearHead(weights, bias, {**self.facts, "factor": float(factor)})


def calibrate(head: LinearHead, features: np.ndarray, labels: np.ndarray) -> LinearHead:
    """Scale a head so that its probabilities fit images it has not learnt from.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599); the predicted classes stay.

    Args:
        head: The head.
        features: Of held-out samples, (n, d).
        labels: Their class indices, (n,).
    """
    if not len(labels):
        return head
    return head.scale(1.0 / temperature(head.logits(features), labels))


def scale_of(features: np.ndarray) -> np.ndarray:
    """Return each feature's standard deviation, float64 (d,), bounded away from 0.

    The bound is a small share of the feature's root mean square: what varies less is constant
    within the digits of float32, and dividing by it would blow up rounding. Always 0 gives 1.
    """
    return bounded_scale(features.mean(0, dtype=np.float64), features.var(0, dtype=np.float64))


def bounded_scale(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return what :func:`scale_of` does, of each feature's mean and variance, (d,)."""
    size = np.sqrt(np.maximum(variance, 0.0) + mean**2)
    scale = np.maximum(np.sqrt(np.maximum(variance, 0.0)), _CONSTANT * size)
    return np.where(scale > 0, scale, 1.0)


def fold_scaling(
    weights: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    facts: Facts,
) -> LinearHead:
    """Return the head for plain features of one for (features - mean) / scale."""
    plain = weights / scale[:, None]
    shift = bias - mean @ plain
    return LinearHead(plain.astype(np.float32), shift.astype(np.float32), facts)


def check_features(
    features: np.ndarray, labels: np.ndarray, classes: int, *, every: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels as arrays that fit together.

    Args:
        features: Should be (n, d), finite.
        labels: Should be (n,), 0..classes-1.
        classes: How many, 2 or more.
        every: Whether each class must occur.

    Raises:
        DataError: They are not.
    """
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise DataError(
            f"features of shape {features.shape} and labels {labels.shape}: expected (n, d) "
            "and (n,), with at least one sample"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must be whole numbers from 0 to {classes - 1}")
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if every and len(missing):
        raise DataError(f"no sample of class {missing[0]}; every class needs at least one")
    if not np.isfinite(features).all():
        raise DataError("features hold values that are no numbers; check the model's weights")
    return features, labels.astype(np.int64)
