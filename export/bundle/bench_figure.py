"""Latencies as a plot: one bar a model and number of threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from export.variant import Latency
from tl_keras.reports import style

__all__ = ["plot"]

_BAR = 0.36


def plot(found: Mapping[str, Sequence[Latency]], path: Path) -> Path:
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
    for place, (count, colour) in enumerate(zip(counts, (style.GREY, style.BLUE, style.GREEN))):
        rows = [index + (len(counts) / 2 - place - 0.5) * _BAR for index in range(len(names))]
        medians = [found[name][place].median_ms for name in names]
        beyond = [
            max(0.0, found[name][place].p90_ms - median) for name, median in zip(names, medians)
        ]
        word = f"{count} thread{'s' * (count > 1)}"
        axes.barh(rows, medians, 0.9 * _BAR, color=colour, alpha=0.8, label=word)
        axes.errorbar(medians, rows, xerr=[[0.0] * len(rows), beyond], fmt="none",
                      ecolor=style.INK, elinewidth=1, capsize=2)  # fmt: skip
        for median, more, row in zip(medians, beyond, rows):
            axes.annotate(f"{median:.3g}", (median + more, row), xytext=(4, 0), va="center",
                          textcoords="offset points", fontsize=8, color=style.INK)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("ms a picture: median, and the 90th percentile")
    style.plain(axes.get_yticklabels())
    style.tidy(axes, grid="x")
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return style.save(figure, path)
