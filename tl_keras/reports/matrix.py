"""The confusion matrix as a plot, readable from 2 classes to 100 and more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.errors import DataError
from tl_keras.reports import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_confusion"]

_MOST_COUNTS = 30  # above this, counts in the cells are too small to read
_MOST_NAMES = 120


def plot_confusion(
    confusion: Sequence[Sequence[int]] | np.ndarray, class_names: Sequence[str], path: str | Path
) -> Path:
    """Counts of true against predicted classes: blue where right, orange where mistaken.

    A cell is the darker the larger its share of its row (the true class); shares of mistakes
    are shown as their square root, so that rare ones can be seen.

    Args:
        confusion: counts (classes, classes), rows are the true class.
        class_names: in output order; a name that no installed font can draw is shown as
            "#3", its place in output order.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        DataError: the matrix is not square or the names do not fit.
        StorageError: it cannot be written.
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape != (len(class_names),) * 2:
        raise DataError(
            f"the confusion matrix has shape {counts.shape} for {len(class_names)} class names; "
            "expected (classes, classes)."
        )
    classes = len(counts)
    side = float(np.clip(0.46 * classes, 2.6, 13.0))
    figure = style.new_figure(side + 2.4, side + 2.2)
    axes = style.tidy(figure.subplots(), grid=None)
    axes.imshow(_colours(counts), interpolation="nearest")
    _frame(axes, classes)
    _name(axes, style.labels_for(class_names), 72 * side / classes)
    if classes <= _MOST_COUNTS:
        _write_counts(axes, counts, 72 * side / classes)
    return style.save(figure, path)


def _colours(counts: np.ndarray) -> np.ndarray:
    """RGB 0..1 of each cell, (classes, classes, 3)."""
    import matplotlib

    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = matplotlib.colormaps["Oranges"](0.9 * np.sqrt(shares))[..., :3]
    right = matplotlib.colormaps["Blues"](0.08 + 0.8 * shares)[..., :3]
    wrong[counts == 0] = 1.0
    places = np.arange(len(counts))
    wrong[places, places] = right[places, places]
    return wrong


def _frame(axes: Axes, classes: int) -> None:
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#9ca3af")
    edges = np.arange(-0.5, classes)
    axes.hlines(edges, -0.5, classes - 0.5, color=style.PALE, linewidth=0.6)
    axes.vlines(edges, -0.5, classes - 0.5, color=style.PALE, linewidth=0.6)
    axes.set_xlabel("predicted", color=style.INK, fontsize=11)
    axes.set_ylabel("true", color=style.INK, fontsize=11)


def _name(axes: Axes, labels: list[str], points: float) -> None:
    """Every class while its name fits, else every second, fifth, ... one."""
    classes, size = len(labels), float(np.clip(0.8 * points, 5.5, 10))
    step = 1 if classes <= _MOST_NAMES else int(np.ceil(classes / _MOST_NAMES))
    places, shown = list(range(0, classes, step)), labels[::step]
    short = max(map(len, shown)) * size * 0.62 < points
    axes.set_xticks(places, shown)
    axes.set_yticks(places, shown)
    style.plain(axes.get_yticklabels(), fontsize=size, color=style.INK)
    style.plain(
        axes.get_xticklabels(), fontsize=size, color=style.INK, rotation=0 if short else 45 if
        classes <= _MOST_COUNTS else 90, ha="center" if short or classes > _MOST_COUNTS else
        "right", rotation_mode="default" if short or classes > _MOST_COUNTS else "anchor",
    )


def _write_counts(axes: Axes, counts: np.ndarray, points: float) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = f"{counts[row, column]}"
        size = float(np.clip(0.9 * points / max(2, len(text)), 5.5, 11))
        dark = shares[row, column] > (0.55 if row == column else 0.4)
        axes.text(column, row, text, ha="center", va="center", fontsize=size,
                  color="white" if dark else style.INK)
