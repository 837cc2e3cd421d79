"""The commands of this package by name: a new one is one line here."""

from __future__ import annotations

import typer

from tl_keras.commands import advise, probe, shift, update, verdict

__all__ = ["register"]

COMMANDS = (
    ("advise", advise.HELP, advise.advise),
    ("probe", probe.HELP, probe.probe),
    ("shift", shift.HELP, shift.shift),
    ("update", update.HELP, update.update),
    ("verdict", verdict.HELP, verdict.verdict),
)


def register(app: typer.Typer) -> None:
    """Add every command to the roof."""
    for name, words, function in COMMANDS:
        app.command(name, help=words)(function)
