"""Classify pictures with a .tflite file of this bundle.

Needs numpy, pillow and ai-edge-litert, nothing else.

    python run_tflite.py photo.jpg another.png
    python run_tflite.py --model models/tflite-int8.tflite --top 3 photo.jpg
    python run_tflite.py --json photo.jpg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ["Model", "main", "read_picture"]

HERE = Path(__file__).resolve().parent
FORMAT = "tflite"


class Model:
    """A .tflite file that answers for one picture at a time.

    Args:
        path: the file.
        threads: cores to use.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.height, self.width = (int(side) for side in self._input["shape"][1:3])

    def predict(self, picture: np.ndarray) -> np.ndarray:
        """Answer for a uint8 picture (height, width, 3), RGB: float32 (outputs,)."""
        taken: np.ndarray = picture[np.newaxis].astype(np.float32)
        kind = self._input["dtype"]
        if kind is not np.float32:
            scale, zero = self._input["quantization"]
            limits = np.iinfo(kind)
            taken = np.clip(np.rint(taken / (scale or 1.0)) + zero, limits.min, limits.max)
        self._interpreter.set_tensor(self._input["index"], taken.astype(kind))
        self._interpreter.invoke()
        given = self._interpreter.get_tensor(self._output["index"])[0]
        if self._output["dtype"] is np.float32:
            return given
        scale, zero = self._output["quantization"]
        return (given.astype(np.float32) - zero) * (scale or 1.0)


def read_picture(path: str, height: int, width: int) -> np.ndarray:
    """Read a picture as in training: upright, on white, resized as a whole; uint8 RGB."""
    with Image.open(path) as image:
        # A large JPEG is read at a reduced size.
        image.draft(None, (2 * width, 2 * height))
        upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        picture = upright.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        upright = Image.alpha_composite(white, picture)
    resized = upright.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def best(labels: list[str], scores: np.ndarray, count: int) -> list[tuple[str, float]]:
    """Return the highest scores with their labels, best first."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [(labels[index], float(scores[index])) for index in order]


def default_model() -> Path:
    """Find the bundle's default, or its first file in this format."""
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    fitting: list[dict[str, Any]] = [v for v in manifest["variants"] if v["format"] == FORMAT]
    fitting.sort(key=lambda variant: variant["name"] != manifest["default"])
    return HERE / fitting[0]["file"]


def main() -> None:
    """Read the command line and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", type=Path, help="a .tflite file; by default the bundle's own")
    parser.add_argument("--top", type=int, default=3, help="labels to print for each picture")
    parser.add_argument("--threads", type=int, help="cores to use")
    parser.add_argument("--json", action="store_true", help="print all scores as JSON")
    asked = parser.parse_args()
    model = Model(asked.model or default_model(), asked.threads)
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for path in asked.pictures:
        scores = model.predict(read_picture(path, model.height, model.width))
        if asked.json:
            print(json.dumps({"picture": path, "scores": [float(score) for score in scores]}))
        else:
            words = [f"{label} {score:.4f}" for label, score in best(labels, scores, asked.top)]
            print(f"{path}: {', '.join(words)}")


if __name__ == "__main__":
    main()
