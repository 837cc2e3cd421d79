"""The program tl-keras: its commands."""

from __future__ import annotations

from tl_keras.cli.advise import advise
from tl_keras.cli.bases import bases
from tl_keras.cli.check_data import check_data
from tl_keras.cli.drift import drift
from tl_keras.cli.evaluate import evaluate
from tl_keras.cli.fit import fit
from tl_keras.cli.lr_find import lr_find
from tl_keras.cli.predict import predict
from tl_keras.cli.probe import probe
from tl_keras.cli.program import Program, make_program
from tl_keras.cli.resume import resume
from tl_keras.cli.update import update
from tl_keras.cli.verdict import verdict

__all__ = ["app", "main"]

app = make_program(
    Program,
    "From a folder of labelled images to a trained model.\n\n"
    "Example:  tl-keras fit photos/ --base mobilenet_v2 --out runs/photos",
)
for command in (fit, resume, evaluate, predict, bases, check_data, lr_find, probe, advise, verdict,
                update, drift):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Start the program."""
    app()
