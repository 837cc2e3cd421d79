"""How work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with a task's name, how much of it is done, and of how much."""


def silent(task: str, done: int, total: int) -> None:
    """Tell nobody: the progress function where none is given."""
