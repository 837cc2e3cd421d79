"""What the commands share: progress bars, tables, and errors as one clear message."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from tl_keras.errors import PlanError, TLKerasError
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.table import Table

__all__ = [
    "MISTAKE", "STOPPED", "HelpFirst", "bars", "numbers", "percent", "score_table", "show", "table",
    "told",
]  # fmt: skip

MISTAKE, STOPPED = 2, 130


# What a user can mend: no space, no permission, a disk that can only be read.
_OUTSIDE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)


class HelpFirst(TyperGroup):
    """A group whose commands show their help before values are looked at.

    Typer imports its validation for the first value, which takes longer than all the rest.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show a command's help if that is all that is asked for."""
        command = self.get_command(ctx, args[0]) if "--help" in args[1:] else None
        if command is not None:
            typer.echo(command.get_help(typer.Context(command, info_name=args[0], parent=ctx)))
            raise typer.Exit
        return super().parse_args(ctx, args)


@contextmanager
def told(debug: bool, when_stopped: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn an error that a user can mend into its message and exit code 2.

    Args:
        debug: Let errors through with their traceback, and warnings too.
        when_stopped: Gives what to say after Ctrl-C, which exits with 130.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        try:
            yield
        except (TLKerasError, OSError) as error:
            if debug or not _mendable(error):
                raise
            _say("[bold red]Error:[/] ", str(error))
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as error:
            _say("[bold]Stopped.[/] ", when_stopped())
            raise typer.Exit(STOPPED) from error


def _mendable(error: Exception) -> bool:
    return isinstance(error, TLKerasError) or getattr(error, "errno", None) in _OUTSIDE


def _say(head: str, text: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(head, end="")
    console.print(text, markup=False, emoji=False)


@contextmanager
def bars() -> Iterator[Progress]:
    """Yield a function (task, done, total) that draws one bar a task, with the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    with Bar(*columns, console=Console(file=sys.stderr)) as progress:
        yield _Bars(progress)


class _Bars:
    def __init__(self, progress: Bar) -> None:
        self.progress = progress
        self.tasks: dict[str, Any] = {}

    def __call__(self, task: str, done: int, total: int) -> None:
        if task not in self.tasks:
            self._close()
            self.tasks[task] = self.progress.add_task(task, total=total)
        self.progress.update(self.tasks[task], completed=done, total=total)

    def _close(self) -> None:
        # A stage that stopped early would otherwise look unfinished for ever.
        for task in self.progress.tasks:
            if not task.finished:
                self.progress.update(task.id, total=task.completed)


def table(title: str, *columns: str) -> Table:
    """Return an empty table; columns after the first are numbers.

    Cells are text as it stands: a class may be named "[red]".
    """
    from rich.table import Table
    from rich.text import Text

    class Plain(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            texts = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
            super().add_row(*texts, **options)

    made = Plain(title=Text(title) if title else None, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if index == 0 else "right")
    return made


def show(*things: Any) -> None:
    """Print to standard output."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for thing in things:
        console.print(thing, markup=False, emoji=False)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return whole numbers of at least 1 from a text with commas.

    Raises:
        PlanError: The text holds something else.
    """
    try:
        found = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise PlanError(f"{option} is '{text}', expected whole numbers with commas") from error
    if any(number < 1 for number in found):
        raise PlanError(f"{option} is '{text}', expected numbers of at least 1")
    return found


def percent(value: Any) -> str:
    """Return a share, or a share with its interval, as per cent."""
    if isinstance(value, dict):
        low, high = 100 * value["low"], 100 * value["high"]
        return f"{100 * value['value']:.1f} % ({low:.1f} to {high:.1f})"
    return f"{100 * float(value):.1f} %"


_ROWS = (
    ("accuracy", percent),
    ("balanced_accuracy", percent),
    ("macro_f1", percent),
    ("nll", "{:.3f}".format),
    ("ece", percent),
    ("temperature", "{:.2f}".format),
    ("ece_calibrated", percent),
    ("mean_average_precision", percent),
    ("exact_match", percent),
    ("mae", "{:.4g}".format),
    ("rmse", "{:.4g}".format),
    ("r2", "{:.3f}".format),
)


def score_table(title: str, metrics: dict[str, dict[str, Any]]) -> Table:
    """Return the main scores, a column for each split."""
    made = table(title, "", *metrics)
    made.add_row("pictures", *(str(scores.get("count", "")) for scores in metrics.values()))
    for key, form in _ROWS:
        if any(scores.get(key) is not None for scores in metrics.values()):
            cells = [scores.get(key) for scores in metrics.values()]
            name = key.replace("_", " ")
            made.add_row(name, *("" if cell is None else form(cell) for cell in cells))
    return made
