"""Where a probe looked and what it found, drawn and as a part of the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_keras.reports import html as page
from tl_keras.reports import style
from tl_keras.reports.run_facts import pick, thousands

__all__ = ["plot_probe", "probe_section"]

_HOW = (
    "Each place is judged by ridge regression on its features: leave-one-out on the training "
    "pictures and, with them, the validation pictures. The classifier is fitted at the first."
)


def plot_probe(facts: Mapping[str, Any], path: str | Path) -> Path:
    """Accuracy and log loss of ridge regression at each place, the best at the top.

    Args:
        facts: "probe" of a run's record.
        path: The PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: It cannot be written.
    """
    rows = facts["compared"]
    figure = style.new_figure(8.6, 1.3 + 0.36 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        colour = style.BLUE if row["place"] == facts["at"] else style.GREY
        left.plot(100 * row["accuracy"], place, "o", color=colour, markersize=8)
        right.barh(place, row["log_loss"], color=colour, height=0.55)
    left.set_yticks(range(len(rows)), [style.shorten(row["place"], 40) for row in rows])
    style.plain(left.get_yticklabels())
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel("accuracy of ridge, %", color=style.INK)
    right.set_xlabel("its log loss (lower is better)", color=style.INK)
    for axes in (left, right):
        style.tidy(axes, grid="x")
    return style.save(figure, path)


def probe_section(run: Mapping[str, Any], plots: Mapping[str, Path]) -> str:
    """The classifier, where its features are from, and the places compared; "" for others."""
    facts = pick(run, "probe", default={})
    if not facts:
        return ""
    pairs = facts["found"].items()
    found = ", ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in pairs)
    words = (
        f"Classifier: {page.escape(facts['classifier'])} on the features at "
        f"<code>{page.escape(facts['at'])}</code>" + (f" ({page.escape(found)})." if found else ".")
    )
    table = page.table(
        ["place", "features", "accuracy", "log loss"],
        [
            [f"<code>{page.escape(row['place'])}</code>", thousands(row["dimensions"]),
             page.share(row["accuracy"]), f"{row['log_loss']:.3f}"]
            for row in facts["compared"]
        ],
        ["", "n", "n", "n"],
    )  # fmt: skip
    drawn = page.png(plots["probe"], "accuracy at each place", "") if "probe" in plots else ""
    return page.section(
        "Where the features are from", page.paragraph(words), table, drawn,
        page.paragraph(_HOW, "soft"),
    )  # fmt: skip


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
