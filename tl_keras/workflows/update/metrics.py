"""What an update kept, forgot and gained: the old and the new model on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.continual.forgetting import transfer
from tl_keras.utils.stats import wilson
from tl_keras.workflows.update.previous_data import Pool

__all__ = ["Scored", "measured"]


@dataclass(frozen=True, eq=False)
class Scored:
    """Held-out pictures and what the two models say of them.

    Attributes:
        pool: The pictures.
        before: What the old model says, float32 (n, old classes).
        after: What the new model says, float32 (n, classes).
        old_classes: How many classes the old model knows.
    """

    pool: Pool
    before: np.ndarray
    after: np.ndarray
    old_classes: int

    @property
    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each model names each picture rightly, two bool (n,)."""
        labels = self.pool.samples.labels
        return self.before.argmax(1) == labels, self.after.argmax(1) == labels

    @property
    def is_old(self) -> np.ndarray:
        """Whether each picture came in an earlier step, bool (n,)."""
        return self.pool.tasks < self.pool.tasks.max(initial=0)


def measured(scored: Scored, newest: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an update.

    Args:
        scored: Held-out pictures of all steps.
        newest: This step's number, 1 or more.
        record: The old run's record, whose own "update" has the figures of earlier steps.

    Returns:
        "accuracy": rows by what they are of, each with "count", "before", "after" (a share with
        its 95 % interval, or None); "matrix": accuracy on each step's pictures after each
        step; and :func:`tl_keras.continual.forgetting.transfer` of it.
    """
    before, after = scored.right
    tasks, labels = scored.pool.tasks, scored.pool.samples.labels
    old_class = labels < scored.old_classes
    rows = {
        "old pictures": tasks < newest,
        "new pictures of old classes": (tasks == newest) & old_class,
        "new classes": ~old_class,
        "all": np.ones(len(labels), bool),
    }
    accuracy = {
        name: {
            "count": int(mask.sum()),
            "before": _share(before[mask]),
            "after": _share(after[mask]),
        }
        for name, mask in rows.items()
        if mask.any()
    }
    matrix = _matrix(record, newest)
    for task in range(newest + 1):
        matrix[newest][task] = _mean(after[tasks == task])
        known = (tasks == task) & old_class
        matrix[newest - 1][task] = _mean(before[known])
    # What was measured at each step is compared on the pictures that are at hand today.
    start = [1 / max(scored.old_classes, 1)] * (newest + 1)
    filled = [[np.nan if value is None else value for value in row] for row in matrix]
    return {"accuracy": accuracy, "matrix": matrix, **transfer(filled, start)}


def _matrix(record: dict[str, Any], newest: int) -> list[list[float | None]]:
    earlier: Sequence[Sequence[float | None]] = record.get("update", {}).get("matrix", [])
    size = newest + 1
    matrix: list[list[float | None]] = [[None] * size for _ in range(size)]
    for i, row in enumerate(earlier[:size]):
        matrix[i][: len(row)] = list(row)[:size]
    return matrix


def _mean(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None


def _share(right: np.ndarray) -> dict[str, float]:
    low, high = wilson(right.sum(), len(right))
    return {"value": float(right.mean()), "low": low, "high": high}
