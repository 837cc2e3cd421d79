"""`tl-export`: the roof of the way out."""

from __future__ import annotations

from typing import Any

import typer

from export.cli import bench, check, compress, distill, inspect_, predict, run
from tl_keras.cli.console import HelpFirst

__all__ = ["app", "main"]

DEFAULT = "run"


class _RunFirst(HelpFirst):
    """A group whose first word may be a run instead of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the default command before a word that is no command."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunFirst,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
    no_args_is_help=True,
    help="From a trained run to files for a device, each one proven.\n\n"
    "Example:  tl-export runs/photos --to tflite,onnx",
)
app.command(DEFAULT, short_help=run.SHORT_HELP, help=run.HELP, no_args_is_help=True)(
    run.export_run
)
app.command("distill", short_help=distill.SHORT_HELP, help=distill.HELP, no_args_is_help=True)(
    distill.distill
)
app.command("compress", short_help=compress.SHORT_HELP, help=compress.HELP, no_args_is_help=True)(
    compress.compress
)
app.command("check", short_help=check.SHORT_HELP, help=check.HELP, no_args_is_help=True)(
    check.check_bundle
)
app.command("bench", short_help=bench.SHORT_HELP, help=bench.HELP, no_args_is_help=True)(
    bench.bench_models
)
app.command("inspect", short_help=inspect_.SHORT_HELP, help=inspect_.HELP, no_args_is_help=True)(
    inspect_.inspect_file
)
app.command("predict", short_help=predict.SHORT_HELP, help=predict.HELP, no_args_is_help=True)(
    predict.predict
)


@app.callback()
def _group() -> None:
    """Make even a single command one of a group."""


def main() -> None:
    """Start the command line."""
    app()
