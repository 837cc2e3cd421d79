"""The command check: whether a bundle is whole, and answers here as it should."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import DIFFERS, error_boundary, show, show_json, table

__all__ = ["check"]


def check(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or a .zip.")],
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Check a bundle, anywhere, without TensorFlow.

    Names, sizes and hashes must be as the manifest says, and the answers for the golden images
    as where the bundle was made. Needs numpy, pillow and the runtimes. The exit code is 2 if the
    bundle is damaged or was changed, 3 if a model answers otherwise.

    Example:  tl-export check bundle.zip
    """
    with error_boundary(debug):
        from export.bundle.golden import verify_bundle

        found = verify_bundle(bundle)
        if as_json:
            outcomes = [{**dataclasses.asdict(one), "passed": one.passed} for one in found.outcomes]
            facts = {"name": found.name, "files": found.files, "passed": found.passed}
            show_json({**facts, "outcomes": outcomes})
        else:
            title = f"{found.name}: {found.files} files are as the manifest says"
            made = table(title, "variant", "answers", "labels equal", "max difference")
            for one in found.outcomes:
                made.add_row(
                    one.name,
                    "as expected" if one.passed else "DIFFERENT",
                    f"{one.agreed} of {one.count}",
                    f"{one.max_difference:.1e} (≤ {one.tolerance:.0e})",
                )
            show(made)
        if not found.passed:
            raise typer.Exit(DIFFERS)
