"""Write the report on whether pretraining helps: one page, a plot and the figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.reports import style
from tl_keras.reports.html import write_page
from tl_keras.utils.files import atomic_files, write_atomically

__all__ = ["plot_transfer", "write_transfer_report"]


def write_transfer_report(
    folder: Path, title: str, facts: Mapping[str, Any], runs: Mapping[str, np.ndarray]
) -> Path:
    """Write report.html, verdict.json and verdict.png into a folder.

    Args:
        folder: made if missing; older files of these names are replaced.
        title: which base and which data, plain text.
        facts: difference, low and high (0..1), word, sentence, and budget (what each run was
            given), and what else belongs into the JSON file.
        runs: "pretrained" and "scratch", bool (seeds, images): where each run was correct.

    Returns:
        The page's path.

    Raises:
        StorageError: it cannot be written.
    """
    shares = {name: right.mean(axis=1) for name, right in runs.items()}
    with atomic_files(folder) as made:
        plot = plot_transfer(facts, runs, made / "verdict.png")
        write_atomically(made / "verdict.json", (json.dumps(facts, indent=1) + "\n").encode())
        write_page(
            made / "report.html", "transfer.html.j2", title=f"Does pretraining help? {title}",
            facts=facts, plot=plot, runs=shares,
        )  # fmt: skip
    return folder / "report.html"


def plot_transfer(
    facts: Mapping[str, Any], runs: Mapping[str, np.ndarray], path: str | Path
) -> Path:
    """Draw every run's accuracy, and the difference with its interval.

    Args:
        facts: see :func:`write_transfer_report`.
        runs: the same.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    figure = style.new_figure(8.6, 2.9)
    left, right = figure.subplots(1, 2)
    style.tidy(left, "accuracy of each run, % (bar: mean)", grid="x")
    style.tidy(right, "points gained by pretraining, 95 % interval", title=facts["word"], grid="x")
    for place, (correct, color) in enumerate(zip(runs.values(), (style.BLUE, style.ORANGE))):
        scores = 100 * correct.mean(axis=1)
        left.scatter(scores, [place] * len(scores), s=45, color=color, alpha=0.7)
        left.plot([scores.mean()] * 2, [place - 0.25, place + 0.25], color=style.INK)
    left.set_yticks(range(len(runs)), list(runs))
    left.set_ylim(1.6, -0.6)
    low, middle, high = (100 * facts[key] for key in ("low", "difference", "high"))
    right.axvline(0, color=style.GREY, linewidth=1)
    right.plot([low, high], [0, 0], color=style.BLUE, linewidth=3)
    right.scatter([middle], [0], s=70, color=style.BLUE, zorder=3)
    right.set_yticks([])
    return style.save(figure, path)
