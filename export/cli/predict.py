"""The command predict: labels by a bundle's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import error_boundary, short, show, show_json, table
from tl_keras.errors import BundleError

__all__ = ["predict"]


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder or a .zip.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    variant: Annotated[
        str | None, typer.Option(help="Such as tflite-int8.", show_default="the bundle's default")
    ] = None,
    top: Annotated[int, opt.number("Labels for each image.", 1, 100000)] = 3,
    threads: Annotated[
        int | None, opt.number("Cores to use.", 1, 256, show_default="all, at most 4")
    ] = None,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Label images by a bundle, without TensorFlow.

    Images are decoded and resized as in training, and the runtime answers as on a device.

    Example:  tl-export predict bundle.zip photo.jpg --top 3
    """
    with error_boundary(debug):
        import numpy as np

        from export.bundle.read import read_bundle
        from export.runtime.bench import try_out
        from export.runtime.runtimes import load
        from tl_keras import tasks

        with read_bundle(bundle) as found:
            inputs, chosen = found.read_samples(images), found.variant(variant)
            try_out([found.folder / chosen["file"]])
            answers = load(found.folder / chosen["file"], threads).predict(inputs)
        names = found.manifest["classes"]
        if answers.shape[1:] != (len(names),):
            raise BundleError(
                f"{chosen['name']} gives {answers.shape[1:]} for an image and the bundle has "
                f"{len(names)} classes: its files do not belong together. Get it anew."
            )
        made, rows = table(f"answers of {chosen['name']}", "image", "label", "score"), []
        for image, scores in zip(images, answers):
            best = list(range(len(names)))
            if tasks.get(found.manifest["task"]).ranked:
                best = [int(index) for index in np.argsort(-scores, kind="stable")[:top]]
            outputs = [{"name": names[i], "value": float(f"{scores[i]:.7g}")} for i in best]
            rows.append({"path": str(image), "outputs": outputs})
            for place, one in enumerate(outputs):
                first = str(image) if place == 0 else ""
                made.add_row(first, one["name"], short(one["value"]))
        if as_json:
            show_json(rows)
        else:
            show(made)
