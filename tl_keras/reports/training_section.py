"""The section of a run's report that says how it was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tl_keras.reports.facts import Facts
from tl_keras.reports.filters import duration, number, percent, thousands
from tl_keras.reports.history import best_row, column, learning_rate, stage_spans

__all__ = ["describe_training"]


def describe_training(facts: Facts) -> dict[str, Any]:
    """Return the section's content: the stages, planned and done, and which weights were kept."""
    done = {str(stage.get("name")): stage for stage in facts.find("stages", [])}
    pairs = [(plan, done.pop(str(plan.get("name")), {})) for plan in facts.find("plan.stages", [])]
    rows = [_stage(plan, stage) for plan, stage in [*pairs, *(({}, s) for s in done.values())]]
    kept = [head for head in (rows[0] if rows else ()) if any(row[head] for row in rows)]
    words = [place for place, head in enumerate(kept) if head in ("trains", "frozen up to")]
    best, said = best_row(facts.history), ""
    if best is not None:
        accuracy = percent(column(facts.history, "val_accuracy")[best])
        of = f", validation accuracy {accuracy}" if accuracy else ""
        said = f"The weights of epoch {best + 1} were kept{of}."
    averaged = [str(k) for k, row in enumerate(facts.history, 1) if row.get("kept")]
    if len(averaged) > 1:
        said = f"The average of the weights of epochs {' and '.join(averaged)} was kept."
    return {
        "heads": kept, "words": words, "rows": [[row[head] for head in kept] for row in rows],
        "kept": said, "stages": len(stage_spans(facts.history)),
        "chosen": [
            text for stage in facts.find("stages", []) for text in _describe_choice(stage, facts)
        ],
    }  # fmt: skip


def _describe_choice(stage: Mapping[str, Any], facts: Facts) -> list[str]:
    """Say what a stage's folds (or validation) decided, and by what."""
    held = "validation" if facts.evaluations.get("val") else "out of fold"
    if solved := stage.get("solved"):
        loss = number(stage.get("best_val_loss"))
        return [
            f"The head is the optimum of a penalised regression on cached features; of "
            f"{len(solved['tried'])} penalties C = {number(solved['strength']):g} was best "
            f"({held}: loss {loss:.3f})."
        ]
    if not (choice := stage.get("choice")):
        return []
    note = f" {choice['note']}." if choice.get("note") else ""
    tried, alpha = choice.get("tried") or [], number(choice.get("alpha"))
    alone = [number(one["loss"]) for one in tried if not one["alpha"]]
    if not alone or not alpha:
        name = stage.get("name")
        return [f"No training of '{name}' was better {held} than the head alone.{note}"]
    same = [one for one in tried if (one["factor"], one["alpha"]) == (choice["factor"], alpha)]
    most = max(same, key=lambda one: one["folds"])
    factor = number(choice["factor"])
    speed = "the plan's learning rate" if factor == 1 else f"{factor:g} of the plan's learning rate"
    return [
        f"'{stage.get('name')}' goes {alpha:.0%} of the way from the head alone to the trained "
        f"weights, at {speed}: the best of "
        f"{len(tried)} ways tried ({held}: loss {number(most['loss']):.3f}, of the head alone "
        f"{alone[0]:.3f}).{note}"
    ]


def _stage(plan: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, str]:
    ran, epochs, train = stage.get("epochs_run"), plan.get("epochs"), plan.get("train")
    of = [str(part) for part in (ran, epochs) if part is not None]
    rate = learning_rate(plan)
    if stage.get("solved"):
        rate, of = math.nan, ["solved"]
    elif choice := stage.get("choice"):
        rate, of = rate * number(choice.get("factor")), [str(ran)]
    return {
        "stage": str(stage.get("name", plan.get("name", ""))),
        "trains": ", ".join(map(str, train)) if isinstance(train, list | tuple) else train or "",
        "weights": thousands(stage.get("trainable_parameters")),
        "epochs": " of ".join(of),
        # Counted from 0 in the record, from 1 in the plots beside it.
        "best epoch": thousands(number(stage.get("best_epoch")) + 1),
        "best accuracy": percent(stage.get("best_val_accuracy")),
        "learning rate": f"{rate:.1e}" if rate == rate else "",
        "time": duration(stage.get("seconds")),
        "frozen up to": stage.get("cut") or "",
        "views kept": thousands(stage.get("views")),
    }
