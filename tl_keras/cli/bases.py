"""The command bases: list the backbones."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import error_boundary, show, show_json, table

__all__ = ["bases"]


def bases(
    words: Annotated[
        str, typer.Argument(metavar="WORD", help="Part of a name; all without it.")
    ] = "",
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """List the backbones that --base knows.

    Example:  tl-keras bases mobilenet
    """
    with error_boundary(debug):
        from tl_keras.models.backbones.load import backbone_names, describe

        names = [name for name in backbone_names() if words.lower() in name]
        # An unknown word gets the nearest names.
        infos = [describe(name) for name in names or [words]]
        if as_json:
            show_json([dataclasses.asdict(info) for info in infos])
            return
        made = table("", "base", "size", "at least", "weights", "published")
        for info in infos:
            cells = (info.default_size, info.minimum_size, info.default_weights, info.publication)
            made.add_row(info.name, *map(str, cells))
        made.columns[4].justify = "left"
        show(made)
