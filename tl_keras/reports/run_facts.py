"""What a run's record says, in words: tolerant of whatever an older record lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tl_keras.reports.history import number

__all__ = [
    "added", "confusions", "duration", "majority", "main_split", "merged_stages", "pick",
    "split_totals", "thousands",
]


def pick(record: Any, *keys: str, default: Any = None) -> Any:
    """A value from nested dicts.

    Args:
        record: a dict of dicts.
        *keys: the way down.
        default: stands in where a step is missing or None.

    Returns:
        The value or the default.
    """
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return default if record is None else record


def main_split(evaluations: Mapping[str, dict]) -> str | None:
    """The split that speaks for the model: test, else validation, else what there is.

    Args:
        evaluations: figures a split.

    Returns:
        Its name, None where nothing was evaluated.
    """
    return next((s for s in ("test", "val", *evaluations) if evaluations.get(s)), None)


def thousands(value: Any) -> str:
    """A whole number with thin spaces.

    Args:
        value: a number, or nothing.

    Returns:
        "2 257 984", or "" for what is no number.
    """
    known = number(value)
    return f"{known:,.0f}".replace(",", "\u202f") if known == known else ""


def duration(seconds: Any) -> str:
    """A time as people say it.

    Args:
        seconds: a number, or nothing.

    Returns:
        "8.3 s", "2 min 05 s" or "1 h 12 min"; "" for what is no number.
    """
    known = number(seconds)
    if known != known:
        return ""
    if known < 60:
        return f"{known:.1f}\u202fs"
    minutes, rest = divmod(round(known), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest:02d}\u202fs"
    return f"{minutes // 60}\u202fh {minutes % 60:02d}\u202fmin"


def split_totals(run: Mapping[str, Any]) -> dict[str, int]:
    """Pictures a split.

    Args:
        run: the content of run.json.

    Returns:
        {split: count}; empty where the record has no counts.
    """
    # A picture may have several tags, or none: its classes' counts do not add up to pictures.
    counts = pick(run, "data", "pictures", default=pick(run, "data", "counts", default={}))
    return {
        split: sum(of.values()) if isinstance(of, Mapping) else int(of)
        for split, of in counts.items()
    }


def majority(evaluation: Mapping[str, Any]) -> tuple[str, float] | None:
    """What always naming the commonest class would score.

    Args:
        evaluation: figures of one split.

    Returns:
        (class name, accuracy 0..1), None where there are no classes.
    """
    rows = evaluation.get("per_class") or []
    total = sum(row["support"] for row in rows)
    if not total:
        return None
    top = max(rows, key=lambda row: row["support"])
    return top["name"], top["support"] / total


def confusions(evaluation: Mapping[str, Any], most: int = 5) -> list[tuple[str, str, int, int]]:
    """The commonest mistakes.

    Args:
        evaluation: figures of one split.
        most: at most how many.

    Returns:
        (true name, predicted name, times, pictures of the true class), commonest first.
    """
    matrix, rows = evaluation.get("confusion") or [], evaluation.get("per_class") or []
    found = [
        (rows[i]["name"], rows[j]["name"], count, rows[i]["support"])
        for i, line in enumerate(matrix)
        for j, count in enumerate(line)
        if i != j and count
    ]
    return sorted(found, key=lambda mistake: -mistake[2])[:most]


def added(run: Mapping[str, Any]) -> str:
    """What was added to the base: LoRA or adapters.

    Args:
        run: the content of run.json.

    Returns:
        "lora on 15 layers (width 4), 54 016 weights; with the head 2.9 % of the model", or ""
        where nothing was added.
    """
    told = [
        f"{kind.replace('_', ' ')} on {len(widths)} layer{'s' * (len(widths) != 1)} "
        f"(width {_range(widths.values())})"
        for kind, widths in pick(run, "adaptation", "branches", default={}).items()
    ]
    if not told:
        return ""
    weights = thousands(pick(run, "adaptation", "parameters", "branches"))
    share = f"{100 * number(pick(run, 'adaptation', 'share')):.1f}\u202f%"
    return f"{', '.join(told)}, {weights} weights; with the head {share} of the model"


def _range(values: Iterable[int]) -> str:
    ends = sorted(set(values))
    return str(ends[0]) if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def merged_stages(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was planned and what came of it, stage by stage.

    Args:
        run: the content of run.json.

    Returns:
        A dict a stage: the plan's keys under "planned", the outcome's at the top.
    """
    planned: Iterable = pick(run, "plan", "stages", default=[])
    done = {str(stage.get("name")): stage for stage in pick(run, "stages", default=[])}
    result = []
    for stage in planned:
        outcome = done.pop(str(stage.get("name")), {})
        result.append({"name": stage.get("name", ""), **outcome, "planned": stage})
    return result + [{**outcome, "planned": {}} for outcome in done.values()]
