"""`tl-export distill RUN --student BASE`: a small student learns from a trained run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli.console import bars, numbers, percent, show, table, told
from tl_keras.errors import ExportError

if TYPE_CHECKING:
    from tl_keras.runs.directory import RunDirectory

__all__ = ["HELP", "SHORT_HELP", "distill"]

SHORT_HELP = "Let a small student learn from a finished run."
HELP = """Let a small student learn from a finished run, and write it as a run of its own.

The same student is also trained without the teacher; the better of the two on the validation
pictures is handed on. Stopped, the same command goes on.

Example:  tl-export distill runs/photos --student mobilenet_v2@0.35 --out runs/student
"""


def distill(  # noqa: PLR0913 - a command's options are its arguments
    teacher: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run, or a .keras file with --data.")
    ],
    student: Annotated[str, typer.Option(help="A base (see: tl-keras bases) or a .keras file.")],
    out: Annotated[Path, typer.Option(help="Where to write the run; must not exist.")],
    loss: Annotated[str, typer.Option(help="kd, dist, features, or several with +.")] = "dist",
    temperature: Annotated[float, typer.Option(help="Divides the logits in kd and dist.")] = 4.0,
    alpha: Annotated[
        float, typer.Option(help="Weight of kd and dist, 0 to 1; the labels get the rest.")
    ] = 0.9,
    beta: Annotated[float, typer.Option(help="Weight of the features.")] = 1.0,
    features: Annotated[
        str,
        typer.Option(
            help="TEACHER:STUDENT layers, with commas.", show_default="the last feature maps"
        ),
    ] = "",
    mixup: Annotated[bool, typer.Option("--mixup", help="Mix pictures in pairs.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline/--no-baseline", help="Train the student alone, too.")
    ] = True,
    data: Annotated[
        str | None, typer.Option(help="Where the run's pictures are now, if they moved.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels.", show_default="the teacher's")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, none, a file, or default: what the base comes with.")
    ] = "default",
    plan: Annotated[
        str,
        typer.Option(
            help="probe, lp-ft, gradual, top, full or scratch.",
            show_default="lp-ft; scratch with --weights none",
        ),
    ] = "",
    epochs: Annotated[
        str, typer.Option(help="Epochs of each stage, with commas.", show_default="the plan's")
    ] = "",
    rate: Annotated[float, typer.Option(help="Factor on the plan's learning rates.")] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 32,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, or flip, crop, color, affine, randaugment, with +.",
            show_default="the run's",
        ),
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="Views of each picture that the teacher answers for.")
    ] = 8,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides start and views.", show_default="the run's")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto, or float32, bfloat16, onnxruntime for what is frozen.")
    ] = "auto",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    with told(debug, lambda: _way_on(out)):
        from export.distill.config import DistillationConfig
        from export.distill.run import Distillation
        from export.distill.run import distill as run_distillation

        pairs, mixed = _pairs(features), 1.0 if mixup else 0.0
        losses = DistillationConfig(loss, temperature, alpha, beta, pairs, mixed)
        given = {"batch_size": batch_size, "views": views, "augment": augment}
        settings = {name: value for name, value in given.items() if value}
        request = Distillation(
            str(teacher), student, losses, data, size, weights, plan, settings,
            numbers(epochs, "--epochs"), rate, seed, baseline, precision,
        )  # fmt: skip
        with bars() as progress:
            command = shlex.join(["tl-export", *sys.argv[1:]])
            run = run_distillation(request, out, progress=progress, command=command)
        _show(run)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for word in (part.strip() for part in text.split(",") if part.strip()):
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
    show(made, facts["why"], f"written: {run.path} ({titles[facts['kept']]})")
    show(f"report: {run.path / 'report.html'}")
