"""Whether a model became better, or only luckier on few validation images; weights between two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.evaluation.calibration import apply_temperature
from tl_keras.tasks.base import Task

__all__ = ["average", "clearly_better", "interpolate", "judge", "lower"]


def clearly_better(new: np.ndarray, old: np.ndarray) -> bool:
    """Return whether losses fell by more than one standard error of their paired difference.

    With few validation images, a stage that trains many weights often looks a little better
    by chance. The one-standard-error rule (Breiman et al., Classification and Regression
    Trees, 1984) keeps the simpler one then.

    Args:
        new: Losses (n,) of the later stage.
        old: Losses (n,) of the stage kept so far, of the same samples in the same order.
    """
    if len(new) == 0 or not np.isfinite(new).all():
        return len(new) == 0
    if not np.isfinite(old).all():
        return True
    gain = np.asarray(old) - np.asarray(new)
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
    return bool(gain.mean() > error)


def lower(new: np.ndarray, old: np.ndarray) -> bool:
    """Return whether the mean of the new losses (n,) is lower, be it by chance; False for n = 0."""
    return bool(len(new)) and bool(np.mean(new) < np.mean(old))


def average(old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the weights half-way between two states of one model.

    Fine-tuned weights averaged with those they started from are often better than either, most
    of all on images unlike the training set (Wortsman et al., arXiv 2109.01903).

    Args:
        old: Arrays of the earlier state.
        new: Arrays of the same shapes; those that are not floating come back as they are.
    """
    return interpolate(old, new, 0.5)


def interpolate(
    old: Sequence[np.ndarray], new: Sequence[np.ndarray], alpha: float
) -> list[np.ndarray]:
    """Return the weights a share of the way from one state of a model to another.

    Args:
        old: Arrays of the earlier state.
        new: Arrays of the same shapes; those that are not floating come back as they are.
        alpha: 0 gives the old weights, 1 the new ones.
    """
    return [
        ((1 - alpha) * a + alpha * b).astype(b.dtype)
        if np.issubdtype(b.dtype, np.floating)
        else b
        for a, b in zip(old, new, strict=True)
    ]


def judge(
    task: Task,
    outputs: np.ndarray,
    labels: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> tuple[float, float | None]:
    """Return the loss and the accuracy that models are chosen by, of samples they have not seen.

    The loss is taken at the best temperature: how sure a model is can be mended afterwards.

    Args:
        task: What is asked for.
        outputs: float32 (n, outputs).
        labels: As the task has them, n of them.
        targets: float32 (n, outputs).
        weights: float32 (n,), as in the loss that is learned.
    """
    heat = task.fit_temperature(outputs, labels)
    warm = outputs if heat is None else apply_temperature(outputs, heat)
    loss = float(np.average(task.sample_losses(warm, targets), weights=weights))
    right = task.correct(outputs, labels)
    return loss, None if right is None else float(np.average(right, weights=weights))
