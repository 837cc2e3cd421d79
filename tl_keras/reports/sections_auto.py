"""The report's part about how plan auto chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_keras.reports import html as page
from tl_keras.reports.run_facts import duration, pick

__all__ = ["choice"]


def choice(run: Mapping[str, Any]) -> str:
    """Every short run with its figures, the plan chosen and why; nothing for other plans."""
    auto = pick(run, "auto", default={})
    if not auto:
        return ""
    rows = [_trial(trial, auto["plan"]) for trial in auto["trials"]]
    head = ["plan", "of the pictures", "validation accuracy", "", "loss", "time"]
    table = page.table(head, rows, ["", "n", "n", "w", "n", "n"])
    final = auto.get("final") or {}
    kept = final.get("kept", "")
    ended = f"Kept: the {page.escape(kept)}." if kept else ""
    return page.section(
        "Why this plan", page.paragraph(page.escape(auto["why"])), table, page.paragraph(ended)
    )


def _trial(trial: Mapping[str, Any], chosen: str) -> list[str]:
    name = page.escape(trial["plan"])
    accuracy, loss = trial["accuracy"], trial["loss"]
    if loss is None:
        shown = f'<span class="soft">{page.escape(trial["note"])}</span>'
    else:
        shown = "" if accuracy is None else page.bar("recall", accuracy, accuracy, accuracy)
    return [
        f"<strong>{name}</strong>" if trial["plan"] == chosen else name,
        page.share(trial["share"], 0),
        "" if accuracy is None else page.share(accuracy),
        shown,
        "" if loss is None else f"{loss:.3f}",
        page.escape(duration(trial["seconds"])),
    ]
