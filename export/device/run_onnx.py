"""Classify pictures with an .onnx file of this bundle.

Needs numpy, pillow and onnxruntime, nothing else.

    python run_onnx.py photo.jpg another.png
    python run_onnx.py --model models/onnx-int8.onnx --top 3 photo.jpg
    python run_onnx.py --json photo.jpg
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
FORMAT = "onnx"


class Model:
    """An .onnx file that answers for one picture at a time.

    Args:
        path: the file.
        threads: cores to use.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Without VNNI, sums of products of 8 bits would saturate in 16 bits.
        options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0]
        self.height, self.width = self._input.shape[1:3]
        self._kind = np.uint8 if "uint8" in self._input.type else np.float32

    def predict(self, picture: np.ndarray) -> np.ndarray:
        """Answer for a uint8 picture (height, width, 3), RGB: float32 (outputs,)."""
        batch: np.ndarray = picture[np.newaxis].astype(self._kind)
        return self._session.run(None, {self._input.name: batch})[0][0]


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
    parser.add_argument("--model", type=Path, help="an .onnx file; by default the bundle's own")
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
