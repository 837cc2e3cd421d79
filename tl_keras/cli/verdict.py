"""The command verdict: whether pretraining helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, percent, show, table

__all__ = ["verdict"]


def verdict(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    out: Annotated[Path, typer.Option(help="Folder for the report, which must not exist.")] = Path(
        "verdict"
    ),
    base: opt.Base = "default",
    size: opt.Size = None,
    weights: Annotated[str, typer.Option(help="imagenet, default or a file.")] = "default",
    task: opt.Task = "classes",
    plan: Annotated[
        str, typer.Option(help="Plan of the pretrained model: tuned, full, probe or another.")
    ] = "tuned",
    epochs: opt.Epochs = "",
    seeds: Annotated[int, opt.number("Runs of each way.", 2, 100)] = 3,
    test: opt.TestShare = 0.3,
    skip_bad: opt.SkipBad = False,
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:
    """Say whether pretraining helps or hurts.

    The pretrained model and the same from scratch are each trained by their best recipe, several
    times each, scratch at no less cost.

    Example:  tl-keras verdict photos/ --base mobilenet_v2 --seeds 3
    """
    with error_boundary(debug, lambda: "Nothing was written."):
        from tl_keras.runs.config import RunConfig
        from tl_keras.workflows.compare_transfer import judge_transfer

        config = RunConfig.of(
            data, base, size, weights, task=task, plan=plan, epochs=opt.split_numbers(epochs),
            test=test, seed=seed, skip_bad=skip_bad,
        )  # fmt: skip
        with bars() as progress:
            found, page = judge_transfer(config, seeds, out, progress=progress)
        title = f"{config.model.backbone} on {data}"
        made = table(title, "", "mean accuracy", *map("run {}".format, range(seeds)))
        for name, right in (("pretrained", found.pretrained), ("scratch", found.scratch)):
            made.add_row(name, *(percent(part.mean()) for part in (right, *right)))
        show(made, found.verdict.sentence, f"report: {page}")
