"""`tl-keras verdict`: whether pretraining helps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli.console import bars, numbers, percent, show, table, told

__all__ = ["verdict"]

HELP = (
    "Say whether pretraining helps: pretrained against scratch with the same budget.\n\n"
    "Example:  tl-keras verdict photos/ --base mobilenet_v2 --seeds 3 --out verdict"
)


def verdict(  # noqa: PLR0913 - a command's options are its arguments
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Class folders, a CSV file or a built-in name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the report; must not exist.")] = Path(
        "verdict"
    ),
    base: Annotated[str, typer.Option(help="A base's name or a .keras file.")] = "mobilenet_v2",
    size: Annotated[
        int | None, typer.Option(help="Side in pixels.", show_default="the base's own")
    ] = None,
    weights: Annotated[str, typer.Option(help="imagenet, default or a file.")] = "default",
    plan: Annotated[str, typer.Option(help="Of the pretrained: full, lp-ft, probe, ...")] = "full",
    epochs: Annotated[
        str, typer.Option(help="Epochs of each stage, with commas.", show_default="the plan's")
    ] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each way, at least 2.")] = 3,
    test: Annotated[float, typer.Option(help="Share for the test if the data has none.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be used.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run `verdict`; its help says what it does."""
    with told(debug, lambda: "Nothing was written."):
        from tl_keras.runs.prepare import Job
        from tl_keras.workflows.compare_transfer import judge_transfer

        job = Job(
            data, base, size, weights, plan=plan, epochs=numbers(epochs, "--epochs"), test=test,
            seed=seed, skip_bad=skip_bad,
        )  # fmt: skip
        with bars() as progress:
            found, page = judge_transfer(job, seeds, out, progress=progress)
        made = table(f"{base} on {data}", "", "mean accuracy", *map("run {}".format, range(seeds)))
        for name, right in (("pretrained", found.pretrained), ("scratch", found.scratch)):
            made.add_row(name, *(percent(part.mean()) for part in (right, *right)))
        show(made, found.verdict.sentence, f"report: {page}")
