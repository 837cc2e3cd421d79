"""The command check-data: look at every image before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, percent, show, show_json, table

if TYPE_CHECKING:
    from tl_keras.analysis.data_quality import Quality
    from tl_keras.runs.config import RunConfig
    from tl_keras.runs.prepare import PreparedData

__all__ = ["check_data"]

_MOST = 20
_PAGE = "check-data.html"


def check_data(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="Look for wrong labels, near duplicates, outliers, classes that look alike and "
            "groups that do badly, too.",
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="The backbone whose features --labels looks at (see: tl-keras bases).",
            show_default="as of fit",
        ),
    ] = None,
    size: opt.Size = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, none, a file, or default: what the backbone comes with.",
            show_default="default",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        opt.new_file(
            "The page that --labels writes, where one looks at the images and corrects them.",
            show_default=_PAGE,
        ),
    ] = None,
    task: opt.Task = "classes",
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """List images that cannot be used, and copies.

    Every image is decoded, as fit does it before it trains. With --labels the images are looked
    at, too: a page shows what may harm, and makes a corrected CSV file that fit reads.

    Example:  tl-keras check-data photos/ --labels --out check.html
    """
    with error_boundary(debug):
        from tl_keras.runs.config import RunConfig
        from tl_keras.runs.prepare import prepare

        for name, value in (("base", base), ("size", size), ("weights", weights), ("out", out)):
            opt.refuse_unused(f"--{name}", value, labels, "--labels")
        config = RunConfig.of(
            data, base or "default", size, weights or "default", task=task, seed=seed
        )  # fmt: skip
        if labels:
            _check_labels(config, out or Path(_PAGE), as_json)
            return
        with bars() as progress:
            checked = prepare(config, progress)
        _show(data, checked, as_json)


def _check_labels(config: RunConfig, page: Path, as_json: bool) -> None:
    from tl_keras.workflows.check_data import check_labels

    with bars() as progress:
        quality = check_labels(config, page, progress)
    if as_json:
        show_json({"data": config.data.source, "page": str(page), **quality.facts()})
        return
    _show_quality(config.data.source, page, quality)


def _show_quality(data: str, page: Path, quality: Quality) -> None:
    from tl_keras.reports.data_report import KINDS

    facts = quality.facts()
    made = table(f"{data}: {facts['count']} {quality.samples.modality.noun}s", "found", "count")
    made.add_row("likely wrong labels", str(facts["suspect_count"]))
    kinds = [kind for kind, _ in quality.duplicates]
    for kind, words in KINDS.items():
        if kind in kinds:
            made.add_row(f"near duplicates {words}", str(kinds.count(kind)))
    made.add_row("unlike all others", str(len(quality.outliers)))
    made.add_row("pairs of classes that look alike", str(len(facts["confusable"])))
    made.add_row("groups that do badly", str(len(facts["weak_groups"])))
    show(made)
    for one in facts["suspects"][:_MOST]:
        show(f"likely wrong: {one['key']} is {one['label']}, looks like {one['suggested']}")
    for pair in facts["confusable"][:_MOST]:
        names, share = " and ".join(pair["classes"]), percent(pair["swapped"])
        show(f"look alike: {names} ({share} swapped)")
    for one in facts["weak_groups"][:_MOST]:
        accuracies = f"{percent(one['accuracy'])} right, the others {percent(one['others'])}"
        show(f"does badly: {one['about']} {one['name']} ({one['count']}), {accuracies}")
    show(f"look at them and correct them: {page}")


def _show(data: str, checked: PreparedData, as_json: bool) -> None:
    splits = checked.splits
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    counts = {name: part.counts() if part else {} for name, part in parts.items()}
    if as_json:
        sizes = {name: len(part) if part else 0 for name, part in parts.items()}
        facts = {"images": sizes, "classes": counts, "fingerprint": checked.fingerprint}
        facts["notes"] = checked.notes
        show_json({"data": data, **facts, "duplicates": checked.duplicates})
        return
    made = table(f"{data}: all images can be used", "class", *parts)
    for name in counts["train"]:
        made.add_row(name, *(str(count.get(name, 0)) for count in counts.values()))
    made.add_row("images", *(str(len(part) if part else 0) for part in parts.values()))
    show(made, *checked.notes, f"fingerprint {checked.fingerprint}")
    for keys in checked.duplicates[:_MOST]:
        show(f"the same image: {', '.join(keys)}")
    if len(checked.duplicates) > _MOST:
        show(f"... and {len(checked.duplicates) - _MOST} more that are there more than once")
