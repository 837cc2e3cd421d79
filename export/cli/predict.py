"""`tl-export predict BUNDLE PHOTO...`: labels by a bundle's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tl_keras.cli.console import show, table, told
from tl_keras.errors import BundleError

__all__ = ["HELP", "SHORT_HELP", "predict"]

SHORT_HELP = "Label photos by a bundle, without TensorFlow."
HELP = """Label photos by a bundle's model, as its runtime answers on a device.

Pictures are decoded and resized as in training. Needs no TensorFlow.

Example:  tl-export predict bundle.zip photo.jpg --top 3
"""


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or a .zip.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Picture files.")],
    variant: Annotated[
        str | None, typer.Option(help="Such as tflite-int8.", show_default="the bundle's default")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels for each photo.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Cores to use.", show_default="all, at most 4")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the command; `HELP` says what it does."""
    with told(debug):
        from export.bundle.read import read_bundle
        from export.runtime.runtimes import load
        from tl_keras.modalities.image.decode import open_picture, resize

        with read_bundle(bundle) as found:
            size = found.manifest["input"]["shape"][0]
            pictures = np.stack([resize(open_picture(photo, size), size) for photo in photos])
            chosen = found.variant(variant)
            answers = load(found.folder / chosen["file"], threads).predict(pictures)
        names = found.manifest["classes"]
        if answers.shape[1:] != (len(names),):
            raise BundleError(
                f"{chosen['name']} gives {answers.shape[1:]} for a photo and the bundle has "
                f"{len(names)} classes: its files do not belong together. Get it anew."
            )
        closing = table(f"answers of {chosen['name']}", "photo", "label", "score")
        for photo, scores in zip(photos, answers):
            for place, index in enumerate(np.argsort(-scores, kind="stable")[:top]):
                first = str(photo) if place == 0 else ""
                closing.add_row(first, names[index], f"{scores[index]:.4f}")
        show(closing)
