"""`tl-keras probe`: a simple classifier on the features of a base."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli.console import bars, score_table, show, table, told

if TYPE_CHECKING:
    from tl_keras.probing.probe import Probe
    from tl_keras.runs.directory import RunDirectory

__all__ = ["HELP", "probe"]

HELP = (
    "Fit a simple classifier on the features of a base, which is not trained.\n\n"
    "The run it writes is like that of fit: evaluate, predict and tl-export work on it.\n\n"
    "Example:  tl-keras probe photos/ --base mobilenet_v2 --out runs/probe"
)


def probe(  # noqa: PLR0913 - a command's options are its arguments
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A folder of class folders, a CSV file, or digits."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write the run; must not exist.")],
    base: Annotated[
        str, typer.Option(help="A base's name (see: tl-keras bases) or a .keras file.")
    ] = "mobilenet_v2",
    at: Annotated[
        str,
        typer.Option(
            help="Layers with commas, of which the best by validation is taken; a+b puts the "
            "features of two side by side. auto tries the ends of the blocks, last the end."
        ),
    ] = "auto",
    classifier: Annotated[str, typer.Option(help="logistic, ridge, lda, knn or mlp.")] = "logistic",
    pooling: Annotated[str, typer.Option(help="avg, max, avg+max or flatten.")] = "avg",
    features_out: Annotated[
        Path | None, typer.Option(help="Write the features to this .npz or .parquet file too.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels.", show_default="the base's own")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, none, a file, or default: what the base comes with.")
    ] = "default",
    val: Annotated[float, typer.Option(help="Share for validation if the data has none.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share for the test if the data has none.")] = 0.0,
    precision: Annotated[
        str, typer.Option(help="auto, or float32, bfloat16, onnxruntime.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another split and start.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be used.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run `probe`; its help says what it does."""
    with told(debug, lambda: "Nothing was written."):
        from tl_keras.probing.probe import ProbeOptions
        from tl_keras.runs.prepare import Job
        from tl_keras.workflows.probe import ProbeJob
        from tl_keras.workflows.probe import probe as run_probe

        job = Job(
            data, base, size, weights, val=val, test=test, seed=seed, precision=precision,
            skip_bad=skip_bad,
        )  # fmt: skip
        options = ProbeOptions(classifier, pooling, seed, precision)
        command = shlex.join(["tl-keras", *sys.argv[1:]])
        with bars() as progress:
            run, made = run_probe(ProbeJob(job, at, options, features_out, command), out, progress)
        _show(run, made, features_out)


def _show(run: RunDirectory, made: Probe, features_out: Path | None) -> None:
    places = table(
        "ridge on each place (validation and leave-one-out)",
        "at",
        "features",
        "accuracy",
        "log loss",
    )
    for score in made.compared:
        cells = (str(score.dimensions), f"{score.accuracy:.3f}", f"{score.log_loss:.3f}")
        places.add_row(score.place, *cells)
    facts = run.fact("probe")
    found = ", ".join(f"{name} {_short(value)}" for name, value in facts["found"].items())
    show(places, score_table(f"{facts['classifier']} at {facts['at']}", run.fact("metrics")))
    show(f"{facts['classifier']}: {found}", f"features: {made.features.engine.reason}")
    if features_out:
        show(f"features are in {features_out}")
    show(f"picture: {run.path / 'plots' / 'probe.png'}", f"report: {run.path / 'report.html'}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
