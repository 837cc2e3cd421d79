"""The command bench: how fast models are here, and what they need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show, show_json, table
from tl_keras.errors import TLKerasError

__all__ = ["bench"]


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE", help="A bundle, or .tflite, .onnx and .keras files."),
    ],
    threads: Annotated[
        list[int] | None,
        opt.number("Cores to use; may be given several times.", 1, 256, show_default="1 and all"),
    ] = None,
    rounds: Annotated[int, opt.number("Answers that are timed.", 1, 1_000_000)] = 50,
    plot: Annotated[Path | None, opt.new_file("Draw a figure to this PNG file.")] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Measure latency, memory and size of models.

    All models answer in turn for one image at a time, with one thread and with all. The first
    answer and the memory are those of a fresh process.

    Example:  tl-export bench bundle.zip --plot latency.png
    """
    with error_boundary(debug), contextlib.ExitStack() as stack:
        from export.runtime import bench as benches
        from tl_keras.reports.filters import size
        from tl_keras.utils.files import refuse_file

        if plot is not None:
            refuse_file(plot, ".png", *files, option="--plot")
        models = stack.enter_context(_models(files))

        with bars() as progress:
            found = benches.bench(models, threads=threads, rounds=rounds, progress=progress)
        if plot is not None:
            from export.bundle.figures import plot_latencies

            plot_latencies(found, plot)
        rows = benches.as_record(models, found)
        if as_json:
            show_json(rows)
            return
        columns = ("model", "threads", "size", "median, ms", "90 %, ms", "first, ms", "memory, MB")
        made = table("", *columns)
        made.columns[0].no_wrap = True
        for row in rows:
            figures = [f"{row[key]:.2f}" for key in ("median_ms", "p90_ms")]
            once = [
                "–" if (v := row[key]) is None else f"{v:.0f}" for key in ("first_ms", "peak_mb")
            ]
            start = (row["model"], str(row["threads"]), size(row["bytes"]))
            made.add_row(*start, *figures, *once)
        show(made)


@contextlib.contextmanager
def _models(files: Sequence[Path]) -> Iterator[dict[str, Path]]:
    """Yield model files by name: those named, or those of the one bundle."""
    from export.bundle.read import read_bundle

    models = [path for path in files if path.suffix in (".tflite", ".onnx", ".keras")]
    if models and len(models) == len(files):
        yield {str(path): path for path in models}
    elif len(files) == 1:
        with read_bundle(files[0]) as bundle:
            yield {one["name"]: bundle.model(one["name"]) for one in bundle.manifest["variants"]}
    else:
        raise TLKerasError(
            f"Got {', '.join(map(str, files))}; expected one bundle, or model files alone."
        )
