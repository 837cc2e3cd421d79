"""Names that a user may have meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.4) -> list[str]:
    """Return the known names most like a name, the nearest first (Ratcliff and Obershelp 1988).

    Args:
        name: What was written.
        known: What there is.
        most: At most so many.
        cutoff: Least likeness, 0..1.
    """
    return difflib.get_close_matches(name, list(known), most, cutoff)


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.4) -> str:
    """Return " Did you mean ...?" for the end of a message, empty where nothing is near."""
    near = nearest(name, known, most, cutoff)
    return f" Did you mean {' or '.join(near)}?" if near else ""
