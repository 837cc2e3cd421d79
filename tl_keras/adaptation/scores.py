"""What classifiers' raw scores say: probabilities, log loss, temperature."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["log_loss", "right", "softmax", "temperature"]

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
    """Return T > 0 that minimises the log loss of logits / T (Guo et al. 2017, 1706.04599)."""
    from scipy.optimize import minimize_scalar

    wide = np.asarray(logits, np.float64)
    found = minimize_scalar(
        lambda log_heat: log_loss(wide / math.exp(log_heat), labels), bounds=_HEAT,
        method="bounded", options={"xatol": 1e-3},
    )  # fmt: skip
    return math.exp(float(found.x))
