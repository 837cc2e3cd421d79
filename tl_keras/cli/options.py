"""The options that commands share, each defined once, and their ranges.

What is out of its range is refused while the command line is read: nothing heavy is imported yet.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tl_keras.errors import PlanError
from tl_keras.training.plan import PLAN_NAMES

__all__ = [
    "AsJson", "Augment", "Base", "BatchSize", "Data", "Debug", "Dense", "Epochs", "LrScale",
    "MovedData", "Plan", "Pooling", "Precision", "Run", "RunOut", "Seed", "Size", "SkipBad", "Task",
    "TestShare", "TestViews", "ValShare", "Views", "Weights", "new_file", "number", "numbers",
    "refuse_unused", "split_numbers", "split_words",
]  # fmt: skip


_LONGEST = 255  # bytes of a name, on all usual disks


def number(
    help: str, low: float, high: float, *, above: bool = False, below: bool = False, **more: Any
) -> Any:
    """Return an option for a number in a range; the help says which.

    Args:
        help: One sentence.
        low: The least, itself allowed unless `above`.
        high: The greatest, itself allowed unless `below`.
        above: Whether it must be more than `low`.
        below: Whether it must be less than `high`.
        **more: See `typer.Option`.
    """
    first, between = ("above", "and" if below else "up to") if above else ("from", "to")
    ends = f"{first} {low:,} {between}{' below' * below} {high:,}"
    words = f"{help.rstrip('.')}, {ends}."

    def check(value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else (value,):
            if one is None:
                continue
            # What is not a number is on no side of anything.
            ends_met = not (above and one == low) and not (below and one == high)
            if not (low <= one <= high and ends_met):
                raise typer.BadParameter(f"{_short(one)} is not in its range, {ends}")
        return value

    return typer.Option(help=words, callback=check, **more)


def _short(value: float) -> str:
    text = str(value)
    return text if len(text) < 30 else f"{text[:20]}... ({len(text)} digits)"


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a text with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def split_numbers(
    text: str, kind: type = int, high: float = 1e5, zero: bool = False
) -> tuple[Any, ...]:
    """Return the numbers of a text with commas.

    Args:
        text: Such as "10,5".
        kind: int or float.
        high: The greatest that is allowed.
        zero: Whether 0 is allowed.

    Raises:
        PlanError: The text holds something else.
    """
    name = "whole numbers" if kind is int else "numbers"
    ends = f"{'from 0' if zero else 'above 0'} to {high:,g}"
    try:
        found = tuple(kind(word) for word in split_words(text))
    except ValueError as error:
        raise PlanError(f"'{text}' is not {name} with commas between") from error
    if not all(math.isfinite(one) and (one >= 0 if zero else one > 0) and one <= high
               for one in found):  # fmt: skip
        raise PlanError(f"'{text}' is not in its range, {name} {ends} with commas between")
    return found


def numbers(help: str, kind: type = int, high: float = 1e5, **more: Any) -> Any:
    """Return an option for numbers with commas; :func:`split_numbers` reads its text."""

    def check(value: str) -> str:
        try:
            split_numbers(value, kind, high)
        except PlanError as error:
            raise typer.BadParameter(str(error)) from error
        return value

    return typer.Option(help=help, callback=check, **more)


def new_file(help: str, **more: Any) -> Any:
    """Return an option for a file to write, which is refused where none can be."""

    def check(value: Path | None) -> Path | None:
        # Functions of os.path, as those of Path fail at a name that is too long.
        if value is not None and os.path.isdir(value):
            raise typer.BadParameter(f"{value} is a folder; expected a file to write")
        parents = value.absolute().parents if value else ()
        if wrong := [one for one in parents if os.path.isfile(one)]:
            raise typer.BadParameter(f"{wrong[0]} is no folder; {value} cannot be written")
        if any(len(os.fsencode(part)) > _LONGEST for part in (value or Path()).parts):
            raise typer.BadParameter(f"a name of more than {_LONGEST} bytes cannot be written")
        return value

    return typer.Option(help=help, callback=check, **more)


def refuse_unused(option: str, value: object, used: bool, purpose: str) -> None:
    """Refuse an option that would be ignored.

    Args:
        option: Its name.
        value: What was given; None and False when it was not.
        used: Whether it does anything, with what else was chosen.
        purpose: What it is for, such as "plan lora".

    Raises:
        PlanError: It was given and would be ignored.
    """
    if value is not None and value is not False and not used:
        raise PlanError(
            f"{option} would do nothing here: it is for {purpose}. Leave it out, or use {purpose}"
        )


_DATA = (
    "A folder of class folders, a CSV file (path,label[,split]; of texts text,label[,split], also "
    "as .tsv or .jsonl), or a built-in set: digits."
)
_SEEDS = 2**32 - 1  # what NumPy takes

Data = Annotated[str, typer.Argument(metavar="DATA", help=_DATA)]
MovedData = Annotated[
    str | None, typer.Option("--data", help="Where the run's images are now, if they moved.")
]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="A directory that tl-keras fit has written.")
]
RunOut = Annotated[
    Path, typer.Option("--out", help="The directory of the new run, which must not exist.")
]
Base = Annotated[
    str,
    typer.Option(
        help="The backbone: a name (see: tl-keras bases) or a .keras file.",
        show_default="efficientnet_lite0 where its weights are installed, else mobilenet_v2; "
        "minilm for texts",
    ),
]
Size = Annotated[
    int | None,
    number(
        "Side of the images in pixels, or tokens of a text.", 8, 4096,
        show_default="the backbone's own; for texts what 99 % of them have, up to 128",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="imagenet, none, a file (of Keras, or .safetensors), or default: what the backbone "
        "comes with."
    ),
]
Task = Annotated[
    str,
    typer.Option(
        help="classes (one an image), tags (several an image) or values (numbers); of texts: "
        "text, text-tags or text-values."
    ),
]
Plan = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(PLAN_NAMES)}, or auto: chosen by short runs.",
        show_default="tuned; scratch with --weights none",
    ),
]
Epochs = Annotated[
    str, numbers("Epochs of each stage, with commas between.", show_default="the plan's")
]
LrScale = Annotated[
    float, number("Factor on the learning rates of all stages.", 0, 1000, above=True)
]
BatchSize = Annotated[int, number("Images a step.", 1, 65536)]
Augment = Annotated[
    str | None,
    typer.Option(
        help="none, or flip, crop, color, affine and randaugment, joined with +; for texts drop.",
        show_default="flip+crop; none for a built-in set and for texts",
    ),
]
Views = Annotated[
    int | None,
    number("Augmented views of each image that frozen stages see.", 1, 1000, show_default="4"),
]
TestViews = Annotated[
    str,
    typer.Option(
        "--views",
        help="Answer by the mean over views of each image: flip, crops, or flip,crops.",
        show_default="the image alone",
    ),
]
Pooling = Annotated[
    str, typer.Option(help="avg, max, avg+max, gem, flatten, first (token) or none.")
]
Dense = Annotated[
    str,
    numbers("Units of dense layers before the output, with commas between.", show_default="none"),
]
ValShare = Annotated[
    float,
    number("Share for validation, if the data has no such split.", 0, 1, above=True, below=True),
]
FitValShare = Annotated[
    float | None,
    number(
        "Share for validation, if the data has no such split.", 0, 1, above=True, below=True,
        show_default="none for plan tuned, which judges on folds; else 0.2",
    ),
]
TestShare = Annotated[
    float, number("Share for the test, if the data has no such split.", 0, 1, below=True)
]
Precision = Annotated[
    str, typer.Option(help="auto, float32, bfloat16 or onnxruntime, for frozen layers.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on without images that cannot be used.")
]
Seed = Annotated[int, number("Decides the split, the start and the order.", 0, _SEEDS)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
