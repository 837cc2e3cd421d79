"""Whether a stage made the model better, or only luckier on few validation pictures."""

from __future__ import annotations

import numpy as np

__all__ = ["clearly_better", "sample_losses"]


def sample_losses(outputs: np.ndarray, targets: np.ndarray, task: str) -> np.ndarray:
    """Return each sample's loss as float64 (n,).

    Args:
        outputs: (n, outputs): probabilities for "classes" and "tags", numbers for "values".
        targets: (n, outputs): one-hot, 0 or 1, or numbers.
        task: "classes" (negative log-likelihood), "tags" (binary cross-entropy, mean over
            tags) or "values" (squared error, mean over outputs).
    """
    outputs, targets = np.asarray(outputs, np.float64), np.asarray(targets, np.float64)
    if task == "values":
        return ((outputs - targets) ** 2).mean(1)
    inside = np.clip(outputs, 1e-7, 1 - 1e-7)
    if task == "tags":
        return -(targets * np.log(inside) + (1 - targets) * np.log(1 - inside)).mean(1)
    return -(targets * np.log(inside)).sum(1)


def clearly_better(new: np.ndarray, old: np.ndarray) -> bool:
    """Return whether losses fell by more than one standard error of their paired difference.

    With few validation pictures, a stage that trains many weights often looks a little better
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
