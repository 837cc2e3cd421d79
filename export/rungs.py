"""The rungs of the ladder, in the order in which they are tried.

Each takes the workshop and the best settings so far, and yields settings to try with a note of
what it did in particular; one that has nothing to offer yields none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from export.ladder import Rung, Settings, Workshop
from export.ranges import CLIPS

__all__ = ["RUNGS"]


def as_it_is(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Quantize with the first calibration pictures."""
    yield best, f"{best.pictures} calibration pictures" if best.pictures else ""


def more_calibration(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Take ranges from more pictures, if there are more."""
    count = workshop.available(workshop.limits.more)
    if workshop.task.recipe.calibrated and count > best.pictures:
        yield replace(best, pictures=count), f"{count} calibration pictures"


def range_clipping(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Leave rare, large values out of the ranges."""
    for clip in CLIPS[1:] if workshop.task.recipe.calibrated else ():
        yield replace(best, clip=clip), clip


RUNGS: tuple[tuple[str, Rung], ...] = (
    ("as it is", as_it_is),
    ("more calibration", more_calibration),
    ("range clipping", range_clipping),
)
