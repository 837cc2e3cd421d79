"""The command drift: whether other images differ from those that a run knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, command_line, error_boundary, percent, show, table
from tl_keras.errors import PlanError

if TYPE_CHECKING:
    from tl_keras.workflows.drift import DriftReport

__all__ = ["drift"]


def drift(  # noqa: PLR0913 - a command's options are its arguments
    run: opt.Run,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Class folders, a folder of images, or a CSV file."),
    ] = None,
    corrupt: Annotated[
        str, typer.Option(help="In place of OTHER: half of the held-out images, as in blur:3.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Where to write the report.", show_default="RUN/drift")
    ] = None,
    remedy: Annotated[
        str, typer.Option(help="Write a run made fit for OTHER: batchnorm, first-block or lp-ft.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option(help="The remedy's run.", show_default="RUN-REMEDY")
    ] = None,
    skip_bad: opt.SkipBad = False,
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:
    """Say whether other images differ from a run's.

    The report compares the features and the answers, and estimates the accuracy on the others.

    Example:  tl-keras drift runs/photos other_photos/
    """
    with error_boundary(debug, lambda: f"{run}'s model is as it was, and no new run was written."):
        from tl_keras.runs.directory import refuse_existing
        from tl_keras.workflows.adapt import AdaptConfig, adapt
        from tl_keras.workflows.drift import report_drift

        place = to or Path(f"{os.path.realpath(run)}-{remedy}")
        if remedy:
            asked = AdaptConfig(run=run, data=other, method=remedy, skip_bad=skip_bad)
            refuse_existing(place, other)
        _refuse_places(out, to, place if remedy else None)
        with bars() as progress:
            report = report_drift(
                run, other, corruption=corrupt, out=out, seed=seed, skip_bad=skip_bad,
                progress=progress,
            )  # fmt: skip
            if remedy:
                made = adapt(asked, place, progress=progress, command=command_line())
                report.write(made.fact("remedy"))
        _show(run, other or corrupt, report)
        if remedy:
            _show_remedy(place, made.fact("remedy"))


def _refuse_places(out: Path | None, to: Path | None, place: Path | None) -> None:
    if to and not place:
        raise PlanError(f"--to {to} is where a remedy's run goes; give --remedy, or leave it out")
    if out and place and out.absolute() == place.absolute():
        raise PlanError(f"{out} cannot hold both the report and the remedy's run; give another")


def _show(run: Path, other: str, report: DriftReport) -> None:
    from tl_keras.reports.drift_report import headline
    from tl_keras.reports.filters import p_value

    facts = report.shift.facts
    made = table(f"{run} and {other}", "", "known", "new")
    counts = facts["pictures"]
    made.add_row("images", str(counts["reference"]), str(counts["new"]))
    made.add_row("discrepancy (MMD)", "", p_value(facts["mmd"]["p_value"]))
    made.add_row("A-distance, 0 to 2", "", f"{facts['domain']['a_distance']:.2f}")
    moved = facts["features"]
    made.add_row("features that differ", "", f"{moved['shifted']} of {moved['count']}")
    made.add_row("unlike the training set", "5.0 %", percent(facts["unlike"]))
    for cells in _answers(facts):
        made.add_row(*cells)
    show(made, headline(facts), *report.notes, f"report: {report.page}")


def _answers(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    if "accuracy" not in facts:
        return []
    accuracy, sure = facts["accuracy"], facts["confidence"]
    true = "unknown" if accuracy["true"] is None else percent(accuracy["true"])
    return [
        ("mean confidence", percent(sure["reference"]), percent(sure["new"])),
        ("estimated accuracy", "", percent(accuracy["estimated"])),
        ("... from confidence alone", "", percent(accuracy["thresholded"])),
        ("true accuracy", percent(accuracy["reference"]), true),
    ]


def _show_remedy(place: Path, facts: dict[str, Any]) -> None:
    from tl_keras.reports.drift_report import SETS

    made = table(f"remedy {facts['name']}", "accuracy on", "before", "after", "change")
    for part, name in SETS.items():
        if part in facts:
            found = facts[part]
            change = found["change"]
            points = f"{100 * change['low']:+.1f} to {100 * change['high']:+.1f} points"
            made.add_row(name, percent(found["before"]), percent(found["after"]), points)
    show(made, f"the new run: {place}")
