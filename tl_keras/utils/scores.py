"""What classifiers' raw scores say: probabilities, log loss, temperature."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["log_loss", "right", "smoothed_loss", "softmax", "temperature"]

_HEAT = (math.log(1e-3), math.log(1e3))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, in the dtype given."""
    grown = np.exp(logits - logits.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log likelihood, in nats, of labels (n,) under logits (n, c)."""
    top = logits.max(1)
    total = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float((total - logits[np.arange(len(labels)), labels]).mean())


def right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose highest score (n, c) is their label's (n,)."""
    return float((scores.argmax(1) == labels).mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return T > 0 that fits logits / T to labels (Guo et al. 2017, arXiv 1706.04599).

    Labels count as certain but for one in n + 2, after Platt 1999: where all n samples are
    named rightly the plain log loss would call for endless confidence.

    Args:
        logits: (n, c), of samples that were not learnt from.
        labels: Class indices, (n,).
    """
    from scipy.optimize import minimize_scalar

    wide = np.asarray(logits, np.float64)
    found = minimize_scalar(
        lambda log_heat: smoothed_loss(wide / math.exp(log_heat), labels), bounds=_HEAT,
        method="bounded", options={"xatol": 1e-3},
    )  # fmt: skip
    return math.exp(float(found.x))


def smoothed_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the log loss where 1 / (n + 2) of each label is spread over the other classes."""
    share, (count, classes) = 1.0 / (len(labels) + 2.0), logits.shape
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    true = logs[np.arange(count), labels]
    others = (logs.sum(1) - true) / max(classes - 1, 1)
    return float(-((1.0 - share) * true + share * others).mean())
