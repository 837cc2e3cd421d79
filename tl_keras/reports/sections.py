"""The parts of a run's report; each is "" where its figures are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.reports import html as page
from tl_keras.reports.history import best_row, column, number, stage_spans
from tl_keras.reports.run_facts import (
    confusions,
    duration,
    main_split,
    majority,
    merged_stages,
    pick,
    split_totals,
    thousands,
)
from tl_keras.reports.sections_data import data, limits, reproducing

if TYPE_CHECKING:
    from tl_keras.evaluation.mistakes import Mistake

__all__ = [
    "calibration", "classes", "confusion", "data", "gallery", "headline", "limits",
    "more_plots", "reproducing", "scores", "title", "training",
]

_SPLITS = {"val": "validation", "test": "test", "train": "training"}
_ROWS = (
    ("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"),
    ("macro_f1", "macro F1"), ("top_k.3", "top-3 accuracy"),
    ("top_k.5", "top-5 accuracy"),
    ("mean_average_precision", "mean average precision"), ("micro_f1", "micro F1"),
    ("exact_match", "all tags right"), ("mae", "mean absolute error"),
    ("rmse", "root mean squared error"), ("r2", "R²"), ("nll", "negative log-likelihood"),
    ("nll_calibrated", "the same, with temperature"), ("ece", "calibration error"),
    ("ece_calibrated", "the same, with temperature"), ("count", "pictures"),
)
_NO_SHARE = {"nll", "nll_calibrated", "mae", "rmse", "r2"}


def title(run: Mapping[str, Any]) -> str:
    """What was trained on what, as plain text."""
    base = pick(run, "base", default="a model")
    root = str(pick(run, "data", "root", default="")).rstrip("/\\").replace("\\", "/")
    steps = pick(run, "update", "steps", default=[])
    words = " + ".join(str(step["name"]) for step in steps) or root.rsplit("/", 1)[-1]
    return f"{base} on {words}" if words else f"{base}"


def headline(run: Mapping[str, Any], evaluations: Mapping[str, dict]) -> str:
    """Title, the one figure that matters with its interval, and the run at a glance."""
    split = main_split(evaluations)
    state = str(pick(run, "state", default="complete"))
    warning = "" if state in ("complete", "done", "finished") else page.paragraph(
        f"This run is not complete (its state is “{page.escape(state)}”): figures may change.",
        "note")
    return (
        f"<header>\n<h1>{page.name(title(run))}</h1>\n{warning}"
        f"{_hero(evaluations[split], _SPLITS.get(split, split)) if split else ''}\n"
        f"{_tiles(run)}\n</header>\n<main>"
    )


def _hero(figures: Mapping[str, Any], split: str) -> str:
    score = figures.get("accuracy")
    if not isinstance(score, Mapping):
        key = next((k for k in ("mean_average_precision", "mae") if k in figures), "count")
        words = f"{dict(_ROWS)[key]} on {thousands(figures.get('count'))} {split} pictures"
        return (f'<div class="hero"><div class="big">{_cell(figures, key)}</div>'
                f"<div><p>{page.escape(words)}</p></div></div>")
    guess = majority(figures)
    count = int(figures.get("count", 0))
    right = f"{thousands(round(score['value'] * count))} of {thousands(count)}"
    baseline = "" if guess is None else (
        f"for comparison: always answering {page.name(guess[0])} gives {page.share(guess[1])}")
    return (
        f'<div class="hero"><div class="big">{page.share(score["value"])}</div><div>'
        f"<p><strong>accuracy</strong>: {right} {page.escape(split)} pictures named rightly</p>"
        f"{page.bar('scale', score['value'], score['low'], score['high'])}"
        f'<p class="soft">95 % interval {page.share(score["low"])} to '
        f'{page.share(score["high"])}{"<br>" if baseline else ""}{baseline}</p></div></div>'
    )


def _tiles(run: Mapping[str, Any]) -> str:
    totals, size = split_totals(run), pick(run, "size")
    seconds = pick(run, "timings", "total", default=pick(run, "timings", "total_seconds"))
    if seconds is None:
        spent = [number(stage.get("seconds")) for stage in merged_stages(run)]
        seconds = sum(s for s in spent if s == s) or None
    return page.term_list((
        ("pictures", thousands(sum(totals.values())) if totals else ""),
        ("classes", thousands(len(pick(run, "classes", default=[])) or None)),
        ("base", page.escape(pick(run, "base", default=""))),
        ("picture size", f"{page.escape(size)}\u202fpx" if size else ""),
        ("plan", page.escape(pick(run, "plan", "name", default=""))),
        ("time", duration(seconds)),
    ), "tiles")


def scores(evaluations: Mapping[str, dict]) -> str:
    """Every figure, a column a split."""
    splits = [s for s in ("val", "test", *evaluations) if evaluations.get(s)]
    splits = list(dict.fromkeys(splits))
    rows = []
    for key, words in _ROWS:
        cells = [_cell(evaluations[split], key) for split in splits]
        if any(cells):
            rows.append([page.escape(words), *(cell or "–" for cell in cells)])
    heads = ["figure", *(_SPLITS.get(split, split) for split in splits)]
    return page.section("Figures", page.table(heads, rows, ["", *["n"] * len(splits)]))


def _cell(figures: Mapping[str, Any], key: str) -> str:
    value = pick(figures, *key.split("."))
    if isinstance(value, Mapping):
        low, high = f"{100 * value['low']:.1f}", page.share(value["high"])
        return f'{page.share(value["value"])} <span class="soft">({low} to {high})</span>'
    if value is None:
        return ""
    if key == "count":
        return thousands(value)
    return f"{value:.3g}" if key in _NO_SHARE else page.share(value)


def training(
    run: Mapping[str, Any], history: Sequence[dict[str, Any]], plots: Mapping[str, Path]
) -> str:
    """The stages in a table, and the curves."""
    rows = [_stage(stage) for stage in merged_stages(run)]
    heads = ["stage", "trains", "weights", "epochs", "best epoch", "best accuracy",
             "learning rate", "time", "frozen up to", "views kept"]
    kept = [c for c in range(len(heads)) if c == 0 or any(row[c] for row in rows)]
    table = page.table(
        [heads[c] for c in kept], [[row[c] or "–" for c in kept] for row in rows],
        ["n" if 2 <= c <= 7 or c == 9 else "" for c in kept])
    precision = pick(run, "precision", "chosen", default="")
    reason = pick(run, "precision", "reason", default="")
    words = f"Arithmetic: {page.escape(precision)}" if precision else ""
    words += f" ({page.escape(reason)})." if words and reason else "." if words else ""
    return page.section(
        "How it was trained", table, page.paragraph(words, "soft"), _curves(history, plots))


def _stage(stage: Mapping[str, Any]) -> list[str]:
    planned, ran = stage["planned"], stage.get("epochs_run")
    epochs = planned.get("epochs")
    count = "" if ran is None else f"{ran}" + (f" of {epochs}" if epochs is not None else "")
    best = number(stage.get("best_val_accuracy"))
    rate, cut = number(planned.get("learning_rate", planned.get("rate"))), stage.get("cut")
    return [
        page.name(stage.get("name", "")),
        page.escape(_words(planned.get("train"))),
        thousands(stage.get("trainable_parameters")),
        page.escape(count or (epochs if epochs is not None else "")),
        # Counted from 0 in the record, from 1 in the plots beside it.
        page.escape("" if stage.get("best_epoch") is None else stage["best_epoch"] + 1),
        page.share(best) if best == best else "",
        f"{rate:.1e}" if rate == rate else "",
        duration(stage.get("seconds")),
        f"<code>{page.escape(cut)}</code>" if cut else "",
        page.escape(stage.get("views") or ""),
    ]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def _curves(history: Sequence[dict[str, Any]], plots: Mapping[str, Path]) -> str:
    if "curves" not in plots:
        return ""
    best, words = best_row(history), ""
    if best is not None:
        accuracy = float(column(history, "val_accuracy")[best])
        of = f", validation accuracy {page.share(accuracy)}" if accuracy == accuracy else ""
        words = f"The weights of epoch {best + 1} were kept{of}."
    averaged = [str(k) for k, row in enumerate(history, 1) if row.get("kept")]
    if len(averaged) > 1:
        words = f"The average of the weights of epochs {' and '.join(averaged)} was kept."
    stages = len(stage_spans(history))
    alternative = (
        f"Loss, accuracy and learning rate over {len(history)} epochs in {stages} stages. {words}"
    )
    return page.png(plots["curves"], alternative, words)


def confusion(evaluations: Mapping[str, dict], plots: Mapping[str, Path]) -> str:
    """The confusion matrix, and the commonest mistakes in words."""
    split = main_split(evaluations)
    common = confusions(evaluations[split]) if split else []
    items = "".join(
        f"<li>{page.name(true)} taken for {page.name(guess)}: {times} of {of}</li>"
        for true, guess, times, of in common
    )
    words = f"<h3>Commonest mistakes</h3><ul class=\"plain\">{items}</ul>" if items else ""
    few = len(pick(evaluations, split or "", "per_class", default=[])) <= 6
    shown = page.png(
        plots["confusion"], "Confusion matrix; the commonest mistakes are listed below it.",
        "Rows: what it is. Columns: what the model said. Blue: right, orange: mistaken; the "
        "darker, the larger the share of the row.", 32 if few else 46,
    ) if "confusion" in plots else ""
    return page.section("What is taken for what", shown, words)


def classes(evaluations: Mapping[str, dict]) -> str:
    """A row a class, with its recall and interval."""
    figures = evaluations.get(main_split(evaluations) or "", {})
    rows = [
        [
            page.name(row["name"]), f"{k}", thousands(row["support"]),
            page.bar("recall", row["recall"], row["low"], row["high"]),
            f"{page.share(row['recall'], 0)} <span class=\"soft\">({100 * row['low']:.0f} to "
            f"{100 * row['high']:.0f})</span>" if row["support"] else "–",
            page.share(row["precision"], 0), page.share(row["f1"], 0),
        ]
        for k, row in enumerate(figures.get("per_class") or [])
    ]
    heads = ["class", "#", "pictures", "recall", "with 95 % interval", "precision", "F1"]
    table = page.table(heads, rows, ["", "n", "n", "w", "n", "n", "n"])
    words = page.paragraph(
        "Recall: of the pictures of a class, the share named rightly. Precision: of the "
        "pictures given that name, the share that deserve it. # is the model's output.", "soft")
    shown = page.details(f"All {len(rows)} classes", table) if len(rows) > 40 else table
    return page.section("Class by class", words if rows else "", shown, _outputs(figures))


def _outputs(figures: Mapping[str, Any]) -> str:
    rows = figures.get("per_tag") or figures.get("per_output") or []
    keys = [key for key in (rows[0] if rows else {}) if key != "name"]
    return page.table(
        ["output", *(key.replace("_", " ") for key in keys)],
        [[page.name(r["name"]), *("–" if r[k] is None else f"{r[k]:.4g}" for k in keys)]
         for r in rows], ["", *["n"] * len(keys)])


def calibration(evaluations: Mapping[str, dict], plots: Mapping[str, Path]) -> str:
    """Whether the confidence can be taken at its word."""
    figures = evaluations.get(main_split(evaluations) or "", {})
    if "ece" not in figures:
        return ""
    words = f"Confidence and accuracy are {page.share(figures['ece'])} apart on average."
    if figures.get("temperature") is not None:
        words += _temperature(figures)
    shown = page.png(
        plots["reliability"], words, "Bars: how often it was right. Dots: how sure it was. "
        "On the dashed line both agree. Pale bars: fewer than 10 pictures.",
    ) if "reliability" in plots else ""
    return page.section("Can its confidence be trusted?", page.paragraph(words), shown)


def _temperature(figures: Mapping[str, Any]) -> str:
    """Says that scaling helped only where it did, on pictures it was not fitted on."""
    temperature, left = figures["temperature"], page.share(figures["ece_calibrated"])
    nature = "softens" if temperature > 1 else "sharpens"
    if figures["nll_calibrated"] < figures["nll"] and figures["ece_calibrated"] < figures["ece"]:
        effect = f"and leaves {left}: worth applying where the confidence matters"
    else:
        effect = f"and gives {left}: it does not help here, leave it out"
    return (
        f" Dividing the logits by {temperature:.2f}, fitted on the validation split, {nature} "
        f"it {effect}. The class it names stays the same."
    )


def gallery(mistakes: Sequence[Mistake], plots: Mapping[str, Path]) -> str:
    """The mistakes it was most sure of: look here for wrong labels first."""
    intro = page.paragraph(
        "Wrong, and most sure of it. Look for wrong labels among them: it may be the data.", "soft")
    items = "".join(f"<li>{_mistake(mistake)}</li>" for mistake in mistakes)
    shown = f'<ul class="grid">{items}</ul>' if items else (
        page.png(plots["mistakes"], "Pictures that the model named wrongly.", "")
        if "mistakes" in plots else "")
    return page.section("Its worst mistakes", intro, shown) if shown else ""


def _mistake(mistake: Mistake) -> str:
    file = mistake.source.replace("\\", "/").rsplit("/", 1)[-1]
    alternative = f"{file or 'a picture'}: {mistake.true}, taken for {mistake.predicted}"
    shown = '<span class="gone">cannot be opened</span>' if mistake.picture is None else (
        page.picture(mistake.picture, alternative))
    where = f'<br><span class="soft">{page.name(file)}</span>' if file else ""
    return (
        f"{shown}<p>said <strong>{page.name(mistake.predicted)}</strong> "
        f"{page.share(mistake.confidence, 0)}<br>is {page.name(mistake.true)}{where}</p>"
    )


def more_plots(plots: Mapping[str, Path]) -> str:
    """Plots that have no place of their own."""
    known = {"curves", "confusion", "reliability", "mistakes", "recall", "update", "probe"}
    return page.section("More", *(
        page.png(path, key, page.escape(key)) for key, path in plots.items() if key not in known))
