"""The report of a verdict on transfer: one page, a picture and the figures as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tl_keras.analysis.transfer_benefit import Comparison
from tl_keras.reports import html as page
from tl_keras.reports import style
from tl_keras.utils.files import write_atomically

__all__ = ["plot_verdict", "write_verdict"]


def plot_verdict(found: Comparison, path: str | Path) -> Path:
    """Draw every run's accuracy, and the difference with its interval.

    Args:
        found: From `tl_keras.analysis.transfer_benefit.compare_transfer`.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: It cannot be written.
    """
    figure, verdict = style.new_figure(8.6, 2.9), found.verdict
    runs, gap = figure.subplots(1, 2)
    style.tidy(runs, grid="x")
    ways = ((found.pretrained, style.BLUE), (found.scratch, style.ORANGE))
    for place, (right, colour) in enumerate(ways):
        runs.scatter(100 * right.mean(axis=1), [place] * len(right), s=45, color=colour, alpha=0.7)
        runs.plot([100 * right.mean()] * 2, [place - 0.25, place + 0.25], color=style.INK)
    runs.set_yticks([0, 1], ["pretrained", "scratch"])
    runs.set_ylim(1.6, -0.6)
    runs.set_xlabel("accuracy of each run, per cent (bar: mean)", fontsize=9)
    style.tidy(gap, grid="x")
    gap.axvline(0, color=style.GREY, linewidth=1)
    low, high = 100 * verdict.low, 100 * verdict.high
    gap.plot([low, high], [0, 0], color=style.BLUE, linewidth=3)
    gap.scatter([100 * verdict.difference], [0], s=70, color=style.BLUE, zorder=3)
    gap.set_yticks([])
    gap.set_xlabel("points gained by pretraining, 95 % interval", fontsize=9)
    gap.set_title(verdict.word, fontsize=10.5, loc="left")
    return style.save(figure, path)


def write_verdict(folder: Path, title: str, budget: str, found: Comparison) -> Path:
    """Write report.html, verdict.json and verdict.png into a folder.

    Args:
        folder: Made if missing; older files of these names are replaced.
        title: Which base and which data, plain text.
        budget: What each run was given, plain text.
        found: What the runs gave.

    Returns:
        The page's path.

    Raises:
        StorageError: It cannot be written.
    """
    plot, verdict = plot_verdict(found, folder / "verdict.png"), found.verdict
    facts = {**dataclasses.asdict(verdict), "sentence": verdict.sentence, "budget": budget}
    write_atomically(folder / "verdict.json", (json.dumps(facts, indent=1) + "\n").encode())
    rows = [
        [name, page.share(float(right.mean())),
         ", ".join(page.share(float(one.mean())) for one in right)]
        for name, right in (("pretrained", found.pretrained), ("scratch", found.scratch))
    ]  # fmt: skip
    body = "\n".join([
        f"<header><h1>Does pretraining help? {page.name(title)}</h1>",
        page.paragraph(page.escape(verdict.sentence)), "</header>\n<main>",
        page.section(
            "The runs", page.table(["", "mean accuracy", "each seed"], rows, ["", "n", "n"]),
            page.png(plot, "Accuracy of every run, and the difference with its interval.", "")),
        page.section("How it was found", page.paragraph(page.escape(budget)), page.paragraph(
            "The interval resamples pictures, the same for both ways, and seeds. A difference "
            "below one point counts as none. Another budget, or more labelled pictures, may "
            "give another verdict.")), "</main>",
    ])  # fmt: skip
    html = page.page(f"Does pretraining help? {title}", body + "\n")
    return write_atomically(folder / "report.html", html.encode("utf-8", "replace"))
