"""The command fit: train a model on labelled images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, command_line, error_boundary, show_run
from tl_keras.errors import PlanError

__all__ = ["fit", "way_on"]


def fit(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    out: opt.RunOut,
    base: opt.Base = "default",
    size: opt.Size = None,
    weights: opt.Weights = "default",
    plan: opt.Plan = "",
    epochs: opt.Epochs = "",
    learning_rate: Annotated[
        str,
        opt.numbers(
            "Peak learning rate of each stage, with commas between, as lr-find suggests it.",
            float, 10, show_default="the plan's",
        ),
    ] = "",
    lr_scale: Annotated[
        float | None,
        opt.number("Factor on the plan's learning rates.", 0, 1000, above=True, show_default="1"),
    ] = None,
    batch_size: opt.BatchSize = 32,
    augment: opt.Augment = None,
    views: opt.Views = None,
    pooling: opt.Pooling = "avg",
    dense: opt.Dense = "",
    dropout: Annotated[float, opt.number("Dropout in the head.", 0, 1, below=True)] = 0.0,
    features: Annotated[
        str,
        typer.Option(
            help="The layer whose output the head is put on.",
            show_default="where the base's features end",
        ),
    ] = "",
    adapt: Annotated[
        str,
        typer.Option(
            help="Layers that plan lora or adapters adapts: patterns with commas between.",
            show_default="some within 2.4 % of the weights",
        ),
    ] = "",
    rank: Annotated[
        int | None, opt.number("Rank of plan lora.", 1, 1024, show_default="4")
    ] = None,
    minutes: Annotated[
        float | None,
        opt.number("Minutes that plan auto may take to choose, or plan tuned in all.", 0, 100_000,
               above=True, show_default="10 for auto, no limit for tuned"),
    ] = None,
    task: opt.Task = "classes",
    val: opt.FitValShare = None,
    test: opt.TestShare = 0.0,
    precision: opt.Precision = "auto",
    devices: Annotated[int, opt.number("GPUs to train on.", 1, 1024)] = 1,
    skip_bad: opt.SkipBad = False,
    drop_suspects: Annotated[
        bool,
        typer.Option(
            "--drop-suspects",
            help="Leave out training images whose labels are likely wrong, if held-out images "
            "are classified better without them. The report says which and why.",
        ),
    ] = False,
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:  # fmt: skip
    """Train a model on labelled images, stage by stage.

    Every image is checked first. The new run holds the model, its scores and a report.

    Example:  tl-keras fit photos/ --base mobilenet_v2 --out runs/photos
    """
    with error_boundary(debug, lambda: way_on(out)):
        from tl_keras.runs.config import RunConfig
        from tl_keras.training.plan import FOLDED_PLANS
        from tl_keras.workflows.fit import train

        usual = "lp-ft" if dense or pooling == "none" else "tuned"
        chosen = plan or ("scratch" if weights == "none" else usual)
        opt.refuse_unused("--rank", rank, chosen == "lora", "--plan lora")
        opt.refuse_unused("--minutes", minutes, chosen in ("auto", "tuned"), "--plan tuned")
        if learning_rate and lr_scale is not None:
            raise PlanError("got both --learning-rate and --lr-scale; give one of the two")
        many = views or (None if chosen in FOLDED_PLANS else 4)
        given = {"batch_size": batch_size, "views": many, "augment": augment}
        settings: dict[str, Any] = {name: value for name, value in given.items() if value}
        config = RunConfig.of(
            data, base, size, weights, pooling=pooling, dense=opt.split_numbers(dense),
            dropout=dropout, features=features, plan=plan, settings=settings,
            epochs=opt.split_numbers(epochs), lr_scale=lr_scale or 1.0,
            learning_rate=opt.split_numbers(learning_rate, float),
            adapt=adapt, rank=rank or 4, minutes=minutes, task=task, val=val, test=test,
            skip_bad=skip_bad, drop_suspects=drop_suspects, seed=seed,
            precision=precision, devices=devices,
        )  # fmt: skip
        viewed = config.with_defaults().plan.settings["augment"] != "none" or views == 1
        opt.refuse_unused("--views", views, viewed, "--augment flip+crop")
        with bars() as progress:
            run = train(config, out, progress=progress, command=command_line())
        show_run(run)


def way_on(run: Path) -> str:
    """Return what to say of a run that was stopped."""
    if (run / "run.json").exists():
        return f"Go on with: tl-keras resume {shlex.quote(str(run))}"
    return "Nothing was written yet."
