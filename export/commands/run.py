"""`tl-export RUN`: write a finished run as TensorFlow Lite and ONNX."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.errors import ParityError
from tl_keras.console import show, table, told
from tl_keras.quiet import start_tensorflow

if TYPE_CHECKING:
    from rich.progress import Progress

    from export.stage import Artifact

__all__ = ["HELP", "export_run"]

DIFFERS = 3
HELP = """Write a finished run as TensorFlow Lite and ONNX.

Each file must give the answers of Keras on the validation pictures, or nothing is written.

Example:  tl-export runs/photos --to tflite,onnx
"""


def export_run(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A directory that tl-keras fit has written.")
    ],
    to: Annotated[str, typer.Option(help="Formats, with commas between.")] = "tflite,onnx",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="RUN/export")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the run's pictures are now, if they moved.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Compare on at most so many.")] = 200,
    force: Annotated[bool, typer.Option("--force", help="Replace files in the folder.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    formats = [word.strip() for word in to.split(",") if word.strip()]
    target = out or run / "export"
    with _parity_told(), told(debug):
        from export.source import from_run
        from export.stage import check_destination, export

        check_destination(target, formats, force)
        start_tensorflow()
        with _bar() as bar:
            bar("reading the run", 0, 1)
            source = from_run(run, data=data, samples=samples)
            made = export(source, formats, target, force=force, progress=bar)
        _show(made, target)


@contextmanager
def _parity_told() -> Iterator[None]:
    """Give an artifact that differs its own exit code."""
    try:
        yield
    except typer.Exit as stop:
        if isinstance(stop.__cause__, ParityError):
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


def _show(made: Sequence[Artifact], out: Path) -> None:
    columns = ("file", "size", "max difference", "labels equal", "ms/picture")
    closing = table(f"written to {out}", *columns)
    for artifact in made:
        same = artifact.comparison
        closing.add_row(
            artifact.file,
            f"{artifact.bytes / 1e6:.2f} MB",
            f"{same.max_difference:.1e} (≤ {same.tolerance:.0e})",
            f"{same.labels_equal} of {same.pictures}",
            f"{artifact.milliseconds:.2f}",
        )
    show(closing)
