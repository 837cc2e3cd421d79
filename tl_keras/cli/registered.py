"""The commands of this package by name: a new one is one line here."""

from __future__ import annotations

import typer

from tl_keras.cli import advise, probe, shift, update, verdict

__all__ = ["register"]

COMMANDS = (
    ("advise", "Say which base to take, before any is trained.", advise.HELP, advise.advise),
    ("probe", "Fit a simple classifier on a base's features.", probe.HELP, probe.probe),
    ("shift", "Say whether other pictures differ from a run's.", shift.HELP, shift.shift),
    ("update", "Teach a run new classes or new pictures.", update.HELP, update.update),
    ("verdict", "Say whether pretraining helps or hurts.", verdict.HELP, verdict.verdict),
)
"""Name, a line for the list, the whole help, the function."""


def register(app: typer.Typer) -> None:
    """Add every command to the roof."""
    for name, line, words, function in COMMANDS:
        app.command(name, short_help=line, help=words)(function)
