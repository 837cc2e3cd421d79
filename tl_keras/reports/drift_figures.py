"""A shift as pictures: where both sets lie, what chance would give, confidence, novelty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.drift import Shift
from tl_keras.reports import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_remedy", "plot_shift"]

_SIDES = (("known pictures", style.BLUE), ("new pictures", style.VERMILLION))


def plot_shift(shift: Shift, path: str | Path) -> Path:
    """Draw the two sets in feature space, the permutation test, confidence and novelty.

    Args:
        shift: From `tl_keras.analysis.drift.find_shift`.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: It cannot be written.
    """
    figure = style.new_figure(9.6, 7.2)
    axes = figure.subplots(2, 2).ravel()
    _plane(axes[0], shift)
    _chance(axes[1], shift)
    if len(shift.confidence[0]):
        _both(axes[2], shift.confidence, "confidence", "How sure the model is")
    else:
        axes[2].axis("off")
    _both(axes[3], shift.novelty, "distance to the training set", "How unlike the training set")
    return style.save(figure, path)


def _plane(axes: Axes, shift: Shift) -> None:
    style.tidy(axes, grid="both")
    for points, (name, colour) in zip(shift.points, _SIDES, strict=True):
        axes.scatter(
            points[:, 0], points[:, 1], s=14, alpha=0.6, color=colour, label=name, linewidths=0
        )
    axes.set_title("Features, two principal components", fontsize=10.5, loc="left")
    axes.set_xlabel("first component", fontsize=9)
    axes.set_ylabel("second component", fontsize=9)
    axes.legend(fontsize=8.5, frameon=False)


def _chance(axes: Axes, shift: Shift) -> None:
    style.tidy(axes)
    axes.hist(shift.mmd.null, bins=40, color=style.GREY, label="random partitions")
    axes.axvline(shift.mmd.value, color=style.VERMILLION, label="known against new")
    p_value = shift.mmd.p_value
    axes.set_title(f"Discrepancy and chance: p = {p_value:.3g}", fontsize=10.5, loc="left")
    axes.set_xlabel("squared maximum mean discrepancy", fontsize=9)
    axes.set_ylabel("partitions", fontsize=9)
    axes.legend(fontsize=8.5, frameon=False)


def _both(axes: Axes, sides: tuple[np.ndarray, np.ndarray], name: str, title: str) -> None:
    style.tidy(axes)
    bins = np.linspace(*_range(np.concatenate(sides)), 25)
    for values, (label, colour) in zip(sides, _SIDES, strict=True):
        share = np.full(len(values), 1 / len(values))
        axes.hist(values, bins=bins, weights=share, alpha=0.55, color=colour, label=label)
        axes.axvline(float(np.median(values)), color=colour, linestyle="--", linewidth=1.2)
    axes.set_title(f"{title} (dashed: median)", fontsize=10.5, loc="left")
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel("share of the pictures", fontsize=9)
    axes.legend(fontsize=8.5, frameon=False)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def plot_remedy(sets: Sequence[tuple[str, dict[str, Any]]], path: str | Path) -> Path:
    """Draw accuracy before and after a remedy.

    Args:
        sets: Each set's name, and its figures with `before` and `after`, 0..1.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: It cannot be written.
    """
    figure = style.new_figure(5.6, 0.9 + 0.8 * len(sets))
    axes = style.tidy(figure.subplots(), grid="x")
    for place, (_, found) in enumerate(sets):
        for key, colour in (("before", style.GREY), ("after", style.BLUE)):
            name = key if place == 0 else None
            axes.scatter(100 * found[key], place, s=70, color=colour, label=name, zorder=3)
        ends = (100 * found["after"], place), (100 * found["before"], place)
        axes.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": style.INK})
    axes.set_yticks(range(len(sets)), [name for name, _ in sets])
    axes.set_ylim(len(sets) - 0.5, -0.5)
    axes.set_xlabel("accuracy, per cent", fontsize=9)
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return style.save(figure, path)
