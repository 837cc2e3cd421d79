"""What the commands share: an error boundary, progress bars, tables and JSON."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from tl_keras.errors import TLKerasError
from tl_keras.utils.interrupt import stoppable
from tl_keras.utils.limits import ran_out_of_memory
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table

    from tl_keras.runs.directory import RunDirectory

__all__ = [
    "DIFFERS", "MISTAKE", "STOPPED", "bars", "command_line", "error_boundary",
    "percent", "score_table", "short", "show", "show_json", "show_run", "table",
]  # fmt: skip

MISTAKE, DIFFERS, STOPPED = 2, 3, 130
"""Exit codes: what a user can mend, an artifact that is not like its source, Ctrl-C."""

# What makes progress functions stop the work they are told of, one a boundary.
_stopping: list[Callable[[Progress], Progress]] = []


@contextmanager
def error_boundary(debug: bool, when_stopped: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn every error into one message and an exit code.

    Args:
        debug: Let errors through with their traceback, and warnings too.
        when_stopped: Gives what to say after Ctrl-C or SIGTERM, which exit with 130.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with warnings.catch_warnings(), stoppable() as stopping:
        if not debug:
            warnings.simplefilter("ignore")
        _stopping.append(stopping)
        try:
            yield
        except KeyboardInterrupt as error:
            _say("[bold]Stopped.[/] ", when_stopped())
            raise SystemExit(STOPPED) from error
        except typer.Exit:
            raise
        except Exception as error:
            if debug:
                raise
            code, text = _explain(error)
            _say("[bold red]Error:[/] ", text)
            raise SystemExit(code) from error
        finally:
            _stopping.pop()


def _explain(error: Exception) -> tuple[int, str]:
    if isinstance(error, TLKerasError):
        # A file full of nonsense would be told of by pages of it.
        return error.exit_code, re.sub(r"(\S{150})\S{100,}(\S{50})", r"\1...\2", str(error))
    if ran_out_of_memory(error):
        return MISTAKE, (
            "the memory is too small for this; try a smaller --size or --batch-size, or end other "
            "programs"
        )
    if isinstance(error, OSError) and error.strerror:
        # Such as no space, no permission, a disk that can only be read, a file that went away.
        where = f"{error.filename}: " if error.filename else ""
        return MISTAKE, f"{where}{error.strerror}"
    what = " ".join(str(error).split())
    return 1, (
        f"{type(error).__name__}: {what[:300]}. This is a fault of the program: please report it "
        "with what the same command shows with --debug"
    )


def _open_console(**options: Any) -> Console:
    """A console that falls silent when nobody reads it any more, as in `| head -1`."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    return Quiet(highlight=False, **options)


def _say(head: str, text: str) -> None:
    console = _open_console(stderr=True, soft_wrap=True)
    console.print(head, end="")
    console.print(text, markup=False, emoji=False)


def command_line(program: str = "tl-keras") -> str:
    """Return what the user wrote, for the record."""
    return shlex.join([program, *sys.argv[1:]])


@contextmanager
def bars(still: bool = False) -> Iterator[Progress]:
    """Yield a function (task, done, total) that draws one bar a task, with the time left.

    Args:
        still: Draw one line, at each call and at no other time, for work that keeps what is
            written meanwhile from the terminal; nothing stays at the end.
    """
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
    console = _open_console(stderr=True)
    drawn = _Bars(Bar(*columns, console=console, auto_refresh=not still, transient=still), still)
    try:
        yield _stopping[-1](drawn) if _stopping else drawn
    finally:
        if drawn.tasks:
            drawn.progress.stop()


class _Bars:
    def __init__(self, progress: Bar, still: bool) -> None:
        self.progress, self.still = progress, still
        self.tasks: dict[str, Any] = {}

    def __call__(self, task: str, done: int, total: int) -> None:
        # An error before the first task should be the first line.
        if not self.tasks:
            self.progress.start()
        if task not in self.tasks:
            self._close()
            self.tasks[task] = self.progress.add_task(task, total=total)
        self.progress.update(self.tasks[task], completed=done, total=total, visible=True)
        if self.still:
            self.progress.refresh()

    def _close(self) -> None:
        # A stage that stopped early would otherwise look unfinished for ever.
        for task in self.progress.tasks:
            if self.still:
                self.progress.update(task.id, visible=False)
            elif not task.finished:
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
    console = _open_console(soft_wrap=True)
    for thing in things:
        console.print(thing, markup=False, emoji=False)


def show_json(value: Any) -> None:
    """Print JSON to standard output; what is not finite becomes null."""
    plain = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "") != "utf8"
    text = json.dumps(_finite(value), ensure_ascii=plain, indent=1, allow_nan=False, default=str)
    _open_console().out(text, highlight=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: float) -> str:
    """Return a number with three places, or four digits where those would hide it."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1e5 else f"{value:.4g}"


def percent(value: Any) -> str:
    """Return a share, or a share with its interval, as per cent."""
    if isinstance(value, dict):
        low, high = 100 * value["low"], 100 * value["high"]
        return f"{100 * value['value']:.1f} % ({low:.1f} to {high:.1f})"
    return f"{100 * float(value):.1f} %"


def measured(value: Any) -> str:
    """Return a number, or a number with its interval, in four digits."""
    if isinstance(value, dict):
        return f"{value['value']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    return f"{float(value):.4g}"


_ROWS = (
    ("accuracy", percent),
    ("balanced_accuracy", percent),
    ("macro_f1", percent),
    ("auroc", percent),
    ("nll", "{:.3f}".format),
    ("ece", percent),
    ("temperature", "{:.2f}".format),
    ("ece_calibrated", percent),
    ("mean_average_precision", percent),
    ("exact_match", percent),
    ("mae", measured),
    ("rmse", measured),
    ("r2", measured),
)


def score_table(title: str, metrics: dict[str, dict[str, Any]], noun: str = "image") -> Table:
    """Return the main scores, a column for each split; `noun` is what a sample is called."""
    made = table(title, "", *(name.replace("_", " ") for name in metrics))
    made.add_row(f"{noun}s", *(str(scores.get("count", "")) for scores in metrics.values()))
    for key, form in _ROWS:
        if any(scores.get(key) is not None for scores in metrics.values()):
            cells = [scores.get(key) for scores in metrics.values()]
            name = key.replace("_", " ")
            made.add_row(name, *("" if cell is None else form(cell) for cell in cells))
    return made


def show_scores(
    title: str, metrics: dict[str, dict[str, Any]], noun: str = "image"
) -> None:
    """Print the main scores, a column for each split, and what must be told of them."""
    from tl_keras import tasks

    known = [scores for scores in metrics.values() if scores.get("task") in tasks.names()]
    warned = [said for scores in known for said in tasks.get(scores["task"]).warn(scores)]
    show(score_table(title, metrics, noun), *(f"warning: {said}" for said in dict.fromkeys(warned)))


_KEPT = {1: " (kept)", 2: " (averaged)"}


def show_run(run: RunDirectory) -> None:
    """Print what training gave: its stages, its scores, and where the report is."""
    stages = table("stages", "stage", "epochs", "val accuracy", "seconds", "frozen up to")
    kept = str(run.record.get("best_stage")).split(" + ")
    for row in run.record["stages"]:
        accuracy = row.get("best_val_accuracy")
        stages.add_row(
            row["name"] + (_KEPT[min(len(kept), 2)] if row["name"] in kept else ""),
            str(row["epochs_run"]),
            "" if accuracy is None else f"{accuracy:.3f}",
            f"{row['seconds']:.1f}",
            row["cut"] or "nothing",
        )
    show(stages)
    show_scores("scores", run.record["metrics"], run.modality.noun)
    for one in run.record.get("baselines", []):
        key, value = next(iter(one["metrics"].items()), ("", None))
        if value is not None:
            said = dict(_ROWS).get(key, measured)(value)
            show(f"for comparison, {one['name']}: {key.replace('_', ' ')} {said} ({one['what']})")
    if run.config.model.weights == "none" and run.record["plan"]["name"] == "scratch":
        show("plan scratch: a backbone without weights has nothing to keep frozen")
    if reason := run.record.get("precision", {}).get("reason"):
        show(f"frozen layers: {reason}")
    show(*run.record["data"].get("notes", []))
    show(f"report: {run.path / 'report.html'}")
