"""Reads the rows of a training history, fresh from memory or as text from history.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["best_row", "column", "number", "stage_spans"]


def number(value: Any) -> float:
    """A figure of a row, or NaN where it is missing or no number.

    Args:
        value: a number, its text, "" or None.

    Returns:
        The number or NaN.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def column(history: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """One figure over all epochs.

    Args:
        history: one row an epoch.
        key: the figure's name.

    Returns:
        float64 (epochs,), NaN where it is missing.
    """
    return np.array([number(row.get(key)) for row in history], np.float64)


def best_row(history: Sequence[dict[str, Any]]) -> int | None:
    """The epoch whose weights were kept.

    Args:
        history: one row an epoch; the one that was kept may say so by a true "kept".

    Returns:
        Its place from 0. Where no row says so, the one with the lowest validation loss, by which
        epochs are chosen; of equals, or without losses, the highest accuracy. None without
        validation.
    """
    kept = [k for k, row in enumerate(history) if row.get("kept")]
    if kept:
        return kept[-1]
    loss = np.nan_to_num(column(history, "val_loss"), nan=np.inf)
    accuracy = np.nan_to_num(column(history, "val_accuracy"), nan=-np.inf)
    order = np.lexsort((-accuracy, loss))
    known = np.isfinite(loss) | np.isfinite(accuracy)
    return next((int(k) for k in order if known[k]), None)


def stage_spans(history: Sequence[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """The stages in order, each with the rows it covers.

    Args:
        history: one row an epoch.

    Returns:
        (name, first row, row after the last) of each stage.
    """
    spans: list[tuple[str, int, int]] = []
    for place, row in enumerate(history):
        name = str(row.get("stage", ""))
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], place + 1)
        else:
            spans.append((name, place, place + 1))
    return spans
