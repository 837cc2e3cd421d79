"""`tl-export RUN`: write a finished run as a bundle of proven files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli.console import show, table, told
from tl_keras.errors import GateError, ParityError
from tl_keras.utils.interrupt import stoppable
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    from rich.progress import Progress

    from export.variant import Attempt, Variant

__all__ = ["HELP", "SHORT_HELP", "export_run"]

DIFFERS = 3
SHORT_HELP = "Turn a finished run into a bundle of proven files (the default)."
HELP = """Write a finished run as TensorFlow Lite and ONNX, in float32 and smaller.

Float32 files must give the answers of Keras on the validation pictures, and quantized ones may
lose no more than --max-drop, or nothing is written. Where one loses more, repairs are tried one
after the other, from more calibration pictures to quantization-aware training.

Recipes: fp16, int8 (both formats); dynamic_int8, int8_uint8_out, int8_int16_activations (tflite).

Example:  tl-export runs/photos --to tflite,onnx --quantize int8,fp16 --out bundle/
"""


def export_run(  # noqa: PLR0913 - a command's options are its arguments
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A directory that tl-keras fit has written.")
    ],
    to: Annotated[str, typer.Option(help="Formats, with commas between.")] = "tflite,onnx",
    quantize: Annotated[
        str, typer.Option(help="Recipes for smaller files, with commas between.")
    ] = "",
    max_drop: Annotated[
        float, typer.Option(help="Accuracy that a quantized file may lose; 0.01 is a point.")
    ] = 0.01,
    out: Annotated[
        Path | None,
        typer.Option(help="Bundle to write: a folder, or x.zip.", show_default="RUN/export"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the run's pictures are now, if they moved.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Compare on at most so many.", show_default="all of validation"),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train/--no-train", help="Allow quantization-aware training.")
    ] = True,
    license: Annotated[
        str, typer.Option(help="Of the model, for its card, as in apache-2.0.", show_default=False)
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    target = out or run / "export"
    with _refusal_told(), told(debug, lambda: "Nothing was written."), stoppable() as stopping:
        from export.pipeline import ExportConfig, check_config, check_destination, export
        from export.quantize.search import Limits
        from export.source import from_run

        limits = Limits(max_drop=max_drop, train=train)
        orders = ExportConfig(_words(to), _words(quantize), limits, license=license)
        _, notes = check_config(orders)
        check_destination(target, force)
        start_tensorflow()
        with _bar() as bar:
            bar("reading the run", 0, 1)
            source = from_run(run, data=data, samples=samples)
            made = export(source, orders, target, force=force, progress=stopping(bar))
        _show(made, notes, target)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


@contextmanager
def _refusal_told() -> Iterator[None]:
    """Give a file that differs, or loses too much, its own exit code."""
    try:
        yield
    except typer.Exit as stop:
        if isinstance(stop.__cause__, ParityError | GateError):
            raise typer.Exit(DIFFERS) from stop
        raise


class _Bar:
    """One line of progress, which stands still while something is converted."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._word = ""

    def __call__(self, word: str, done: int, total: int) -> None:
        if word != self._word:
            self._progress.reset(self._task, description=word, total=total)
            self._word = word
        self._progress.update(self._task, completed=done)
        self._progress.refresh()


@contextmanager
def _bar() -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    # No thread may draw: what is written during a conversion is kept from the terminal.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield _Bar(progress)


def _show(made: Sequence[Variant], notes: Sequence[str], out: Path) -> None:
    columns = ("file", "size", "accuracy", "drop", "labels equal", "ms")
    closing = table(f"written to {out}", *columns)
    for one in made:
        proof = one.verdict
        closing.add_row(
            one.name,
            f"{one.bytes / 1e6:.2f} MB",
            "" if proof.accuracy is None else f"{100 * proof.accuracy:.2f} %",
            f"{100 * proof.drop:+.2f}",
            f"{round(proof.agreement * proof.pictures)} of {proof.pictures}",
            f"{one.latencies[-1].median_ms:.2f}" if one.latencies else "",
        )
    show(closing)
    remarks = [*notes, *(f"{one.name}: {line}" for one in made for line in _remarks(one))]
    show(*remarks)


def _remarks(variant: Variant) -> list[str]:
    climbed = [_describe_attempt(one) for one in variant.attempts]
    strategies = ["; ".join(climbed)] if len(climbed) > 1 else []
    return [*strategies, *variant.notes]


def _describe_attempt(attempt: Attempt) -> str:
    word = "passed" if attempt.passed else "lost"
    note = f" ({attempt.note})" if attempt.note else ""
    return f"{attempt.strategy}{note} {word} {100 * attempt.drop:+.2f} in {attempt.seconds:.0f} s"
