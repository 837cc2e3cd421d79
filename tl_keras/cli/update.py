"""The command update: teach a trained run more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import (
    bars,
    command_line,
    error_boundary,
    percent,
    score_table,
    show,
    table,
)

__all__ = ["update"]

_HOLDING = {"ewc", "l2sp", "lwf"}


def update(  # noqa: PLR0913 - a command's options are its arguments
    run: opt.Run,
    data: Annotated[
        str, typer.Argument(metavar="NEW", help="New images: class folders, or a CSV file.")
    ],
    out: opt.RunOut,
    keep: Annotated[
        str,
        typer.Option(help="replay, ewc, l2sp, lwf and streaming, with commas between; or none."),
    ] = "replay",
    memory: Annotated[
        str, typer.Option(help="Size of the images that the new run keeps within itself.")
    ] = "20MB",
    exemplars: Annotated[
        str | None,
        typer.Option(
            help="How replay chooses: herding, balanced or reservoir.", show_default="herding"
        ),
    ] = None,
    new_class: Annotated[
        list[str] | None,
        typer.Option(help="A class that is new though its name looks like another's."),
    ] = None,
    epochs: opt.Epochs = "",
    lr_scale: Annotated[
        float | None,
        opt.number("Factor on the learning rates.", 0, 1000, above=True, show_default="1"),
    ] = None,
    strength: Annotated[
        float | None,
        opt.number("Factor on the pull of ewc, l2sp, lwf.", 0, 10**6, above=True, show_default="1"),
    ] = None,
    skip_bad: opt.SkipBad = False,
    debug: opt.Debug = False,
) -> None:
    """Teach a run new classes or new images, without forgetting.

    The run stays as it is; what it learns goes into a new one.

    Example:  tl-keras update runs/photos new_photos/ --out runs/photos2
    """
    with error_boundary(debug, lambda: f"{run} is as it was, and {out} was not written."):
        from tl_keras.workflows.update import UpdateConfig
        from tl_keras.workflows.update import update as learn_more

        ways = tuple(word for word in opt.split_words(keep) if word != "none")
        steps = "streaming" not in ways
        opt.refuse_unused("--exemplars", exemplars, "replay" in ways, "--keep replay")
        held = bool(_HOLDING & {*ways})
        opt.refuse_unused("--strength", strength, held, "--keep ewc, l2sp or lwf")
        opt.refuse_unused("--lr-scale", lr_scale, steps, "a --keep without streaming")
        opt.refuse_unused("--epochs", epochs or None, steps, "a --keep without streaming")
        request = UpdateConfig(
            str(run), data, ways, memory, exemplars or "herding", tuple(new_class or ()),
            opt.split_numbers(epochs), lr_scale or 1.0, strength or 1.0, skip_bad,
        )  # fmt: skip
        with bars() as progress:
            done = learn_more(request, out, progress=progress, command=command_line())
        _show(done)


def _show(run: Any) -> None:
    from tl_keras.reports.run_report import UPDATE_CHANGES, lost

    facts = run.record["update"]
    made = table("what was learnt, and what was kept", "images", "count", "before", "after")
    for name, row in facts["accuracy"].items():
        made.add_row(name, str(row["count"]), percent(row["before"]), percent(row["after"]))
    for key, (name, _) in UPDATE_CHANGES.items():
        if facts.get(key) is not None:
            made.add_row(name, "", "", f"{100 * facts[key]:+.1f} points")
    notes = [note for note in [lost(facts)] if note]
    noun = run.modality.noun
    show(made, *notes, score_table("scores of the new run", run.record["metrics"], noun))
    memory = facts["memory"]
    show(
        f"kept in the run: {memory['exemplars']} images to learn from again, "
        f"{memory['bytes'] / 1e6:.2f} MB with those to score with",
        f"figure: {run.path / 'plots' / 'update.png'}",
        f"report: {run.path / 'report.html'}",
    )
