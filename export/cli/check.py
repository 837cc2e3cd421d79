"""The command check: whether a bundle is whole, and answers here as it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import DIFFERS, error_boundary, show, show_json, table

if TYPE_CHECKING:
    from export.bundle.originals import Reading

__all__ = ["check"]


def check(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or a .zip.")],
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Check a bundle, anywhere, without TensorFlow.

    Names, sizes and hashes must be as the manifest says, the answers for the golden images as
    where the bundle was made, and the whole files in it must be decoded and resized to the same.
    Needs numpy, pillow and the runtimes. The exit code is 2 if the bundle is damaged or was
    changed, 3 if a model answers otherwise or a file is read otherwise; the step is named.

    Example:  tl-export check bundle.zip
    """
    with error_boundary(debug):
        from export.bundle.golden import verify_bundle

        found = verify_bundle(bundle)
        if as_json:
            outcomes = [{**dataclasses.asdict(one), "passed": one.passed} for one in found.outcomes]
            readings = [{**dataclasses.asdict(one), "passed": one.passed} for one in found.readings]
            facts = {"name": found.name, "files": found.files, "passed": found.passed}
            show_json({**facts, "outcomes": outcomes, "readings": readings})
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
            show(made, *_describe_readings(found.readings))
        if not found.passed:
            raise typer.Exit(DIFFERS)


def _describe_readings(readings: Sequence[Reading]) -> list[str]:
    if not readings:
        return ["no whole files are in it: how files are read was not proven"]
    exact = sum(one.exact for one in readings)
    right = sum(one.passed for one in readings)
    head = (
        f"from reading to the answer, {len(readings)} whole files: {right} right, "
        f"{exact} to the bit"
    )
    wrong = (one for one in readings if not one.passed)
    return [head, *(
        f"{one.file}{f' ({one.proves})' * bool(one.proves)}: the step {one.step} DIFFERS: "
        f"{one.detail}" for one in wrong
    )]  # fmt: skip
