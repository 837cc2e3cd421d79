"""The program tl-export: its commands."""

from __future__ import annotations

from typing import ClassVar

from export.cli.bench import bench
from export.cli.check import check
from export.cli.compress import compress
from export.cli.distill import distill
from export.cli.export import export_run
from export.cli.inspect import inspect
from export.cli.predict import predict
from tl_keras.cli.program import Program, make_program

__all__ = ["app", "main"]


class _Export(Program):
    """A first word that is no command is a run."""

    default: ClassVar[str] = "run"


app = make_program(
    _Export,
    "From a trained run to files for a device, each one proven.\n\n"
    "A first word that is no command is a run, for the command run; write ./check for a run in a "
    "folder called check.\n\n"
    "Example:  tl-export runs/photos --to tflite,onnx",
)
app.command("run")(export_run)
for command in (distill, compress, check, bench, inspect, predict):
    app.command()(command)


def main() -> None:
    """Start the program."""
    app()
