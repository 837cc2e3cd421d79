"""The command predict: say what is on images, or what texts are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, error_boundary, short, show, show_json, table

__all__ = ["predict"]


def predict(
    run: opt.Run,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE...", help="Images or folders of images; .txt files or tables of texts."
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text itself, for a run on texts; may be repeated.")
    ] = None,
    top: Annotated[int, opt.number("Classes shown for each image.", 1, 100000)] = 3,
    views: opt.TestViews = "",
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Say what is on images, or what texts are.

    Example:  tl-keras predict runs/photos new/*.jpg --top 3
    """
    with error_boundary(debug):
        from tl_keras.models.views import parse_views
        from tl_keras.workflows.evaluate import predict_files

        names = parse_views(views)
        with bars() as progress:
            rows = predict_files(run, images or [], top, progress, names, text or [])
        if as_json:
            show_json(rows)
            return
        made = table("", "text" if text else "file", "outputs")
        for row in rows:
            said = ", ".join(
                f"{one['name']} {short(one['value'])}" + (" (given)" if one.get("given") else "")
                for one in row["outputs"]
            )
            made.add_row(str(row["path"]), said)
        made.columns[1].justify = "left"
        show(made)
