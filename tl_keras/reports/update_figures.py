"""What an update kept and gained, drawn and as a part of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.reports import html as page
from tl_keras.reports import style
from tl_keras.reports.run_facts import pick, thousands

__all__ = ["FIGURES", "lost", "plot_update", "update_section"]

FIGURES = (
    ("forgetting", "forgetting", "accuracy lost on earlier steps, from its best until now"),
    ("backward", "backward transfer", "change on earlier steps since each was learnt"),
    ("forward", "forward transfer",
     "accuracy on a step's pictures of known classes before it was learnt, above chance"),
)  # fmt: skip
"""Key in the record, name, and what it means."""


def lost(facts: Mapping[str, Any]) -> str:
    """Say what the figures leave out, plain text; "" where every earlier picture was at hand.

    Args:
        facts: "update" of a run's record.
    """
    if not (gone := facts.get("gone")):
        return ""
    known = "old pictures" in facts["accuracy"]
    effect = "the figures are without them" if known else "what was forgotten cannot be told"
    return f"{thousands(gone)} earlier pictures are no longer where they were: {effect}."


def plot_update(facts: Mapping[str, Any], path: str | Path) -> Path:
    """Accuracy before and after, with 95 % intervals, by where the pictures are from.

    Args:
        facts: "update" of a run's record.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    rows = list(facts["accuracy"].items())
    figure = style.new_figure(8.0, 1.2 + 0.62 * len(rows))
    axes = style.tidy(figure.subplots(), grid="x")
    places = np.arange(len(rows))
    for offset, when, colour in ((-0.13, "before", style.ORANGE), (0.13, "after", style.BLUE)):
        values = np.array([row[when]["value"] for _, row in rows])
        low = values - [row[when]["low"] for _, row in rows]
        high = np.array([row[when]["high"] for _, row in rows]) - values
        axes.errorbar(
            100 * values, places + offset, xerr=100 * np.clip([low, high], 0, 1), fmt="o",
            color=colour, capsize=3, markersize=6, label=f"{when} the update",
        )  # fmt: skip
    axes.set_yticks(places, [f"{name}\n({thousands(row['count'])} pictures)" for name, row in rows])
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy, % (with 95 % intervals)", color=style.INK)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return style.save(figure, path)


def update_section(run: Mapping[str, Any], plots: Mapping[str, Path]) -> str:
    """What was learnt anew, what it cost; "" for a run that was not updated."""
    facts = pick(run, "update", default={})
    if not facts:
        return ""
    new = facts.get("new_classes") or []
    learnt = "New classes: " + ", ".join(map(page.name, new)) if new else "No new class"
    kept = ", ".join(facts.get("keep") or ["nothing"])
    memory = pick(facts, "memory", default={})
    words = (
        f"{learnt}. Against forgetting: {page.escape(kept)}. The run keeps "
        f"{thousands(memory.get('exemplars', 0))} pictures to learn from again, "
        f"{_size(memory.get('bytes', 0))} with those to score with."
    )
    table = page.table(
        ["pictures", "count", "before", "after"],
        [
            [page.escape(name), thousands(row["count"]), _share(row["before"]),
             _share(row["after"])]
            for name, row in facts["accuracy"].items()
        ],
        ["", "n", "n", "n"],
    )  # fmt: skip
    figures = page.term_list(
        ((name, f"{100 * facts[key]:+.1f} points: {meaning}") for key, name, meaning in FIGURES
         if facts.get(key) is not None),
        "facts",
    )  # fmt: skip
    drawn = page.png(plots["update"], "accuracy before and after", "") if "update" in plots else ""
    return page.section(
        "What was learnt, and what was kept", page.paragraph(words), table,
        page.paragraph(lost(facts), "note"), drawn, figures, _steps(facts),
    )  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1e6:.1f}\u202fMB" if count >= 1e6 else f"{count / 1e3:.0f}\u202fkB"


def _share(value: Mapping[str, float]) -> str:
    low, high = page.share(value["low"]), page.share(value["high"])
    return f"{page.share(value['value'])} ({low} to {high})"


def _steps(facts: Mapping[str, Any]) -> str:
    """Accuracy on each step's pictures after each step."""
    steps = facts["steps"]
    if len(steps) < 3:
        return ""
    head = ["after", *(str(step["name"]) for step in steps)]
    rows = [
        [page.name(step["name"]), *("" if cell is None else page.share(cell) for cell in row)]
        for step, row in zip(steps, facts["matrix"])
    ]
    table = page.table(head, rows, ["", *["n"] * len(steps)])
    return page.details("Accuracy on the pictures of each step, after each step", table, True)
