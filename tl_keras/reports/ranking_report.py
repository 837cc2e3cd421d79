"""Write the report on which base to take: one page, a plot and the figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_keras.reports import style
from tl_keras.reports.filters import size
from tl_keras.reports.html import write_page
from tl_keras.utils.files import atomic_files, write_atomically

__all__ = ["plot_ranking", "write_ranking_report"]


def write_ranking_report(folder: Path, title: str, advice: Mapping[str, Any]) -> Path:
    """Write report.html, advice.png and advice.json into a folder.

    Args:
        folder: made if missing.
        title: which images, plain text.
        advice: candidates (the most promising first, each with name, scores, intervals and
            costs), as_good (names of those that these images do not tell from the first),
            recommendation, and what else belongs into the JSON file.

    Returns:
        The page's path.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_files(folder) as made:
        plot = plot_ranking(advice, made / "advice.png")
        write_atomically(made / "advice.json", (json.dumps(advice, indent=1) + "\n").encode())
        write_page(
            made / "report.html", "ranking.html.j2", title=title, advice=advice, plot=plot,
            leep=any("leep" in one["scores"] for one in advice["candidates"]),
        )  # fmt: skip
    return folder / "report.html"


def plot_ranking(advice: Mapping[str, Any], path: str | Path) -> Path:
    """Draw accuracy with its interval, and latency, a row a candidate.

    Args:
        advice: see :func:`write_ranking_report`.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    candidates = advice["candidates"]
    figure = style.new_figure(8.6, 1.6 + 0.42 * len(candidates))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    style.tidy(left, "ridge on its features, accuracy in %", grid="x")
    style.tidy(right, "latency in ms (ONNX Runtime)", grid="x")
    for place, one in enumerate(candidates):
        color = style.BLUE if one["name"] in advice["as_good"] else style.GREY
        ends, latency = one["intervals"]["ridge"], one["costs"]["latency"]
        left.plot([100 * end for end in ends], [place] * 2, color=color, linewidth=3, alpha=0.45)
        left.plot(100 * one["scores"]["ridge"], place, "o", color=color, markersize=8)
        right.barh(place, latency, color=color, height=0.6)
        text = f" {latency:.1f} ms, {size(one['costs']['size'])}"
        right.annotate(text, (latency, place), va="center", fontsize=9, color=style.INK)
    left.set_yticks(range(len(candidates)), [style.shorten(one["name"], 38) for one in candidates])
    style.plain(left.get_yticklabels())
    left.invert_yaxis()
    right.set_xlim(0, 1.75 * max(one["costs"]["latency"] for one in candidates))
    return style.save(figure, path)
