"""The command bases: list the backbones."""

from __future__ import annotations

from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import error_boundary, show, show_json, table

__all__ = ["bases"]


def bases(
    words: Annotated[
        str, typer.Argument(metavar="WORD", help="Part of a name; all without it.")
    ] = "",
    here: Annotated[
        bool, typer.Option("--here", help="Only those whose weights are on this machine.")
    ] = False,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """List the backbones that --base knows, and what they cost.

    Size, weights as float32 and multiplications for one image are those of the features, without
    a head.

    Example:  tl-keras bases mobilenet
    """
    with error_boundary(debug):
        from tl_keras.models.backbones.catalog import catalog, entry_of

        entries = [one for one in catalog() if words.lower() in one.name.lower()]
        # An unknown word gets the nearest names.
        entries = [one for one in entries or [entry_of(words)] if one.here or not here]
        if as_json:
            show_json([one.to_dict() for one in entries])
            return
        names = ("base", "size", "M par.", "MB", "G mul.", "licence", "weights")
        made = table("", *names)
        for one in entries:
            size = f"{one.info.default_size} {one.info.unit}" if one.info else one.modality
            costs = one.costs
            made.add_row(
                one.name, size,
                f"{costs.parameters / 1e6:.1f}" if costs else "",
                f"{costs.megabytes:.0f}" if costs else "",
                f"{costs.multiply_adds / 1e9:.2f}" if costs else "",
                one.info.licence if one.info else "", one.way,
            )  # fmt: skip
        for column in made.columns[-2:]:
            column.justify = "left"
        made.columns[0].no_wrap = True  # a name is copied
        made.columns[0].min_width = max((len(one.name) for one in entries), default=0)
        show(made)
