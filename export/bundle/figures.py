"""The accuracy–latency–size picture: what every variant of a bundle costs and gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from export.bundle.card import fastest, size
from export.variant import Variant
from tl_keras.reports import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "picture"]

_LARGEST, _SMALLEST = 1400.0, 60.0
_LIFT = 18
_COLOURS = {"tflite": style.BLUE, "onnx": style.ORANGE}
_NAMES = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}


def picture(variants: Sequence[Variant], path: Path) -> Path:
    """Draw all variants as PNG.

    Args:
        variants: at least one.
        path: where to write it.

    Returns:
        The path.

    Raises:
        StorageError: if it cannot be written.
    """
    figure = style.new_figure(8.2, 4.8)
    draw(figure.subplots(), variants)
    return style.save(figure, path, 110)


def draw(axes: Axes, variants: Sequence[Variant]) -> None:
    """Draw a circle for each variant: to the left is faster, above is better, small is small.

    The circle's area is the file's size; the line through it is the 95 % interval of the
    accuracy. Where nothing was timed, size takes the place of the latency; where pictures have
    no labels, agreement with Keras that of the accuracy.
    """
    timed = all(variant.latencies for variant in variants)
    across = [_latency(v) if timed else v.bytes / 1e6 for v in variants]
    scored = all(variant.verdict.accuracy is not None for variant in variants)
    above = [100 * (_accuracy(v) if scored else v.verdict.agreement) for v in variants]
    largest = max(variant.bytes for variant in variants)
    for x, y, variant in zip(across, above, variants):
        _circle(axes, x, y, variant, largest)
    _limits(axes, across, above)
    _labels(axes, across, above, variants)
    _reference(axes, variants, scored)
    axes.set_xlabel("ms a picture (median)" if timed else "size, MB")
    axes.set_ylabel("accuracy, %" if scored else "same label as Keras, %")
    style.tidy(axes, grid="both")
    _legend(axes, variants)


def _latency(variant: Variant) -> float:
    latency = fastest(variant)
    return latency.median_ms if latency else float("nan")


def _accuracy(variant: Variant) -> float:
    return variant.verdict.accuracy or 0.0


def _circle(axes: Axes, x: float, y: float, variant: Variant, largest: int) -> None:
    verdict, colour = variant.verdict, _COLOURS[variant.format]
    area = max(_SMALLEST, _LARGEST * variant.bytes / largest)
    axes.scatter([x], [y], s=area, color=colour, alpha=0.35, edgecolors=colour, linewidths=1.5)
    axes.plot([x], [y], ".", color=colour, markersize=4)
    if verdict.accuracy is not None and verdict.low is not None and verdict.high is not None:
        axes.plot([x, x], [100 * verdict.low, 100 * verdict.high], color=colour, lw=1, alpha=0.7)


def _limits(axes: Axes, across: Sequence[float], above: Sequence[float]) -> None:
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


def _labels(
    axes: Axes, across: Sequence[float], above: Sequence[float], variants: Sequence[Variant]
) -> None:
    """Write names to the right of the circles, moved up or down until none covers another."""
    to_pixels, dpi = axes.transData.transform, axes.figure.dpi
    cast(Any, axes.figure).draw_without_rendering()  # settles the layout: places in pixels
    points = [to_pixels((x, y)) * 72 / dpi for x, y in zip(across, above)]
    order = sorted(range(len(points)), key=lambda index: points[index][1])
    places: list[tuple[float, float]] = []
    box = axes.get_window_extent()
    lowest, highest = box.y0 * 72 / dpi, box.y1 * 72 / dpi
    for index in order:
        x, y = _free(points[index], places, lowest + 14, highest - 14)
        places.append((x, y))
        variant = variants[index]
        text = f"{variant.name}\n{size(variant.bytes)}"
        note = axes.annotate(
            text, (across[index], above[index]), xytext=(24, y - points[index][1]),
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


def _reference(axes: Axes, variants: Sequence[Variant], scored: bool) -> None:
    truth = variants[0].verdict.source_accuracy
    if scored and truth is not None:
        axes.axhline(100 * truth, color=style.GREY, lw=1, ls="--", zorder=0)
        axes.annotate(
            "Keras", (1, 100 * truth), xycoords=("axes fraction", "data"), xytext=(-3, 3),
            textcoords="offset points", ha="right", fontsize=8, color=style.GREY,
        )  # fmt: skip


def _legend(axes: Axes, variants: Sequence[Variant]) -> None:
    for format_ in dict.fromkeys(variant.format for variant in variants):
        axes.plot([], [], "o", color=_COLOURS[format_], alpha=0.6, label=_NAMES[format_])
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2,
                borderaxespad=0.2)  # fmt: skip
