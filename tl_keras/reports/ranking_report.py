"""Advice as a picture, a page and JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_keras.analysis.ranking import JUDGE, Appraisal, as_good, in_order, recommendation
from tl_keras.reports import html as page
from tl_keras.reports import style
from tl_keras.reports.run_facts import duration
from tl_keras.utils.files import write_atomically

__all__ = ["plot_advice", "section", "write_advice"]

_LEGEND = (
    "Rank: by the likelihood that ridge regression on the frozen features gives to pictures it "
    "has not seen (leave-one-out). Ridge and k-NN: leave-one-out accuracy, with a 95 % interval "
    "from the pictures looked at. LogME, H-score and LEEP: higher is better, no unit. "
    "Fine-tuning: plan lp-ft on all training pictures, from a few steps measured on this "
    "machine. Size and latency: of an ONNX file of the features in ONNX Runtime on this "
    "machine, one picture at a time."
)


def write_advice(
    folder: Path, title: str, appraisals: Sequence[Appraisal], facts: dict[str, Any]
) -> Path:
    """Write report.html, advice.png and advice.json into a folder.

    Args:
        folder: Made if missing.
        title: Which pictures, plain text.
        appraisals: Of one candidate or more.
        facts: Of the data and the command, for the JSON file.

    Returns:
        The page's path.

    Raises:
        StorageError: It cannot be written.
    """
    plot = plot_advice(appraisals, folder / "advice.png")
    ordered = in_order(appraisals)
    record = {
        **facts,
        "judged_by": JUDGE,
        "recommendation": recommendation(appraisals),
        "candidates": [dataclasses.asdict(one) for one in ordered],
    }
    write_atomically(folder / "advice.json", (json.dumps(record, indent=1) + "\n").encode())
    head = f"<header>\n<h1>{page.name(title)}</h1>\n</header>\n<main>"
    body = f"{head}\n{section(appraisals, plot)}\n</main>\n"
    return write_atomically(
        folder / "report.html", page.page(title, body).encode("utf-8", "replace")
    )


def section(appraisals: Sequence[Appraisal], plot: Path) -> str:
    """Return the advice as a part of a page, HTML.

    Args:
        appraisals: Of one candidate or more.
        plot: From :func:`plot_advice`.
    """
    words = recommendation(appraisals)
    return page.section(
        "Which base to take",
        page.paragraph(page.escape(words)),
        page.png(plot, words, "Up and left is better. Bars: 95 % intervals."),
        _table(appraisals),
        page.paragraph(page.escape(_LEGEND), "soft"),
    )


def _table(appraisals: Sequence[Appraisal]) -> str:
    has_leep = any("leep" in one.scores for one in appraisals)
    heads = ["candidate", "rank", "ridge", "k-NN", "LogME", "H-score"]
    heads += ["LEEP"] if has_leep else []
    heads += ["fine-tuning", "as ONNX"]
    equal = {one.name for one in as_good(appraisals)}
    rows = []
    for rank, one in enumerate(in_order(appraisals), 1):
        cells = [_breakable(one.name), f"{rank}{'*' if one.name in equal else ''}"]
        cells += [_share(one, "ridge"), _share(one, "knn")]
        cells += [f"{one.scores['logme']:.3f}", f"{one.scores['h_score']:.2f}"]
        if has_leep:
            cells.append(f"{one.scores['leep']:.3f}" if "leep" in one.scores else "–")
        costs = one.costs
        onnx = f"{costs.size / 1e6:.1f}\u202fMB, {costs.latency:.1f}\u202fms"
        rows.append([*cells, duration(costs.fine_tuning), onnx])
    table = page.table(heads, rows, ["", *["n"] * (len(heads) - 1)])
    note = "* these pictures do not tell it from the first." if len(equal) > 1 else ""
    return table + page.paragraph(note, "soft")


def _breakable(name: str) -> str:
    """A candidate's name that may be broken before each of its parts."""
    return re.sub(r"([:@=_+])", r"<wbr>\1", page.name(name))


def _share(one: Appraisal, score: str) -> str:
    low, high = one.intervals[score]
    said = f"({100 * low:.0f} to {100 * high:.0f})"
    return f'{page.share(one.scores[score])} <span class="soft">{said}</span>'


def plot_advice(appraisals: Sequence[Appraisal], path: Path) -> Path:
    """Draw accuracy with its interval against latency, a point a candidate.

    Args:
        appraisals: Of one candidate or more.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: It cannot be written.
    """
    figure = style.new_figure(8.6, 1.6 + 0.42 * len(appraisals))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    ordered, equal = in_order(appraisals), {one.name for one in as_good(appraisals)}
    places = range(len(ordered))
    for place, one in zip(places, ordered, strict=True):
        colour = style.BLUE if one.name in equal else style.GREY
        low, high = (100 * side for side in one.intervals["ridge"])
        left.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.45)
        left.plot(100 * one.scores["ridge"], place, "o", color=colour, markersize=8)
        right.barh(place, one.costs.latency, color=colour, height=0.6)
        text = f" {one.costs.latency:.1f} ms, {one.costs.size / 1e6:.1f} MB"
        right.annotate(text, (one.costs.latency, place), va="center", fontsize=9, color=style.INK)
    left.set_yticks(list(places), [style.shorten(one.name, 38) for one in ordered])
    style.plain(left.get_yticklabels())
    left.invert_yaxis()
    left.set_xlabel("ridge on its features, accuracy in %", color=style.INK)
    right.set_xlabel("latency in ms (ONNX Runtime)", color=style.INK)
    right.set_xlim(0, 1.75 * max(one.costs.latency for one in ordered))
    for axes in (left, right):
        style.tidy(axes, grid="x")
    return style.save(figure, path)
