"""Draw what a run's report shows, as PNG files.

Each function draws one figure without pyplot, writes it whole or not at all (a StorageError says
why it cannot be written), and returns its path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    reliability_bins,
)
from tl_keras.reports import style
from tl_keras.reports.filters import is_tiny, thousands
from tl_keras.reports.history import best_row, column, stage_spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tl_keras.evaluation.mistakes import Mistake

__all__ = [
    "FIGURES", "draw_figures", "plot_confusion", "plot_curves", "plot_learning_rates",
    "plot_mistakes", "plot_probe", "plot_recall", "plot_reliability", "plot_scatter",
    "plot_update",
]  # fmt: skip

_MOST_BARS = 40
_FEW = 10  # images in a bin, below which chance rules
_MOST_COUNTS = 30  # classes, above which counts in the cells are too small to read
_MOST_NAMES = 120
_MOST_SCATTERS = 6


def draw_figures(
    names: Sequence[str], folder: Path, evidence: Mapping[str, Any]
) -> dict[str, Path]:
    """Draw what a task shows of its results.

    Args:
        names: keys of `FIGURES`.
        folder: gets NAME.png of each.
        evidence: outputs and targets (arrays with a row a sample), class_names, metrics (of
            `evaluate`), temperature (or None) and mistakes (of `collect_mistakes`).

    Returns:
        The files by name; without mistakes there is no figure of them.
    """
    drawn = {}
    for name in names:
        if name != "mistakes" or evidence["mistakes"]:
            drawn[name] = FIGURES[name](evidence, folder / f"{name}.png")
    return drawn


def plot_curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw loss, accuracy and learning rate over the epochs, with the stages' names and borders.

    Args:
        history: rows with stage, learning_rate, loss, val_loss, accuracy, val_accuracy; numbers
            or their text (as read from history.csv); what is missing is left out.
        path: the PNG to write.
    """
    from matplotlib.ticker import MaxNLocator

    panels = [("loss", "loss"), ("accuracy", "accuracy"), ("learning_rate", "learning rate")]
    panels = [p for p in panels if np.isfinite(column(history, p[0])).any()] or panels[:1]
    heights = [0.55 if key == "learning_rate" else 1.0 for key, _ in panels]
    figure = style.new_figure(8.6, 1.0 + 2.5 * sum(heights))
    grid: Any = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]  # fmt: skip
    for axes, (key, words) in zip(grid, panels, strict=True):
        _curve(style.tidy(axes, y=words), history, key)
    _mark_stages(grid, history)
    grid[-1].set_xlabel("epoch", color=style.INK)
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return style.save(figure, path)


def _curve(axes: Axes, history: Sequence[Mapping[str, Any]], key: str) -> None:
    epochs, values = np.arange(1, len(history) + 1), column(history, key)
    dots: dict[str, Any] = {"marker": "o" if len(history) <= 60 else "", "markersize": 3}
    if key == "learning_rate":
        for _, start, end in stage_spans(history):
            axes.plot(epochs[start:end], values[start:end], color=style.GREEN, **dots)
        positive = values[values > 0]
        if len(positive) and positive.max() > 20 * positive.min():
            axes.set_yscale("log")
            # A decay ends next to nothing.
            axes.set_ylim(bottom=max(0.6 * positive.min(), 1e-4 * positive.max()))
        return
    axes.plot(epochs, values, color=style.ORANGE, linestyle="--", label="training", **dots)
    held_out = column(history, f"val_{key}")
    if np.isfinite(held_out).any():
        axes.plot(epochs, held_out, color=style.BLUE, label="validation", **dots)
        _mark_best(axes, held_out, best_row(history), "best " if key == "accuracy" else "")
    style.legend(axes)


def _mark_best(axes: Axes, values: np.ndarray, best: int | None, word: str) -> None:
    if best is None or not math.isfinite(values[best]):
        return
    axes.plot(best + 1, values[best], "o", markersize=11, markerfacecolor="none",
              markeredgecolor=style.BLUE, markeredgewidth=1.5)  # fmt: skip
    low, high = axes.get_ylim()
    above = values[best] < (low + high) / 2
    axes.annotate(
        f"{word}{values[best]:.3f}", (best + 1, values[best]), fontsize=9, color=style.BLUE,
        xytext=(0, 11 if above else -19), textcoords="offset points", ha="center",
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def _mark_stages(grid: Sequence[Axes], history: Sequence[Mapping[str, Any]]) -> None:
    spans = stage_spans(history)
    names = style.drawable([name for name, _, _ in spans])
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
                axes.axvline(start + 0.5, color=style.SILVER, linewidth=1, linestyle=":")
        text = grid[0].annotate(
            name, ((start + end + 1) / 2, 1.02), xycoords=("data", "axes fraction"),
            ha="left" if crowded else "center", va="bottom", fontsize=9.5, color=style.INK,
            rotation=35 if crowded else 0, rotation_mode="anchor", annotation_clip=False,
        )  # fmt: skip
        style.plain([text], fontweight="bold")


def plot_confusion(
    confusion: Sequence[Sequence[int]] | np.ndarray, class_names: Sequence[str], path: str | Path
) -> Path:
    """Draw counts of true against predicted classes: blue where correct, orange where mistaken.

    A cell is the darker the larger its share of its row (the true class); shares of mistakes
    are shown as their square root, so that rare ones can be seen.

    Args:
        confusion: counts (classes, classes), rows are the true class.
        class_names: in output order.
        path: the PNG to write.

    Raises:
        DataError: the matrix is not square or the names do not fit.
    """
    counts = np.asarray(confusion)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise DataError(
            f"the confusion matrix has shape {counts.shape} for {classes} class names; "
            "expected (classes, classes)."
        )
    side = float(np.clip(0.46 * classes, 2.6, 13.0))
    shares, points = counts / np.maximum(counts.sum(1, keepdims=True), 1), 72 * side / classes
    figure = style.new_figure(side + 2.4, side + 2.2)
    axes = style.tidy(figure.subplots(), "predicted", "true", grid=None)
    axes.imshow(_cell_colors(shares), interpolation="nearest")
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.SILVER)
    edges = np.arange(-0.5, classes)
    for lines in (axes.hlines, axes.vlines):
        lines(edges, -0.5, classes - 0.5, color=style.PALE, linewidth=0.6)
    _name_classes(axes, style.drawable(class_names), points)
    if classes <= _MOST_COUNTS:
        _write_counts(axes, counts, shares, points)
    return style.save(figure, path)


def _cell_colors(shares: np.ndarray) -> np.ndarray:
    """RGB 0..1 of each cell, (classes, classes, 3)."""
    import matplotlib

    colors = matplotlib.colormaps["Oranges"](0.9 * np.sqrt(shares))[..., :3]
    right = matplotlib.colormaps["Blues"](0.08 + 0.8 * shares)[..., :3]
    colors[shares == 0] = 1.0
    diagonal = np.diag_indices(len(shares))
    colors[diagonal] = right[diagonal]
    return colors


def _name_classes(axes: Axes, labels: list[str], points: float) -> None:
    """Every class while its name fits, else every second, fifth, ... one."""
    classes, size = len(labels), float(np.clip(0.8 * points, 5.5, 10))
    step = 1 if classes <= _MOST_NAMES else int(np.ceil(classes / _MOST_NAMES))
    places, shown = list(range(0, classes, step)), labels[::step]
    axes.set_xticks(places, shown)
    axes.set_yticks(places, shown)
    style.plain(axes.get_yticklabels(), fontsize=size, color=style.INK)
    turned: dict[str, object] = {"rotation": 90, "ha": "center"}
    if max(map(len, shown)) * size * 0.62 < points:
        turned["rotation"] = 0
    elif classes <= _MOST_COUNTS:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    style.plain(axes.get_xticklabels(), fontsize=size, color=style.INK, **turned)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, points: float) -> None:
    for row, column_ in zip(*np.nonzero(counts), strict=True):
        text = f"{counts[row, column_]}"
        dark = shares[row, column_] > (0.55 if row == column_ else 0.4)
        axes.text(
            column_, row, text, ha="center", va="center", color="white" if dark else style.INK,
            fontsize=float(np.clip(0.9 * points / max(2, len(text)), 5.5, 11)),
        )  # fmt: skip


def plot_reliability(
    probabilities: np.ndarray,
    labels: np.ndarray,
    path: str | Path,
    temperature: float | None = None,
) -> Path:
    """Draw accuracy against confidence, with the images in each bin; before and after scaling.

    Bins of fewer than 10 images are pale.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: int (n,), class indices.
        path: the PNG to write.
        temperature: adds the figure after dividing by it.

    Raises:
        DataError: shapes or ranges do not fit.
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
        error = expected_calibration_error(given, labels)
        style.tidy(upper, title=f"{title}: error {100 * error:.1f} %")
        _reliability(upper, style.tidy(lower, "confidence"), reliability_bins(given, labels))
    grid[0, 0].set_ylabel("accuracy", color=style.INK)
    grid[1, 0].set_ylabel("count", color=style.INK)
    return style.save(figure, path)


def _reliability(upper: Axes, lower: Axes, bins: list[dict[str, float]]) -> None:
    middle = [(b["low"] + b["high"]) / 2 for b in bins]
    width = 0.92 * (bins[0]["high"] - bins[0]["low"])
    accuracy, confidence, counts = (
        [b[key] for b in bins] for key in ("accuracy", "confidence", "count")
    )
    bars = upper.bar(middle, accuracy, width, color=style.BLUE, label="accuracy")
    upper.vlines(confidence, accuracy, confidence, color=style.VERMILLION, linewidth=2)
    upper.plot(confidence, confidence, "o", color=style.VERMILLION, markersize=4,
               label="confidence")  # fmt: skip
    upper.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle="--")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    style.legend(upper, loc="upper left")
    lower.bar(middle, counts, width, color=style.SILVER)
    lower.set_ylim(0, max(counts) * 1.3)
    for bar, x, count in zip(bars, middle, counts, strict=True):
        bar.set_alpha(1.0 if count >= _FEW else 0.3)
        lower.annotate(f"{count}", (x, count), ha="center", va="bottom", fontsize=7,
                       color=style.GREY)  # fmt: skip


def plot_recall(per_class: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw the recall of each class with its 95 % interval, worst on top.

    Args:
        per_class: rows of evaluate: name, recall, low, high, support. Of more than 40, the
            40 worst are drawn.
        path: the PNG to write.
    """
    labels = style.drawable([row["name"] for row in per_class])
    rows = [(row, label) for row, label in zip(per_class, labels, strict=True) if row["support"]]
    mean = float(np.mean([row["recall"] for row, _ in rows])) if rows else 0.0
    rows = sorted(rows, key=lambda pair: pair[0]["recall"])[:_MOST_BARS]
    few = f" ({_MOST_BARS} worst of {len(per_class)})" if len(per_class) > _MOST_BARS else ""
    figure = style.new_figure(7.4, 1.3 + 0.3 * max(2, len(rows)))
    axes = style.tidy(
        figure.subplots(), f"recall{few}, 95 % interval; dashed: mean of all classes", grid="x"
    )
    for place, (row, _) in enumerate(rows):
        below = row["high"] < mean
        axes.barh(place, row["recall"], 0.66, color=style.VERMILLION if below else style.BLUE)
        axes.hlines(place, row["low"], row["high"], color=style.INK, linewidth=1.4)
        axes.text(1.01, place, f"{100 * row['recall']:.0f} %  of {row['support']}", va="center",
                  fontsize=8.5, color=style.GREY)  # fmt: skip
    axes.axvline(mean, color=style.GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [label for _, label in rows])
    style.plain(axes.get_yticklabels(), fontsize=9, color=style.INK)
    axes.set(xlim=(0, 1), ylim=(max(len(rows), 1) - 0.4, -0.6))
    return style.save(figure, path)


def plot_mistakes(mistakes: Sequence[Mistake], path: str | Path) -> Path:
    """Draw the worst mistakes as a grid of images with true and predicted class.

    Args:
        mistakes: from collect_mistakes, at least none.
        path: the PNG to write.
    """
    columns = min(4, max(1, len(mistakes)))
    rows = max(1, math.ceil(len(mistakes) / columns))
    figure = style.new_figure(max(4.0, 2.25 * columns), 2.75 * rows if mistakes else 1.2)
    grid: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    if not mistakes:
        grid[0].text(0.5, 0.5, "no mistakes", ha="center", va="center", color=style.INK)
    for axes, mistake in zip(grid, mistakes, strict=False):
        _mistake(axes, mistake)
    return style.save(figure, path)


def _mistake(axes: Axes, mistake: Mistake) -> None:
    if mistake.preview is None or isinstance(mistake.preview, str):
        axes.imshow(np.full((2, 2, 3), 229, np.uint8))
        text = axes.text(0.5, 0.5, mistake.preview or "cannot be opened", ha="center",
                         va="center", color=style.GREY, wrap=True)  # fmt: skip
        style.plain([text], fontsize=8.5)
    else:
        smooth = "nearest" if is_tiny(mistake.preview) else "antialiased"
        axes.imshow(np.asarray(mistake.preview), interpolation=smooth)
    true, predicted = style.drawable([mistake.true, mistake.predicted], 22, mistake.places)
    title = axes.set_title(
        f"said {predicted}  {100 * mistake.confidence:.0f} %\nis {true}", fontsize=9,
        color=style.INK, loc="left", linespacing=1.35,
    )  # fmt: skip
    style.plain([title])


def plot_scatter(
    outputs: np.ndarray, targets: np.ndarray, names: Sequence[str], path: str | Path
) -> Path:
    """Draw predicted against true values, a panel an output (the first six).

    Args:
        outputs: float (n, outputs).
        targets: float (n, outputs).
        names: one an output.
        path: the PNG to write.
    """
    outputs, targets = (np.reshape(a, (len(a), -1))[:, :_MOST_SCATTERS] for a in (outputs, targets))
    count = outputs.shape[1]
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = style.new_figure(1.2 + 3.3 * columns, 0.6 + 3.2 * rows)
    grid: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, axes in enumerate(grid):
        if place >= count:
            axes.axis("off")
            continue
        style.tidy(axes, "true", "predicted", style.drawable(names)[place], grid="both")
        style.plain([axes.title, axes._left_title])
        axes.scatter(targets[:, place], outputs[:, place], s=14, alpha=0.6, color=style.BLUE,
                     linewidths=0)  # fmt: skip
        both = np.concatenate([targets[:, place], outputs[:, place]])
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, color=style.GREY, linewidth=1, linestyle="--")
    return style.save(figure, path)


FIGURES: dict[str, Callable[[Mapping[str, Any], Path], Path]] = {
    "confusion": lambda seen, path: plot_confusion(
        seen["metrics"]["confusion"], seen["class_names"], path
    ),
    "reliability": lambda seen, path: plot_reliability(
        seen["outputs"], seen["targets"], path, seen["temperature"]
    ),
    "recall": lambda seen, path: plot_recall(seen["metrics"]["per_class"], path),
    "mistakes": lambda seen, path: plot_mistakes(seen["mistakes"], path),
    "scatter": lambda seen, path: plot_scatter(
        seen["outputs"], seen["targets"], seen["class_names"], path
    ),
}
"""What a task may show of its results, by name; see :func:`draw_figures`."""


def plot_learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    path: str | Path,
    suggestion: float | None = None,
) -> Path:
    """Draw loss against learning rate, from a search that raises it step by step.

    Args:
        rates: > 0, rising.
        losses: one a rate; what is not finite is left out, what diverges is cut off.
        path: the PNG to write.
        suggestion: the learning rate to mark.
    """
    tried, found = np.asarray(rates, float), np.asarray(losses, float)
    known = np.isfinite(found) & (tried > 0)
    tried, found = tried[known], found[known]
    figure = style.new_figure(7.4, 4.2)
    axes = style.tidy(figure.subplots(), "learning rate", "loss", grid="both")
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
                      ha="right" if len(tried) and suggestion > np.median(tried) else "left",
                      )  # fmt: skip
    return style.save(figure, path)


def plot_probe(probe: Mapping[str, Any], path: str | Path) -> Path:
    """Draw accuracy and log loss of ridge regression at each place, the best at the top.

    Args:
        probe: "probe" of a run's record.
        path: the PNG to write.
    """
    rows = probe["compared"]
    figure = style.new_figure(8.6, 1.3 + 0.36 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    style.tidy(left, "accuracy of ridge, %", grid="x")
    style.tidy(right, "its log loss (lower is better)", grid="x")
    for place, row in enumerate(rows):
        color = style.BLUE if row["place"] == probe["at"] else style.GREY
        left.plot(100 * row["accuracy"], place, "o", color=color, markersize=8)
        right.barh(place, row["log_loss"], color=color, height=0.55)
    left.set_yticks(range(len(rows)), [style.shorten(row["place"], 40) for row in rows])
    style.plain(left.get_yticklabels())
    left.set_ylim(len(rows) - 0.4, -0.6)
    return style.save(figure, path)


def plot_update(update: Mapping[str, Any], path: str | Path) -> Path:
    """Draw accuracy before and after, with 95 % intervals, by where the images are from.

    Args:
        update: "update" of a run's record.
        path: the PNG to write.
    """
    rows = list(update["accuracy"].items())
    figure, places = style.new_figure(8.0, 1.2 + 0.62 * len(rows)), np.arange(len(rows))
    axes = style.tidy(figure.subplots(), "accuracy, % (with 95 % intervals)", grid="x")
    for offset, when, color in ((-0.13, "before", style.ORANGE), (0.13, "after", style.BLUE)):
        low, values, high = (
            np.array([row[when][key] for _, row in rows]) for key in ("low", "value", "high")
        )
        axes.errorbar(
            100 * values, places + offset, fmt="o", color=color, capsize=3, markersize=6,
            xerr=100 * np.clip([values - low, high - values], 0, 1), label=f"{when} the update",
        )  # fmt: skip
    axes.set_yticks(places, [f"{name} ({thousands(row['count'])})" for name, row in rows])
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    style.legend(axes, columns=2)
    return style.save(figure, path)
