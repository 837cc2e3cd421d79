"""Plots of a run as PNG files: curves, calibration, recall, mistakes, rates.

Each function draws one figure without pyplot, writes it whole or not at all, and returns
its path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    reliability_bins,
)
from tl_keras.reports import style
from tl_keras.reports.history import best_row, column, stage_spans
from tl_keras.reports.matrix import plot_confusion
from tl_keras.reports.mistakes import plot_mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_confusion", "plot_curves", "plot_mistakes", "plot_rates", "plot_recall",
    "plot_reliability",
]

_MOST_BARS = 40
_FEW = 10


def plot_curves(history: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Loss, accuracy and learning rate over the epochs, with the stages' names and borders.

    Args:
        history: rows with stage, learning_rate, loss, val_loss, accuracy, val_accuracy; numbers
            or their text (as read from history.csv); what is missing is left out.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    panels = [("loss", "loss"), ("accuracy", "accuracy"), ("learning_rate", "learning rate")]
    panels = [p for p in panels if np.isfinite(column(history, p[0])).any()] or panels[:1]
    heights = [0.55 if key == "learning_rate" else 1.0 for key, _ in panels]
    figure = style.new_figure(8.6, 1.0 + 2.5 * sum(heights))
    grid: Any = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for axes, (key, title) in zip(grid, panels, strict=True):
        _curve(style.tidy(axes), history, key)
        axes.set_ylabel(title, color=style.INK)
    _stages(grid, history)
    grid[-1].set_xlabel("epoch", color=style.INK)
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return style.save(figure, path)


def _curve(axes: Axes, history: Sequence[dict[str, Any]], key: str) -> None:
    epochs = np.arange(1, len(history) + 1)
    marker = "o" if len(history) <= 60 else ""
    if key == "learning_rate":
        rates = column(history, key)
        for _, start, end in stage_spans(history):
            axes.plot(epochs[start:end], rates[start:end], color=style.GREEN, marker=marker,
                      markersize=3)
        positive = rates[rates > 0]
        if len(positive) and positive.max() > 20 * positive.min():
            axes.set_yscale("log")
        return
    axes.plot(
        epochs, column(history, key), color=style.ORANGE, linestyle="--", marker=marker,
        markersize=3, label="training",
    )
    held_out = column(history, f"val_{key}")
    if np.isfinite(held_out).any():
        axes.plot(
            epochs, held_out, color=style.BLUE, marker=marker, markersize=3.5, label="validation"
        )
        _mark_best(axes, held_out, best_row(history), "best " if key == "accuracy" else "")
    axes.legend(frameon=False, fontsize=9, labelcolor=style.INK, loc="best")


def _mark_best(axes: Axes, values: np.ndarray, best: int | None, word: str) -> None:
    if best is None or not math.isfinite(values[best]):
        return
    axes.plot(best + 1, values[best], "o", markersize=11, markerfacecolor="none",
              markeredgecolor=style.BLUE, markeredgewidth=1.5)
    low, high = axes.get_ylim()
    above = values[best] < (low + high) / 2
    axes.annotate(
        f"{word}{values[best]:.3f}", (best + 1, values[best]), fontsize=9, color=style.BLUE,
        xytext=(0, 11 if above else -19), textcoords="offset points", ha="center",
    )


def _stages(grid: Sequence[Axes], history: Sequence[dict[str, Any]]) -> None:
    spans = stage_spans(history)
    names = style.labels_for([name for name, _, _ in spans])
    inches = 7.6 / max(1, len(history))
    crowded = any(
        len(name) * 0.085 > (end - start) * inches
        for name, (_, start, end) in zip(names, spans, strict=True)
    )
    for place, (name, (_, start, end)) in enumerate(zip(names, spans, strict=True)):
        for axes in grid:
            axes.set_xlim(0.5, max(1, len(history)) + 0.5)
            if place % 2:
                axes.axvspan(start + 0.5, end + 0.5, color="#f3f4f6", zorder=0, linewidth=0)
            if place:
                axes.axvline(start + 0.5, color="#9ca3af", linewidth=1, linestyle=":")
        text = grid[0].annotate(
            name, ((start + end + 1) / 2, 1.02), xycoords=("data", "axes fraction"),
            ha="left" if crowded else "center", va="bottom", fontsize=9.5, color=style.INK,
            rotation=35 if crowded else 0, rotation_mode="anchor", annotation_clip=False,
        )
        style.plain([text], fontweight="bold")


def plot_reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    path: str | Path,
    temperature: float | None = None,
) -> Path:
    """Accuracy against confidence, with the pictures in each bin; before and after scaling.

    Bins of fewer than 10 pictures are pale.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: int (n,), class indices.
        path: the PNG to write.
        temperature: adds the picture after dividing by it.

    Returns:
        The path.

    Raises:
        DataError: shapes or ranges do not fit.
        StorageError: it cannot be written.
    """
    shown = [("as trained", np.asarray(probabilities))]
    if temperature is not None:
        scaled = apply_temperature(probabilities, temperature)
        shown.append((f"with temperature {temperature:.2f}", scaled))
    figure = style.new_figure(4.3 * len(shown), 4.9)
    grid: Any = figure.subplots(
        2, len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=[3.2, 1]
    )
    for (upper, lower), (title, given) in zip(grid.T, shown, strict=True):
        _reliability(style.tidy(upper), style.tidy(lower), reliability_bins(given, labels))
        error = expected_calibration_error(given, labels)
        upper.set_title(f"{title}: error {100 * error:.1f} %", fontsize=10.5, color=style.INK)
        lower.set_xlabel("confidence", color=style.INK)
    grid[0, 0].set_ylabel("accuracy", color=style.INK)
    grid[1, 0].set_ylabel("pictures", color=style.INK)
    return style.save(figure, path)


def _reliability(upper: Axes, lower: Axes, bins: list[dict[str, float]]) -> None:
    middle = [(b["low"] + b["high"]) / 2 for b in bins]
    width = bins[0]["high"] - bins[0]["low"]
    accuracy, confidence = [b["accuracy"] for b in bins], [b["confidence"] for b in bins]
    counts = [b["count"] for b in bins]
    bars = upper.bar(middle, accuracy, width * 0.92, color=style.BLUE, label="accuracy")
    upper.vlines(confidence, accuracy, confidence, color=style.VERMILLION, linewidth=2)
    upper.plot(confidence, confidence, "o", color=style.VERMILLION, markersize=4,
               label="confidence")
    upper.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle="--")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=style.INK)
    for bar, count in zip(bars, counts, strict=True):
        bar.set_alpha(1.0 if count >= _FEW else 0.3)  # chance rules where pictures are few
    lower.bar(middle, counts, width * 0.92, color="#9ca3af")
    lower.set_ylim(0, max(counts) * 1.3)
    for x, count in zip(middle, counts, strict=True):
        lower.annotate(f"{count}", (x, count), ha="center", va="bottom", fontsize=7,
                       color=style.GREY)


def plot_recall(per_class: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Recall of each class with its 95 % interval, worst on top.

    Args:
        per_class: rows of evaluate: name, recall, low, high, support. Of more than 40, the
            40 worst are drawn.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    labels = style.labels_for([row["name"] for row in per_class])
    rows = [(row, label) for row, label in zip(per_class, labels, strict=True) if row["support"]]
    mean = float(np.mean([row["recall"] for row, _ in rows])) if rows else 0.0
    rows = sorted(rows, key=lambda pair: pair[0]["recall"])[:_MOST_BARS]
    figure = style.new_figure(7.4, 1.3 + 0.3 * max(2, len(rows)))
    axes = style.tidy(figure.subplots(), grid="x")
    for place, (row, _) in enumerate(rows):
        below = row["high"] < mean
        axes.barh(place, row["recall"], 0.66, color=style.VERMILLION if below else style.BLUE)
        axes.hlines(place, row["low"], row["high"], color=style.INK, linewidth=1.4)
        axes.text(1.01, place, f"{100 * row['recall']:.0f} %  of {row['support']}", va="center",
                  fontsize=8.5, color=style.GREY)
    axes.axvline(mean, color=style.GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [label for _, label in rows])
    style.plain(axes.get_yticklabels(), fontsize=9, color=style.INK)
    axes.set(xlim=(0, 1), ylim=(max(len(rows), 1) - 0.4, -0.6))
    few = f" ({_MOST_BARS} worst of {len(per_class)})" if len(per_class) > _MOST_BARS else ""
    axes.set_xlabel(f"recall{few}, 95 % interval; dashed: mean of all classes", color=style.INK)
    return style.save(figure, path)


def plot_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    path: str | Path,
    suggestion: float | None = None,
) -> Path:
    """Loss against learning rate, from a search that raises the rate step by step.

    Args:
        rates: > 0, rising.
        losses: one a rate; what is not finite is left out, what diverges is cut off.
        path: the PNG to write.
        suggestion: the rate to mark.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    tried, found = np.asarray(rates, float), np.asarray(losses, float)
    known = np.isfinite(found) & (tried > 0)
    tried, found = tried[known], found[known]
    figure = style.new_figure(7.4, 4.2)
    axes = style.tidy(figure.subplots(), grid="both")
    axes.set_xscale("log")
    axes.plot(tried, found, color=style.BLUE, linewidth=2)
    if len(found):
        low, start = found.min(), np.median(found[: max(3, len(found) // 10)])
        margin = max(start - low, 0.05 * abs(low), 1e-6)
        axes.set_ylim(low - 0.15 * margin, start + 0.6 * margin)
    if suggestion is not None:
        axes.axvline(suggestion, color=style.VERMILLION, linestyle="--", linewidth=1.6)
        axes.annotate(f" suggested: {suggestion:.1e} ", (suggestion, 0.94),
                      xycoords=("data", "axes fraction"), color=style.VERMILLION, fontsize=10,
                      ha="right" if len(tried) and suggestion > np.median(tried) else "left")
    axes.set_xlabel("learning rate", color=style.INK)
    axes.set_ylabel("loss", color=style.INK)
    return style.save(figure, path)
