"""What both programs are: a group of commands, help at once, and mistakes told in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

import tl_keras
from tl_keras.cli.console import MISTAKE, STOPPED
from tl_keras.utils.suggest import did_you_mean

__all__ = ["Program", "make_program"]

# Typer before 0.29 takes this class from click, later ones have their own: no name holds for both.
_Wrong: type[Exception] = typer.BadParameter.__mro__[1]
# What was called otherwise in earlier versions, and still works.
_OLD_COMMANDS = {"shift": "drift"}
_OLD_OPTIONS = {
    "fit": {"--rate": "--lr-scale"},
    "update": {"--rate": "--lr-scale"},
    "distill": {"--rate": "--lr-scale"},
    "compress": {"--rate": "--learning-rate"},
    "advise": {"--pictures": "--images"},
}


class Program(TyperGroup):
    """A group of commands.

    Help comes before values are looked at: Typer imports its validation for the first value,
    which takes longer than all the rest.

    Attributes:
        default: The command that a first word which is none belongs to; empty for none.
    """

    default: ClassVar[str] = ""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None,
        complete_var: str | None = None, standalone_mode: bool = True,
        windows_expand_args: bool = True, **extra: Any,
    ) -> Any:  # fmt: skip
        """Run, and leave with 0, 2 for a mistake (told in one line), or 130 when stopped."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args)
        _open_streams()
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args)
        except (typer.Abort, KeyboardInterrupt):
            code = STOPPED
        except _Wrong as error:
            typer.echo(f"Error: {_sentence(error)}", err=True)
            code = MISTAKE
        sys.exit(code or 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show help if that is all that is asked for, and put today's names for old ones."""
        if args[:1] == ["help"] and not os.path.exists("help"):
            args = [*args[1:], "--help"] if args[1:] else []
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit
        args = self._with_default(ctx, args)
        if args[0] in _OLD_COMMANDS and self.get_command(ctx, args[0]) is None:
            args = [_OLD_COMMANDS[args[0]], *args[1:]]
        command = self.get_command(ctx, args[0])
        if command is not None:
            own = args[1 : args.index("--")] if "--" in args else args[1:]
            asked = "--help" in own or "-h" in own
            if asked or (len(args) == 1 and any(one.required for one in command.params)):
                text = command.get_help(typer.Context(command, info_name=args[0], parent=ctx))
                typer.echo(text, err=not asked)
                raise typer.Exit(0 if asked else MISTAKE)
            args = _with_new_names(args, len(own))
            _refuse_empty(command, args[: 1 + len(own)])
        elif not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'.{did_you_mean(args[0], self.commands)}")
        return super().parse_args(ctx, args)

    def _with_default(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before a first word that is a run, or at least no command."""
        word = args[0]
        if not self.default or (word.startswith("-") and word != "--"):
            return args
        command, default = self.get_command(ctx, word), self.get_command(ctx, self.default)
        if command is None:
            return [self.default, *args]
        # A run whose folder is called like a command, and no other word that could be its value.
        every = {name for one in default.params for name in one.opts} if default else set()
        options = {name for name in every if name.startswith("-")}
        alone = len(args) == 1 or args[1].partition("=")[0] in options - {"--debug"}
        if alone and os.path.isfile(os.path.join(word, "run.json")):
            return [self.default, *args]
        return args


def _with_new_names(args: list[str], count: int) -> list[str]:
    renamed = _OLD_OPTIONS.get(args[0], {})
    new = list(args)
    for place in range(1, 1 + count):
        name, sign, value = args[place].partition("=")
        new[place] = renamed.get(name, name) + sign + value
    return new


def _refuse_empty(command: Any, args: list[str]) -> None:
    """Refuse an empty word, unless its option means nothing by it: a typing error, most likely."""
    mute = {name for one in command.params if one.default == "" for name in one.opts}
    for before, word in zip(args, args[1:], strict=False):
        name, sign, value = word.partition("=")
        assigned = name.startswith("--") and bool(sign)
        if (assigned and not value and name not in mute) or (not word and before not in mute):
            name = name or (before if before.startswith("--") else "a word")
            raise typer.BadParameter(f"{name} is empty; is a variable of the shell not set?")


def _sentence(error: Any) -> str:
    """One line: what is wrong, what may have been meant, and where to look."""
    text = " ".join(str(error.message or error.format_message()).split())
    if isinstance(error, typer.BadParameter):
        text = " ".join(error.format_message().split())
    if found := getattr(error.__cause__, "errors", None):  # pydantic, which does not say what
        text = f"{text} (got {found()[0]['input']!r})"
    if near := getattr(error, "possibilities", None):
        text = f"{text.rstrip('.')}. Did you mean {' or '.join(near)}?"
    ctx = error.ctx
    unknown = ctx.params.get("run") if ctx and "extra argument" in text else None
    group = ctx.parent.command if ctx and ctx.parent else None
    if unknown and isinstance(group, Program) and not os.path.exists(unknown):
        known = [name for name, one in group.commands.items() if not one.hidden]
        near = did_you_mean(str(unknown), known, cutoff=0.6)
        text = f"'{unknown}' is no command and no run.{near}"
    text = text if text.endswith((".", "?")) else f"{text}."
    return f"{text} See: {ctx.command_path} --help" if ctx else text


def _open_streams() -> None:
    """Open what the caller closed: else the first file would be taken for the terminal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(tl_keras.__version__)
        raise typer.Exit


def make_program(cls: type[Program], words: str) -> typer.Typer:
    """Return an empty program; a command's help is the docstring of its function."""
    app = typer.Typer(
        cls=cls,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Rich's own help takes longer to import than all the rest.
        rich_markup_mode=None,
        context_settings={"max_content_width": 100, "help_option_names": ["--help", "-h"]},
        help=words,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_show_version,
            help="Show the version and leave.",
        ),
    ) -> None:  # fmt: skip
        pass

    return app
