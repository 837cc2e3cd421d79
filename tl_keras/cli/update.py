"""`tl-keras update`: a trained run learns more."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_keras.cli.console import bars, percent, score_table, show, table, told
from tl_keras.errors import PlanError

__all__ = ["update"]

HELP = (
    "Teach a trained run new classes, or new pictures of its own, without forgetting.\n\n"
    "Example:  tl-keras update runs/photos new_photos/ --keep replay,ewc --out runs/photos2"
)


def update(  # noqa: PLR0913 - a command's options are its arguments
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A directory that fit has written.")],
    data: Annotated[
        str, typer.Argument(metavar="NEW", help="New pictures: class folders, or a CSV file.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the new run; must not exist.")],
    keep: Annotated[
        str, typer.Option(help="replay, ewc, l2sp, lwf, streaming, with commas; or none.")
    ] = "replay",
    memory: Annotated[
        str, typer.Option(help="Size of the pictures that the new run keeps within itself.")
    ] = "20MB",
    exemplars: Annotated[
        str, typer.Option(help="How replay chooses: herding, balanced or reservoir.")
    ] = "herding",
    new_class: Annotated[
        list[str] | None,
        typer.Option(help="A class that is new though its name looks like another's."),
    ] = None,
    epochs: Annotated[
        str, typer.Option(help="Epochs of head and all, with a comma.", show_default="the plan's")
    ] = "",
    rate: Annotated[float, typer.Option(help="Factor on the learning rates.")] = 1.0,
    strength: Annotated[float, typer.Option(help="Factor on the pull of ewc, l2sp, lwf.")] = 1.0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without bad and known pictures.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run `update`; its help says what it does."""
    with told(debug, lambda: f"{run} is as it was, and {out} was not written."):
        from tl_keras.workflows.update.run import Update
        from tl_keras.workflows.update.run import update as learn_more

        words = [word.strip() for word in keep.split(",") if word.strip()]
        request = Update(
            str(run), data, tuple(word for word in words if word != "none"), memory, exemplars,
            tuple(new_class or ()), _epochs(epochs), rate, strength, skip_bad,
        )  # fmt: skip
        with bars() as progress:
            command = shlex.join(["tl-keras", *sys.argv[1:]])
            done = learn_more(request, out, progress=progress, command=command)
        _show(done)


def _epochs(text: str) -> tuple[int, ...]:
    words = [word for word in text.split(",") if word.strip()]
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise PlanError(f"--epochs is '{text}', expected whole numbers of at least 1 with commas")
    return tuple(int(word) for word in words)


def _show(run: Any) -> None:
    from tl_keras.reports.run_report import UPDATE_CHANGES, lost

    facts = run.record["update"]
    made = table("what was learnt, and what was kept", "pictures", "count", "before", "after")
    for name, row in facts["accuracy"].items():
        made.add_row(name, str(row["count"]), percent(row["before"]), percent(row["after"]))
    for key, (name, _) in UPDATE_CHANGES.items():
        if facts.get(key) is not None:
            made.add_row(name, "", "", f"{100 * facts[key]:+.1f} points")
    notes = [note for note in [lost(facts)] if note]
    show(made, *notes, score_table("scores of the new run", run.record["metrics"]))
    memory = facts["memory"]
    show(
        f"kept in the run: {memory['exemplars']} pictures to learn from again, "
        f"{memory['bytes'] / 1e6:.2f} MB with those to score with",
        f"picture: {run.path / 'plots' / 'update.png'}",
        f"report: {run.path / 'report.html'}",
    )
