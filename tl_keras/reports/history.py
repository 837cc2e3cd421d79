"""Read the rows of a training history, fresh from memory or as text from history.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_keras.reports.filters import number

__all__ = ["best_row", "column", "learning_rate", "stage_spans"]


def learning_rate(row: Mapping[str, Any]) -> float:
    """Return a row's or stage's learning rate, also of records that call it "rate", or NaN."""
    return number(row.get("learning_rate", row.get("rate")))


def column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Return one figure over all epochs, float64 (epochs,), NaN where it is missing."""
    if key == "learning_rate":
        return np.array([learning_rate(row) for row in history], np.float64)
    return np.array([number(row.get(key)) for row in history], np.float64)


def best_row(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the epoch whose weights were kept, from 0.

    Args:
        history: one row an epoch; the one that was kept may say so by a true "kept". Where no
            row says so, it is the one with the lowest validation loss, by which epochs are
            chosen; of equals, or without losses, the highest accuracy. None without validation.
    """
    kept = [k for k, row in enumerate(history) if row.get("kept")]
    if kept:
        return kept[-1]
    loss = np.nan_to_num(column(history, "val_loss"), nan=np.inf)
    accuracy = np.nan_to_num(column(history, "val_accuracy"), nan=-np.inf)
    known = np.isfinite(loss) | np.isfinite(accuracy)
    return next((int(k) for k in np.lexsort((-accuracy, loss)) if known[k]), None)


def stage_spans(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Return the stages in order: name, first row, row after the last."""
    spans: list[tuple[str, int, int]] = []
    for place, row in enumerate(history):
        name = str(row.get("stage", ""))
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], place + 1)
        else:
            spans.append((name, place, place + 1))
    return spans
