"""The command probe: a simple classifier on the features of a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, command_line, error_boundary, score_table, show, table

if TYPE_CHECKING:
    from tl_keras.probing.probe import Probe
    from tl_keras.runs.directory import RunDirectory

__all__ = ["probe"]


def probe(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    out: opt.RunOut,
    base: opt.Base = "default",
    size: opt.Size = None,
    weights: opt.Weights = "default",
    task: opt.Task = "classes",
    at: Annotated[
        str,
        typer.Option(
            help="Layers with commas between, of which the best by validation is taken; a+b puts "
            "the features of two side by side. auto tries the ends of the blocks, last the end."
        ),
    ] = "auto",
    classifier: Annotated[str, typer.Option(help="logistic, ridge, lda, knn or mlp.")] = "logistic",
    pooling: Annotated[str, typer.Option(help="avg, max, avg+max or flatten.")] = "avg",
    features_out: Annotated[
        Path | None, opt.new_file("Write the features to this .npz or .parquet file, too.")
    ] = None,
    val: opt.ValShare = 0.2,
    test: opt.TestShare = 0.0,
    precision: opt.Precision = "auto",
    skip_bad: opt.SkipBad = False,
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:
    """Fit a simple classifier on the features of a backbone.

    The backbone is not trained. The new run is like one of fit: evaluate, predict and tl-export
    work on it.

    Example:  tl-keras probe photos/ --base mobilenet_v2 --out runs/probe
    """
    with error_boundary(debug, lambda: "Nothing was written."):
        from tl_keras.probing.probe import ProbeOptions
        from tl_keras.runs.config import RunConfig
        from tl_keras.workflows.probe import ProbeConfig
        from tl_keras.workflows.probe import probe as run_probe

        config = RunConfig.of(
            data, base, size, weights, task=task, val=val, test=test, seed=seed,
            precision=precision, skip_bad=skip_bad,
        )  # fmt: skip
        options = ProbeOptions(classifier, pooling, seed, precision)
        wanted = ProbeConfig(config, at, options, features_out, command_line())
        with bars() as progress:
            run, made = run_probe(wanted, out, progress)
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
    title = f"{facts['classifier']} at {facts['at']}"
    show(places, score_table(title, run.fact("metrics"), run.modality.noun))
    show(f"{facts['classifier']}: {found}", f"features: {made.features.engine.reason}")
    if features_out:
        show(f"features are in {features_out}")
    show(f"figure: {run.path / 'plots' / 'probe.png'}", f"report: {run.path / 'report.html'}")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
