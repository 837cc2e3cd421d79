"""The report's part about a teacher, for a run that was distilled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_keras.reports import html as page
from tl_keras.reports.run_facts import duration, pick, thousands

__all__ = ["distillation"]

_NAMES = {"teacher": "teacher", "alone": "student alone", "distilled": "student, distilled"}
_SPLITS = {"val": "validation", "test": "test"}
_LOSSES = {
    "kd": "the teacher's softened probabilities",
    "dist": "their correlations",
    "features": "its features",
}


def distillation(run: Mapping[str, Any]) -> str:
    """Teacher, student alone and distilled student side by side, and how it was taught."""
    facts = pick(run, "distillation", default={})
    scores = pick(facts, "scores", default={})
    splits = [split for split in _SPLITS if any(of.get(split) for of in scores.values())]
    kept = pick(facts, "kept", default="")
    rows = [
        [
            page.escape(_NAMES.get(name, name) + (" (this run)" if name == kept else "")),
            *(_accuracy(of.get(split)) for split in splits),
            duration(pick(facts, "seconds", name)),
        ]
        for name, of in scores.items()
    ]
    heads = ["model", *(f"accuracy, {_SPLITS[split]}" for split in splits), "time"]
    return page.section(
        "What the teacher gave",
        page.paragraph(page.escape(pick(facts, "why", default=""))),
        page.table(heads, rows, ["", *["n"] * (len(heads) - 1)]),
        page.paragraph(_words(facts), "soft") if scores else "",
    )


def _accuracy(figures: Any) -> str:
    value = pick(figures, "accuracy")
    if not isinstance(value, Mapping):
        return "–"
    low, high = f"{100 * value['low']:.1f}", page.share(value["high"])
    return f'{page.share(value["value"])} <span class="soft">({low} to {high})</span>'


def _words(facts: Mapping[str, Any]) -> str:
    lesson = pick(facts, "lesson", default={})
    parts = [_LOSSES.get(part, part) for part in str(lesson.get("loss", "")).split("+")]
    said = f"Learned from {' and '.join(parts)}"
    if {"kd", "dist"} & set(str(lesson.get("loss", "")).split("+")):
        said += f" (temperature {lesson.get('temperature')}, weight {lesson.get('alpha')})"
    views, mixed = facts.get("views"), ", mixed in pairs" if lesson.get("mixup") else ""
    teacher = page.name(pick(facts, "teacher", "name", default="the teacher"))
    weights = thousands(pick(facts, "teacher", "parameters"))
    return (
        f"{page.escape(said)}. {teacher} has {weights} weights; it answered once for each of "
        f"{page.escape(views)} views of every training picture{mixed}. Its time is that of these "
        "answers. Both students saw the same views in the same order; which one is better was "
        "judged on the validation pictures."
    )
