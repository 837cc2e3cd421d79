"""Draw what the files of a bundle cost and give: accuracy, latency and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from export.bundle.card import fastest
from export.variant import Latency, Variant
from tl_keras.reports import style
from tl_keras.reports.filters import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_variants", "plot_latencies", "plot_variants"]

_LARGEST, _SMALLEST = 1400.0, 60.0
_LIFT = 18
_COLORS = {"tflite": style.BLUE, "onnx": style.ORANGE}
_NAMES = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}
_BAR = 0.36


def plot_variants(variants: Sequence[Variant], agreement: str, path: Path) -> Path:
    """Write the figure of :func:`draw_variants` as PNG and return its path.

    Raises:
        StorageError: if it cannot be written.
    """
    figure = style.new_figure(8.2, 4.8)
    draw_variants(figure.subplots(), variants, agreement)
    return style.save(figure, path, 110)


def draw_variants(
    axes: Axes, variants: Sequence[Variant], agreement: str = "same label"
) -> None:
    """Draw a circle for each variant: to the left is faster, above is better, small is small.

    The circle's area is the file's size; the line through it is the 95 % interval of the
    accuracy. Where nothing was timed, size takes the place of the latency; where images have
    no labels, agreement with Keras that of the accuracy.

    Args:
        axes: where to draw.
        variants: at least one.
        agreement: what it is called.
    """
    timed = all(variant.latencies for variant in variants)
    scored = all(variant.verdict.accuracy is not None for variant in variants)
    style.tidy(axes, "ms an image (median)" if timed else "size, MB",
               "accuracy, %" if scored else f"{agreement} as Keras, %", grid="both")  # fmt: skip
    across, above = [], []
    largest = max(variant.bytes for variant in variants)
    for variant in variants:
        latency, verdict, color = fastest(variant), variant.verdict, _COLORS[variant.format]
        x = latency.median_ms if timed and latency else variant.bytes / 1e6
        y = 100 * (verdict.accuracy if scored and verdict.accuracy else verdict.agreement)
        area = max(_SMALLEST, _LARGEST * variant.bytes / largest)
        axes.scatter([x], [y], s=area, color=color, alpha=0.35, edgecolors=color, linewidths=1.5)
        axes.plot([x], [y], ".", color=color, markersize=4)
        if scored and verdict.low is not None and verdict.high is not None:
            axes.plot([x, x], [100 * verdict.low, 100 * verdict.high], color=color, lw=1, alpha=0.7)
        across.append(x)
        above.append(y)
    _limit(axes, across)
    for format_ in dict.fromkeys(variant.format for variant in variants):
        axes.plot([], [], "o", color=_COLORS[format_], alpha=0.6, label=_NAMES[format_])
    style.legend(axes, columns=2)
    truth = variants[0].verdict.source_accuracy
    if scored and truth is not None:
        axes.axhline(100 * truth, color=style.GREY, lw=1, ls="--", zorder=0)
        axes.annotate(
            "Keras", (1, 100 * truth), xycoords=("axes fraction", "data"), xytext=(-3, 3),
            textcoords="offset points", ha="right", fontsize=8, color=style.GREY,
        )  # fmt: skip
    _label(axes, across, above, variants)


def _limit(axes: Axes, across: Sequence[float]) -> None:
    """Leave room for the names to the right, and above and below."""
    if max(across) > 8 * min(across) > 0:
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.set_xlim(min(across) / 1.6, max(across) * 2.6)
    else:
        axes.set_xlim(0, 1.3 * max(across))
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(0.62 * (high - low), 1.0)
    axes.set_ylim(middle - half, middle + half)


def _label(
    axes: Axes, across: Sequence[float], above: Sequence[float], variants: Sequence[Variant]
) -> None:
    """Write names to the right of the circles, moved up or down until none covers another."""
    to_pixels, dpi = axes.transData.transform, axes.figure.dpi
    cast(Any, axes.figure).draw_without_rendering()  # settles the layout: places in pixels
    points = [to_pixels((x, y)) * 72 / dpi for x, y in zip(across, above)]
    places: list[tuple[float, float]] = []
    box = axes.get_window_extent()
    lowest, highest = box.y0 * 72 / dpi, box.y1 * 72 / dpi
    for index in sorted(range(len(points)), key=lambda index: points[index][1]):
        x, y = _free(points[index], places, lowest + 14, highest - 14)
        places.append((x, y))
        note = axes.annotate(
            f"{variants[index].name}\n{size(variants[index].bytes)}",
            (across[index], above[index]), xytext=(24, y - points[index][1]),
            textcoords="offset points", va="center", fontsize=8, color=style.INK,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
            arrowprops={"arrowstyle": "-", "color": style.GREY, "lw": 0.6, "shrinkB": 3},
        )  # fmt: skip
        note.set_in_layout(False)


def _free(
    point: Sequence[float], places: Sequence[tuple[float, float]], low: float, high: float
) -> tuple[float, float]:
    """The nearest place above or below a point that no label takes, within the frame."""
    x, start = point[0], point[1] + _LIFT
    tries = [start + 25 * sign * step for step in range(12) for sign in (1, -1)]
    inside = [y for y in tries if low <= y <= high] or [start]
    taken = [py for px, py in places if abs(px - x) < 150]
    free = [y for y in inside if all(abs(py - y) >= 24 for py in taken)]
    return x, (free or inside)[0]


def plot_latencies(found: Mapping[str, Sequence[Latency]], path: Path) -> Path:
    """Draw medians as bars with a line to the 90th percentile, the fastest at the top.

    Args:
        found: what `export.runtime.bench.bench` returned.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: if it cannot be written.
    """
    names = sorted(found, key=lambda name: -found[name][-1].median_ms)
    counts = [latency.threads for latency in found[names[0]]]
    figure = style.new_figure(7.5, 1.4 + 0.5 * len(names))
    axes = figure.subplots()
    style.tidy(axes, "ms an image: median, and the 90th percentile", grid="x")
    for place, (count, color) in enumerate(zip(counts, (style.GREY, style.BLUE, style.GREEN))):
        shift = (len(counts) / 2 - place - 0.5) * _BAR
        label = f"{count} thread{'s' * (count > 1)}"
        for index, name in enumerate(names):
            median, row = found[name][place].median_ms, index + shift
            more = max(0.0, found[name][place].p90_ms - median)
            axes.barh(row, median, 0.9 * _BAR, color=color, alpha=0.8, label=label)
            axes.errorbar(median, row, xerr=[[0], [more]], fmt="none", ecolor=style.INK,
                          elinewidth=1, capsize=2)  # fmt: skip
            axes.annotate(f"{median:.3g}", (median + more, row), xytext=(4, 0), va="center",
                          textcoords="offset points", fontsize=8, color=style.INK)  # fmt: skip
            label = ""
    axes.set_yticks(range(len(names)), names)
    style.plain(axes.get_yticklabels())
    axes.margins(x=0.12)
    style.legend(axes, columns=3)
    return style.save(figure, path)
