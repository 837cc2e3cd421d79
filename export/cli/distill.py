"""The command distill: a small student learns from a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, command_line, error_boundary, percent, show, table
from tl_keras.errors import ExportError

if TYPE_CHECKING:
    from tl_keras.runs.directory import RunDirectory

__all__ = ["distill"]


def distill(  # noqa: PLR0913 - a command's options are its arguments
    teacher: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A finished run, or a .keras file with --data. Several: their mean.",
        ),
    ],
    student: Annotated[
        str, typer.Option(help="A backbone (see: tl-keras bases) or a .keras file.")
    ],
    out: opt.RunOut,
    loss: Annotated[str, typer.Option(help="kd, dist, features, or several with +.")] = "kd",
    temperature: Annotated[
        float | None,
        opt.number("Divides the logits in kd and dist.", 0, 1000, above=True, show_default="4"),
    ] = None,
    alpha: Annotated[
        float | None,
        opt.number("Weight of kd and dist; the labels get the rest.", 0, 1, show_default="0.9"),
    ] = None,
    beta: Annotated[
        float | None, opt.number("Weight of the features.", 0, 10**6, above=True, show_default="1")
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            help="TEACHER:STUDENT layers, with commas between.",
            show_default="the last feature maps",
        ),
    ] = "",
    soup: Annotated[
        bool, typer.Option("--soup", help="Of several runs, average weights instead of answers.")
    ] = False,
    mixup: Annotated[bool, typer.Option("--mixup", help="Mix images in pairs.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train the student alone, too.")
    ] = True,
    data: Annotated[
        str | None,
        typer.Option(help="Where the run's images are now, or those for a .keras file."),
    ] = None,
    size: opt.Size = None,
    weights: opt.Weights = "default",
    plan: opt.Plan = "",
    epochs: opt.Epochs = "",
    lr_scale: opt.LrScale = 1.0,
    batch_size: opt.BatchSize = 32,
    augment: opt.Augment = None,
    views: Annotated[
        int, opt.number("Augmented views of each image that the teacher answers for.", 1, 1000)
    ] = 8,
    seed: Annotated[
        int | None,
        opt.number("Decides the start and the views.", 0, 2**32 - 1, show_default="the run's"),
    ] = None,
    precision: opt.Precision = "auto",
    debug: opt.Debug = False,
) -> None:
    """Let a small student learn from a finished run.

    The student becomes a run of its own. The same student is also trained without the teacher;
    the better of the two on the validation images is handed on. Stopped, the same command goes
    on.

    Example:  tl-export distill runs/big --student mobilenet_v2 --out runs/small
    """
    with error_boundary(debug, lambda: _way_on(out)):
        from export.distill.config import DistillationConfig
        from export.distill.run import Distillation
        from export.distill.run import distill as run_distillation

        given = {"temperature": temperature, "alpha": alpha, "beta": beta}
        parts = set(loss.split("+"))
        for name, value in given.items():
            kinds = {"features"} if name == "beta" else {"kd", "dist"}
            purpose = f"--loss {' or '.join(sorted(kinds))}"
            opt.refuse_unused(f"--{name}", value, bool(kinds & parts), purpose)
        opt.refuse_unused("--soup", soup or None, len(teacher) > 1, "several runs")
        amounts = {name: value for name, value in given.items() if value is not None}
        mixed = 1.0 if mixup else 0.0
        losses = DistillationConfig(loss, layers=_pairs(features), mixup=mixed, **amounts)
        settings: dict[str, Any] = {"batch_size": batch_size, "views": views}
        settings |= {"augment": augment} if augment else {}
        request = Distillation(
            str(teacher[0]), student, losses, data, size, weights, plan, settings,
            opt.split_numbers(epochs), lr_scale, seed, baseline, precision,
            tuple(str(other) for other in teacher[1:]), "soup" if soup else "ensemble",
        )  # fmt: skip
        with bars() as progress:
            command = command_line("tl-export")
            run = run_distillation(request, out, progress=progress, command=command)
        _show(run)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for word in opt.split_words(text):
        above, _, below = word.partition(":")
        pairs.append((above.strip(), (below or above).strip()))
    if any(not above or not below for above, below in pairs):
        raise ExportError(f"--features is '{text}'; expected TEACHER:STUDENT, with commas between.")
    return tuple(pairs)


def _way_on(out: Path) -> str:
    if (out / "run.json").exists():
        return "The same command goes on."
    return "Nothing was written yet."


def _show(run: RunDirectory) -> None:
    facts = run.record["distillation"]
    splits = [split for split in ("val", "test") if facts["scores"]["teacher"].get(split)]
    words = {"val": "validation", "test": "test"}
    made = table("accuracy", "", *(words[split] for split in splits), "seconds")
    titles = {"teacher": "teacher", "alone": "student alone", "distilled": "student, distilled"}
    for name, scores in facts["scores"].items():
        cells = [percent(scores[split]["accuracy"]) for split in splits]
        made.add_row(titles[name], *cells, f"{facts['seconds'][name]:.1f}")
    if held := facts["held_out"]:
        show(
            f"The run has no validation samples: {held} of its training samples were held out to "
            "choose the student by; the teacher has seen them."
        )
    show(made, facts["why"], f"written: {run.path} ({titles[facts['kept']]})")
    show(f"report: {run.path / 'report.html'}")
