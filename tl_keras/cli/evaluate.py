"""The command evaluate: score a run's model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, show_json, show_scores

__all__ = ["evaluate"]


def evaluate(
    run: opt.Run,
    data: Annotated[
        str | None,
        typer.Option(
            help="Other images: a folder of class folders, a CSV file, or a built-in set.",
            show_default="the run's own",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val or test.",
            show_default="test if there is one, else val; all of other images without splits",
        ),
    ] = None,
    views: opt.TestViews = "",
    out: Annotated[Path | None, opt.new_file("Write the scores to this JSON file, too.")] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Score a run's model on its test split or on other images.

    Example:  tl-keras evaluate runs/photos --data new_photos/
    """
    with error_boundary(debug):
        from tl_keras.models.views import parse_views
        from tl_keras.runs.directory import RunDirectory
        from tl_keras.workflows.evaluate import evaluate_run

        names = parse_views(views)
        if out is not None:
            from tl_keras.utils.files import refuse_file

            refuse_file(out, ".json", data or RunDirectory(run).fact("data", "root"))
        with bars() as progress:
            scores = evaluate_run(run, data, split, progress, names)
        if out is not None:
            from tl_keras.utils.files import write_atomically

            write_atomically(out, (json.dumps(scores, indent=1) + "\n").encode())
        if as_json:
            show_json(scores)
            return
        part = scores["split"]
        own = "its images out of fold" if part == "out_of_fold" else f"its {part} split"
        where = f"the {part} split of {data}" if data and part else data or own
        noun = RunDirectory(run).modality.noun
        show_scores(f"{run} on {where}", {"score": scores}, noun)
