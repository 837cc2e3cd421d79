"""The command lr-find: find a learning rate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show
from tl_keras.training.plan import PLAN_NAMES, named_plan

__all__ = ["lr_find"]


def lr_find(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    base: opt.Base = "default",
    size: opt.Size = None,
    weights: opt.Weights = "default",
    task: opt.Task = "classes",
    train: Annotated[
        str, typer.Option(help="What learns: head, all, blocks:2 and others, with commas between.")
    ] = "head",
    steps: Annotated[int, opt.number("Steps at most.", 10, 100000)] = 100,
    batch_size: opt.BatchSize = 32,
    out: Annotated[Path, opt.new_file("Draw the search to this PNG file.")] = Path("lr_find.png"),
    skip_bad: opt.SkipBad = False,
    seed: opt.Seed = 0,
    debug: opt.Debug = False,
) -> None:
    """Find a learning rate, and draw the search.

    Some steps are trained at rising rates while the loss is watched.

    Example:  tl-keras lr-find photos/ --base mobilenet_v2 --out rates.png
    """
    with error_boundary(debug, lambda: "Nothing was written."):
        from tl_keras.runs.config import RunConfig
        from tl_keras.utils.files import refuse_file
        from tl_keras.workflows.evaluate import find_rate

        refuse_file(out, ".png", data)
        selectors = opt.split_words(train)
        settings = {"batch_size": batch_size}
        config = RunConfig.of(
            data, base, size, weights, settings=settings, task=task, seed=seed, skip_bad=skip_bad
        )
        with bars() as progress:
            found = find_rate(config, selectors, steps, out, progress)
        given = {"--base": base, "--size": size, "--weights": weights, "--task": task,
                 "--batch-size": batch_size, "--seed": seed}  # fmt: skip
        plain = {"--base": "default", "--weights": "default", "--task": "classes",
                 "--batch-size": 32, "--seed": 0}  # fmt: skip
        words = [f"{name} {shlex.quote(str(value))}" for name, value in given.items()
                 if value is not None and plain.get(name) != value]  # fmt: skip
        use = _way_to_use(selectors, found.suggestion, weights)
        use += " --skip-bad" * skip_bad
        show(
            f"suggested learning rate {found.suggestion:.1e}; the curve is in {out}",
            f"tl-keras fit {shlex.quote(data)} {' '.join(words)} {use} --out RUN",
        )


def _way_to_use(selectors: tuple[str, ...], found: float, weights: str) -> str:
    """Return the plan and its rates that use a rate in the stage which trains what was searched.

    The rates of stages before that are the plan's own.
    """
    ways = []
    for name in ("scratch" if weights == "none" else "lp-ft", *PLAN_NAMES):
        stages = named_plan(name).stages
        for place, stage in enumerate(stages):
            if {*stage.train} - {"head"} == {*selectors} - {"head"}:
                rates = [*(before.learning_rate for before in stages[:place]), found]
                words = ",".join(f"{rate:.2g}" for rate in rates)
                ways.append((place, f"--plan {name} --learning-rate {words}"))
    # The plan that gets there soonest; the first of equals.
    return min(ways, key=lambda way: way[0])[1] if ways else f"--learning-rate {found:.2g}"
