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
    """The epoch with the highest validation accuracy; of equals, the lowest validation loss.

    Args:
        history: one row an epoch.

    Returns:
        Its place from 0 (by loss alone where there is no accuracy); None without validation.
    """
    accuracy, loss = column(history, "val_accuracy"), column(history, "val_loss")
    known = [k for k in range(len(history)) if np.isfinite(accuracy[k])]
    if not known:
        known = [k for k in range(len(history)) if np.isfinite(loss[k])]
    order = np.lexsort((np.nan_to_num(loss, nan=np.inf), -np.nan_to_num(accuracy, nan=-np.inf)))
    return next((int(k) for k in order if k in known), None)


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
