"""Let a model of this bundle answer for image files.

Needs numpy, pillow, and onnxruntime for .onnx or ai-edge-litert for .tflite files; nothing else.

    python run.py photo.jpg another.png
    python run.py --model models/tflite-int8.tflite --top 3 photo.jpg
    python run.py --json photo.jpg
    python run.py --check
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

__all__ = ["OnnxModel", "TfliteModel", "check", "decode_image", "main", "read_image", "resize"]

HERE = Path(__file__).resolve().parent
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF")
MEAN_DIFFERENCE, NEAR = 1.0, 0.05
"""Allowed of what a file becomes (of 255), and of answers for what is not the same to the bit."""
WHITES = {"integer": (255.0, 1023.0, 4095.0, 16383.0, 65535.0), "float": (1.0, 255.0, 65535.0)}


class OnnxModel:
    """An .onnx file that answers for one image at a time.

    Args:
        path: the file.
        threads: cores to use; all by default.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        cpu = Path("/proc/cpuinfo")
        if not cpu.exists() or "vnni" not in cpu.read_text(encoding="ascii", errors="replace"):
            # Sums of products of 8 bits would saturate in 16 bits.
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        self._input = self._session.get_inputs()[0]
        self.height, self.width = self._input.shape[1:3]
        self._kind = np.uint8 if "uint8" in self._input.type else np.float32

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Answer for a uint8 image (height, width, 3), RGB: float32 (outputs,)."""
        batch: np.ndarray = image[np.newaxis].astype(self._kind)
        return self._session.run(None, {self._input.name: batch})[0][0]


class TfliteModel:
    """A .tflite file that answers for one image at a time.

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

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Answer for a uint8 image (height, width, 3), RGB: float32 (outputs,)."""
        taken: np.ndarray = image[np.newaxis].astype(np.float32)
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


def read_image(
    path: str, height: int, width: int, levels: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Read an image as in training: upright, on white, resized as a whole.

    Args:
        path: the file.
        height: pixels.
        width: pixels.
        levels: for images of more than 8 bits of gray, which values become black and white, as
            the manifest has them; by default what the image itself uses.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    upright = decode_image(path, height, width, levels)
    return resize(upright, height, width)


def resize(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Resize to uint8 (height, width, 3): across, then down, whatever Pillow would begin with."""
    across = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(across.resize((width, height), Image.Resampling.BILINEAR))


def decode_image(
    path: str, height: int, width: int, levels: Mapping[str, Any] | None = None
) -> Image.Image:
    """Decode an image upright in RGB; a large JPEG at a size that is enough to resize from."""
    with Image.open(path, formats=FORMATS) as image:
        # A large JPEG is read at a reduced size.
        image.draft(None, (2 * width, 2 * height))
        image.load()
        turned: Image.Image = image
        if image.format != "TIFF":  # which Pillow turns itself
            with contextlib.suppress(ValueError, SyntaxError, OSError, struct.error, KeyError):
                turned = ImageOps.exif_transpose(image)
        return _to_rgb(turned, image.info.get("icc_profile"), levels or {})


def _to_rgb(image: Image.Image, profile: bytes | None, levels: Mapping[str, Any]) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_gray(np.asarray(image), levels)).convert("RGB")
    if image.mode == "LAB" or (image.mode == "CMYK" and profile):
        try:
            lab = image.mode == "LAB"
            source = ImageCms.createProfile("LAB") if lab else io.BytesIO(profile or b"")
            colors = ImageCms.ImageCmsProfile(source), ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, *colors, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError):
            return image.convert("RGB")
    if image.has_transparency_data:
        above = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("RGB")


def _scale_gray(values: np.ndarray, levels: Mapping[str, Any]) -> np.ndarray:
    """Scale gray of more than 8 bits to 8: black and white where the data set has them."""
    kind = "float" if values.dtype.kind == "f" else "integer"
    if kind in levels:
        low, high = levels[kind]
    else:
        finite = values[np.isfinite(values)]
        least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        whites = WHITES[kind][-1:] if kind == "integer" else WHITES[kind]
        fitting = [(0.0, white) for white in whites if least >= 0 and most <= white]
        low, high = (*fitting, (least, most))[0]
    with np.errstate(over="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-12))
    return np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)


def check(manifest: Mapping[str, Any], path: Path, variant: str, threads: int | None) -> int:
    """Decode, resize and answer for the bundle's whole files; print which step differs.

    Args:
        manifest: of the bundle.
        path: of the model's file.
        variant: its name in the manifest.
        threads: cores to use.

    Returns:
        How many files come out otherwise than where the bundle was made.
    """
    golden = json.loads((HERE / "golden/golden.json").read_text(encoding="utf-8"))
    model = (OnnxModel if path.suffix == ".onnx" else TfliteModel)(path, threads)
    tolerance, wrong, count = golden["tolerances"][variant], 0, 0
    for entry, expected in zip(golden["samples"], golden["outputs"][variant], strict=True):
        if "original" not in entry:
            continue
        count += 1
        levels = manifest.get("settings", {}).get("levels")
        height, width, _ = manifest["input"]["shape"]
        decoded = decode_image(str(HERE / entry["original"]), height, width, levels)
        same = hashlib.sha256(decoded.tobytes()).hexdigest() == entry["trace"]["sha256"]
        seen = resize(decoded, height, width)
        taken = np.asarray(decoded) if manifest.get("resize_in_graph") else seen
        with Image.open(HERE / entry["file"], formats=["PNG"]) as image:
            apart = np.abs(np.asarray(image).astype(float) - seen).mean()
        given = model.predict(taken)
        off = float(np.abs(given - np.asarray(expected)).max())
        spread = float(np.ptp(golden["outputs"][variant], axis=0).max())
        allowed = tolerance if apart == 0 else max(tolerance, NEAR * spread)
        if apart <= MEAN_DIFFERENCE and off <= allowed:
            continue
        wrong += 1
        step = "model" if apart <= MEAN_DIFFERENCE else "resize" if same else "decode"
        print(
            f"{entry['original']} ({entry['proves'] or entry['key']}): the step {step} DIFFERS: "
            f"pixels by {apart:.2f} of 255 on average, answers by {off:.2g}"
        )
    print(f"{count - wrong} of {count} whole files give what they should by {variant}")
    return wrong


def main() -> int:
    """Read the command line and print the answers.

    Returns:
        The exit code: 3 if --check finds a difference, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*")
    purpose = "prove decoding, resize and model on the bundle's files"
    parser.add_argument("--check", action="store_true", help=purpose)
    parser.add_argument("--model", type=Path, help="a model file; by default the bundle's default")
    parser.add_argument("--top", type=int, default=3, help="labels to print for each image")
    parser.add_argument("--threads", type=int, help="cores to use")
    parser.add_argument("--json", action="store_true", help="print all scores as JSON")
    asked = parser.parse_args()
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    files = {variant["name"]: HERE / variant["file"] for variant in manifest["variants"]}
    path = asked.model or files[manifest["default"]]
    if asked.check:
        resolved = {file.resolve(): name for name, file in files.items()}
        if path.resolve() not in resolved:
            parser.error(f"{path} is no model of this bundle; leave out --model")
        return 3 * bool(check(manifest, path, resolved[path.resolve()], asked.threads))
    if not asked.images:
        parser.error("name an image, or --check")
    model = (OnnxModel if path.suffix == ".onnx" else TfliteModel)(path, asked.threads)
    levels = manifest.get("settings", {}).get("levels")
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for name in asked.images:
        if manifest.get("resize_in_graph"):
            height, width, _ = manifest["input"]["shape"]
            image = np.asarray(decode_image(name, height, width, levels))
        else:
            image = read_image(name, model.height, model.width, levels)
        scores = model.predict(image)
        if asked.json:
            print(json.dumps({"image": name, "scores": [float(score) for score in scores]}))
            continue
        order = np.argsort(-scores, kind="stable")[: asked.top]
        if not manifest["output"].get("ranked", True):
            order = np.arange(len(scores))
        words = (f"{labels[index]} {scores[index]:.4f}" for index in order)
        print(f"{name}: {', '.join(words)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
