"""Write report.html, a whole run on one page, from a registry of named sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras import tasks
from tl_keras.reports.data_report import KINDS
from tl_keras.reports.facts import Facts, find_at
from tl_keras.reports.filters import as_metric, duration, number, percent, points, thousands
from tl_keras.reports.html import render, write_page
from tl_keras.reports.training_section import describe_training
from tl_keras.tasks.base import Task

if TYPE_CHECKING:
    from tl_keras.evaluation.mistakes import Mistake

__all__ = [
    "GROUPS", "MEMBERS", "METRICS", "SECTIONS", "SHARED", "SUSPECTS", "UPDATE_CHANGES",
    "lost", "write_report",
]  # fmt: skip

METRICS = {
    "accuracy": ("accuracy", "share"), "balanced_accuracy": ("balanced accuracy", "share"),
    "mean_average_precision": ("mean average precision", "share"),
    "auroc": ("area under the ROC curve", "share"),
    "macro_f1": ("macro F1", "share"), "micro_f1": ("micro F1", "share"),
    "exact_match": ("all tags correct", "share"), "top_k.3": ("top-3 accuracy", "share"),
    "top_k.5": ("top-5 accuracy", "share"), "mae": ("mean absolute error", "number"),
    "rmse": ("root mean squared error", "number"), "r2": ("R²", "number"),
    "nll": ("negative log-likelihood", "number"),
    "nll_calibrated": ("negative log-likelihood, with temperature", "number"),
    "ece": ("calibration error", "share"),
    "ece_calibrated": ("calibration error, with temperature", "share"),
}  # fmt: skip
"""Key in a split's metrics (a point goes one level down), its name, and how it is said; what is
not listed here is shown under its key. The first that a run has is its headline."""

UPDATE_CHANGES = {
    "forgetting": ("forgetting", "accuracy lost on earlier steps, from its best until now"),
    "backward": ("backward transfer", "change on earlier steps since each was learned"),
    "forward": (
        "forward transfer",
        "accuracy on a step's known classes before it was learned, above chance",
    ),
}
"""Key in the record of an update, its name, and what it means."""

_SPLITS = {"out_of_fold": "out of fold", "val": "validation", "test": "test", "train": "training"}
_FEW = 20  # images of a class, below which its recall says little
_MOST_LISTED = 500
SUSPECTS, GROUPS, MEMBERS = 12, 8, 4
"""How many suspects, groups of near duplicates and members of each a run's report shows."""


def write_report(
    path: str | Path,
    *,
    run: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Mapping[str, Any]],
    plots: Mapping[str, Path],
    mistakes: Sequence[Mistake] = (),
    previews: Mapping[str, Path] | None = None,
) -> Path:
    """Write one HTML file with every figure and image of a run inside it.

    The results are shown by the sections that the run's task names, see
    `tl_keras.tasks.base.Task.sections`.
    It makes no request and runs no script, follows the reader's light or dark setting, fits
    a phone, and can be printed. Whatever the record lacks is left out. Every name is escaped.

    Args:
        path: the file to write, whole or not at all; an older one is replaced.
        run: the content of run.json.
        history: the rows of history.csv.
        evaluations: what tl_keras.evaluation.metrics.evaluate gave, by split ("val", "test").
        plots: PNG files by what they show, such as "curves" or "confusion"; those that no
            section knows follow under their own names.
        mistakes: from collect_mistakes; shown as a gallery in place of plots["mistakes"].
        previews: files with small images of samples whose quality is in doubt, by key.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    facts = Facts(run, history, evaluations, plots, mistakes, previews or {})
    name = facts.figures.get("task") or facts.find("data.task")
    task = tasks.get(name) if name in tasks.names() else Task()
    names = dict.fromkeys((
        "metrics", "baselines", "update", "probe", "training", "auto", "distillation",
        *task.sections, "plots", "data_quality", "data", "limits", "reproduce",
    ))  # fmt: skip
    return write_page(
        path, "run.html.j2", title=_title(facts), run=run, hero=_hero(facts),
        noun=facts.noun, unit=facts.modality.size_unit, outputs=task.plural,
        warnings=task.warn(dict(facts.figures)),
        images=sum(_totals(facts).values()) or None, seconds=_seconds(facts),
        sections=[part for name in names if (part := _section(name, facts).strip())],
    )  # fmt: skip


def _section(name: str, facts: Facts) -> str:
    context = SECTIONS[name](facts)
    if context is None:
        return ""
    shared = {key: getattr(facts, key) for key in SHARED}
    return render(f"sections/{name}.html.j2", **{**shared, **context})


def _title(facts: Facts) -> str:
    root = _file(str(facts.find("data.root", "")).rstrip("/\\"))
    words = " + ".join(str(step["name"]) for step in facts.find("update.steps", [])) or root
    base = str(facts.find("base", "a model"))
    return f"{base} on {words}" if words else base


def _file(path: str) -> str:
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _totals(facts: Facts) -> dict[str, int]:
    # An image may have several tags, or none: its classes' counts do not add up to images.
    counts = facts.find("data.images") or facts.find("data.pictures") or facts.find("data.counts")
    return {
        split: sum(of.values()) if isinstance(of, Mapping) else int(of)
        for split, of in (counts or {}).items()
    }


def _seconds(facts: Facts) -> Any:
    """The run's time; that of its stages where the record has no total."""
    spent = [number(stage.get("seconds")) for stage in facts.find("stages", [])]
    return facts.find("timings.total") or sum(s for s in spent if s == s) or None


def _hero(facts: Facts) -> dict[str, Any] | None:
    """The one figure that matters: accuracy beside its interval, else the first known metric."""
    figures = facts.figures
    count, split = figures.get("count"), _SPLITS.get(facts.split, facts.split)
    score, rows = figures.get("accuracy"), figures.get("per_class") or []
    if isinstance(score, Mapping):
        total, top = sum(row["support"] for row in rows), {}
        if total:
            most = max(rows, key=lambda row: row["support"])
            top = {"name": most["name"], "share": most["support"] / total}
        right = round(score["value"] * number(count))
        return {
            "big": percent(score["value"]), "score": score, "right": right, "count": count,
            "split": split, "majority": top,
        }  # fmt: skip
    for key in METRICS:
        if (value := find_at(figures, key)) is not None:
            words, kind = METRICS[key]
            big = as_metric(find_at(value, "value", value), kind)
            return {"big": big, "words": words, "count": count, "split": split}
    return None


def _metrics(facts: Facts) -> dict[str, Any]:
    """Every single figure, a column a split: known ones first, others under their keys."""
    splits = [s for s in dict.fromkeys(("test", "val", "out_of_fold", *facts.evaluations)) if
              facts.evaluations.get(s)]  # fmt: skip
    shown = dict(METRICS)
    for split in splits:
        for key, value in facts.evaluations[split].items():
            if key not in ("count", "temperature") and _is_single(value):
                shown.setdefault(key, (key.replace("_", " "), "number"))
    shown["count"] = (f"{facts.noun}s", "count")
    rows = [
        (words, kind, [find_at(facts.evaluations[split], key) for split in splits])
        for key, (words, kind) in shown.items()
    ]
    rows = [row for row in rows if any(value is not None for value in row[2])]
    return {"splits": [_SPLITS.get(split, split) for split in splits], "rows": rows}


def _baselines(facts: Facts) -> dict[str, Any] | None:
    """What simple answers give, beside the model itself; and which it is not better than."""
    found = facts.find("baselines")
    if not found:
        return None
    own = facts.evaluations.get(found[0]["split"]) or {}
    keys = [key for key in METRICS if any(key in one["metrics"] for one in found)]

    def cells(metrics: Mapping[str, Any]) -> list[str]:
        values = [find_at(metrics, key) for key in keys]
        return [
            "" if value is None else as_metric(find_at(value, "value", value), METRICS[key][1])
            for key, value in zip(keys, values, strict=True)
        ]

    first = keys[0] if keys else ""
    said = find_at(find_at(own, first), "value", find_at(own, first))
    worse = first in ("mae", "rmse")
    behind = [
        one["name"] for one in found
        if said is not None and (value := find_at(one["metrics"], first)) is not None
        and (find_at(value, "value", value) - said) * (-1 if worse else 1) >= 0
    ]  # fmt: skip
    rows = [("this model", str(facts.find("plan.name", "")), cells(own))]
    rows += [(one["name"], one["what"], cells(one["metrics"])) for one in found]
    split = _SPLITS.get(found[0]["split"], found[0]["split"])
    return {"rows": rows, "heads": [METRICS[key][0] for key in keys], "behind": behind,
            "split_name": split}  # fmt: skip


def _is_single(value: Any) -> bool:
    value = find_at(value, "value", value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _update(facts: Facts) -> dict[str, Any] | None:
    update = facts.find("update")
    if not update:
        return None
    names = [step["name"] for step in update.get("steps") or []]
    rows = zip(names, update.get("matrix") or [], strict=False)
    return {
        "update": update,
        "lost": lost(update, facts.noun),
        "changes": [
            (name, f"{points(update[key])}: {meaning}")
            for key, (name, meaning) in UPDATE_CHANGES.items() if update.get(key) is not None
        ],
        "after": ["after", *names],
        "steps": [[name, *map(percent, row)] for name, row in rows if len(names) > 2],
    }  # fmt: skip


def lost(update: Mapping[str, Any], noun: str = "image") -> str:
    """Say what an update's figures leave out, plain text; "" where every old image was at hand.

    Args:
        update: "update" of a run's record.
        noun: what one sample is called.
    """
    if not (gone := update.get("gone")):
        return ""
    known = any(name.startswith("old ") for name in update["accuracy"])
    effect = "the figures are without them" if known else "what was forgotten cannot be told"
    return f"{thousands(gone)} earlier {noun}s are no longer where they were: {effect}."


def _distillation(facts: Facts) -> dict[str, Any] | None:
    """Teacher, student alone and distilled student side by side, and how it was taught."""
    found = facts.find("distillation")
    if not found:
        return None
    lesson, scores = found.get("lesson") or {}, found.get("scores") or {}
    parts = str(lesson.get("loss", "")).split("+")
    losses = {"kd": "the teacher's softened probabilities", "dist": "their correlations",
              "features": "its features"}  # fmt: skip
    learned = " and ".join(losses.get(part, part) for part in parts)
    if {"kd", "dist"} & set(parts):
        learned += f" (temperature {lesson.get('temperature')}, weight {lesson.get('alpha')})"
    splits = [split for split in ("val", "test") if any(of.get(split) for of in scores.values())]
    return {
        "facts": found,
        "lesson": lesson,
        "learned": learned,
        "splits": splits,
        "heads": [f"accuracy, {_SPLITS[split]}" for split in splits],
        "models": {"alone": "student alone", "distilled": "student, distilled"},
    }  # fmt: skip


def _confusion(facts: Facts) -> dict[str, Any]:
    matrix, rows = facts.figures.get("confusion") or [], facts.figures.get("per_class") or []
    found = [
        (rows[i]["name"], rows[j]["name"], count, rows[i]["support"])
        for i, line in enumerate(matrix)
        for j, count in enumerate(line)
        if i != j and count
    ]
    common = sorted(found, key=lambda mistake: -mistake[2])[:5]
    return {"common": common, "widest": 32 if len(rows) <= 6 else 46}


def _outputs(facts: Facts) -> dict[str, Any]:
    """A table of every list with a row an output, but for the classes, which have their own."""
    listed = [
        value for key, value in facts.figures.items()
        if key.startswith("per_") and key != "per_class" and value
    ]  # fmt: skip
    tables = []
    for rows in listed:
        keys = [key for key in rows[0] if key != "name"]
        cells = [
            [row.get("name", ""), *("" if row[k] is None else f"{row[k]:.4g}" for k in keys)]
            for row in rows
        ]
        tables.append((["output", *(key.replace("_", " ") for key in keys)], cells))
    return {"tables": tables}


def _calibration(facts: Facts) -> dict[str, Any] | None:
    """Whether the confidence can be taken at its word."""
    figures = facts.figures
    if "ece" not in figures:
        return None
    temperature = figures.get("temperature")
    # Scaling is praised only where it helped, on images it was not fitted on.
    helps = temperature and all(figures[f"{k}_calibrated"] < figures[k] for k in ("nll", "ece"))
    return {"temperature": temperature, "helps": helps}


def _plots(facts: Facts) -> dict[str, Any]:
    """Plots that have no place of their own; recall is drawn in the table of classes."""
    known = {*SECTIONS, "curves", "reliability", "recall", "scatter"}
    return {"others": {key: path for key, path in facts.plots.items() if key not in known}}


def _mistakes(facts: Facts) -> dict[str, Any]:
    """The gallery, and whether it has heatmaps or the record says why not."""
    return {
        "mistakes": [(one, _file(one.source)) for one in facts.mistakes],
        "heatmaps": any(one.heatmap for one in facts.mistakes),
        "words": any(one.words for one in facts.mistakes),
        "no_map": facts.find("feature_map", True) is False,
    }


def _data_quality(facts: Facts) -> dict[str, Any] | None:
    """Labels that are likely wrong, near duplicates, and what was dropped, in short."""
    quality = facts.find("data_quality")
    if not quality:
        return None
    groups = [
        {**group, "cards": [(key, _file(key), facts.previews.get(key))
                            for key in group["keys"][:MEMBERS]]}
        for group in quality.get("near_duplicates", [])[:GROUPS]
    ]  # fmt: skip
    suspects = [
        {**one, "file": _file(one["key"]), "preview": facts.previews.get(one["key"])}
        for one in quality.get("suspects", [])[:SUSPECTS]
    ]
    return {"quality": quality, "groups": groups, "suspects": suspects, "kinds": KINDS,
            "root": facts.find("data.root", "DATA").removeprefix("builtin:")}  # fmt: skip


def _data(facts: Facts) -> dict[str, Any]:
    """Counts a split and class, what was left out, what is there twice."""
    counts = {
        split: of for split, of in facts.find("data.counts", {}).items() if isinstance(of, Mapping)
    }
    listed = [*facts.find("classes", []), *(name for of in counts.values() for name in of)]
    counted = any(count for of in counts.values() for count in of.values())  # values are not
    classes = dict.fromkeys(map(str, listed)) if counted else {}
    groups = [
        (group.get("paths") or group.get("keys")) if isinstance(group, Mapping) else group
        for group in facts.find("data.duplicates", [])
    ]
    return {
        "totals": _totals(facts),
        "splits": list(counts),
        "rows": [[n, *(thousands(of.get(n, 0)) for of in counts.values())] for n in classes],
        "left_out": facts.find("data.left_out", []),
        "duplicates": [[group] if isinstance(group, str) else group for group in groups],
        "most": _MOST_LISTED,
    }


def _limits(facts: Facts) -> dict[str, Any] | None:
    """What the figures cannot say."""
    rows = facts.figures.get("per_class") or []
    small = [row["name"] for row in rows if row["support"] < _FEW]
    if not facts.split:
        return None
    return {"small": small, "few": _FEW, "elsewhere": facts.modality.elsewhere}


def _reproduce(facts: Facts) -> dict[str, Any]:
    """What was added to the base, LoRA or adapters, and which share of the model learns."""
    times = facts.find("timings", {})
    told = []
    for kind, widths in facts.find("adaptation.branches", {}).items():
        ends = sorted(set(widths.values()))
        wide = f"{ends[0]} to {ends[-1]}" if len(ends) > 1 else f"{ends[0]}"
        plural = "s" * (len(widths) != 1)
        told.append(f"{kind.replace('_', ' ')} on {len(widths)} layer{plural} (width {wide})")
    weights = thousands(facts.find("adaptation.parameters.branches"))
    share = percent(facts.find("adaptation.share"))
    added = f"{', '.join(told)}, {weights} weights; with the head {share} of the model"
    return {
        "added": added if told else "",
        "times": {key.replace("_", " "): duration(value) for key, value in times.items()},
    }


SHARED = ("run", "history", "plots", "split", "figures", "noun")
SECTIONS: dict[str, Callable[[Facts], dict[str, Any] | None]] = {
    "metrics": _metrics,
    "baselines": _baselines,
    "update": _update,
    "probe": lambda facts: {} if facts.find("probe") else None,
    "training": describe_training,
    "auto": lambda facts: {} if facts.find("auto") else None,
    "distillation": _distillation,
    "confusion": _confusion,
    "classes": lambda facts: {"rows": facts.figures.get("per_class") or []},
    "calibration": _calibration,
    "outputs": _outputs,
    "mistakes": _mistakes,
    "plots": _plots,
    "data_quality": _data_quality,
    "data": _data,
    "limits": _limits,
    "reproduce": _reproduce,
}
"""By name, what gives a section its values: None leaves it out, else `sections/NAME.html.j2` is
rendered with them and with those of `Facts` that are in `SHARED`."""
