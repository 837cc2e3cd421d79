"""`tl-export check BUNDLE`: is it whole, and does it answer here as it should?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli.console import show, table, told

__all__ = ["HELP", "SHORT_HELP", "check_bundle"]

DIFFERS = 3
SHORT_HELP = "Check a bundle, anywhere, without TensorFlow."
HELP = """Check a bundle: names, sizes, hashes, and the answers for its golden pictures.

Needs numpy, pillow and the runtimes, but no TensorFlow. The exit code is 2 if the bundle is
damaged or was changed, 3 if a model answers otherwise than where it was made.

Example:  tl-export check bundle.zip
"""


def check_bundle(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or a .zip.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    with told(debug):
        from export.bundle.golden import verify_bundle

        found = verify_bundle(bundle)
        title = f"{found.name}: {found.files} files are as the manifest says"
        columns = ("variant", "answers", "labels equal", "max difference")
        closing = table(title, *columns)
        for one in found.outcomes:
            closing.add_row(
                one.name,
                "as expected" if one.passed else "DIFFERENT",
                f"{one.labels_equal} of {one.pictures}",
                f"{one.max_difference:.1e} (≤ {one.tolerance:.0e})",
            )
        show(closing)
    if not found.passed:
        raise typer.Exit(DIFFERS)
