"""`tl-export bench BUNDLE`: how fast its variants are here, and what they need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli.console import bars, show, table, told
from tl_keras.errors import TLKerasError

__all__ = ["HELP", "SHORT_HELP", "bench_models"]

SHORT_HELP = "Measure latency, memory and size of models."
HELP = """Measure models beside each other: latency, first answer, memory, size.

All models answer in turn for one picture at a time, with one thread and with all; the first
answer and the memory are those of a fresh process.

Example:  tl-export bench bundle.zip --plot latency.png
"""


def bench_models(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="BUNDLE", help="A bundle, or .tflite, .onnx and .keras files."),
    ],
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Cores; repeatable.", show_default="1 and all")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Answers timed.")] = 50,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) here.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    with told(debug), _models(files) as models:
        from export.bundle.card import size
        from export.runtime.bench import as_record, bench
        from tl_keras.utils.files import write_atomically

        with bars() as progress:
            found = bench(models, threads=threads, rounds=rounds, progress=progress)
        columns = ("model", "threads", "size", "median, ms", "90 %, ms", "first, ms", "memory, MB")
        closing = table("", *columns)
        closing.columns[0].no_wrap = True
        for row in as_record(models, found):
            figures = [f"{row[key]:.2f}" for key in ("median_ms", "p90_ms")]
            once = [
                "–" if (v := row[key]) is None else f"{v:.0f}" for key in ("first_ms", "peak_mb")
            ]
            start = (row["model"], str(row["threads"]), size(row["bytes"]))
            closing.add_row(*start, *figures, *once)
        show(closing)
        if as_json:
            rows = json.dumps(as_record(models, found), indent=2, ensure_ascii=False)
            write_atomically(as_json, f"{rows}\n".encode())
        if plot:
            from export.bundle.bench_figure import plot as draw

            draw(found, plot)


@contextmanager
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
