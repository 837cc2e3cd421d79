"""How much faster int8 is than float32 for large bases: random weights, latency only.

    python benchmarks/int8_latency.py resnet50 vgg16

All four files of a base are timed in turn, one picture at a time; a ratio is of medians in one
run. Ranges come from pictures of noise, which latency does not depend on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges
from export.quantize.recipes import find_recipe
from export.quantize.search import TOOLS
from export.runtime.bench import bench, count_threads
from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    start_tensorflow()
    print("| base | threads | runtime | fp32, ms | int8, ms | times as fast |")
    print("|---|---:|---|---:|---:|---:|")
    for base in args.bases:
        with tempfile.TemporaryDirectory() as folder:
            files = _files(base, args.size, Path(folder))
            for threads in count_threads():
                _print(base, threads, files)


def _files(base: str, size: int, folder: Path) -> dict[str, Path]:
    from tl_keras.models.build import build_model

    model = build_model(base, 10, size=size, weights=None)
    shown = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    found = {}
    for format_, convert in (("tflite", tflite.convert), ("onnx", onnx.convert)):
        plain = convert(model)
        ranges = clip_ranges(TOOLS[format_].observe(plain, {"image": shown}))
        small = TOOLS[format_].quantize(plain, find_recipe("int8", format_), ranges)
        for recipe, contents in (("fp32", plain), ("int8", small)):
            found[f"{format_}-{recipe}"] = folder / f"{recipe}.{format_}"
            found[f"{format_}-{recipe}"].write_bytes(contents)
    return found


def _print(base: str, threads: int, files: dict[str, Path]) -> None:
    found = bench(files, threads=[threads], fresh=False)
    for format_, word in (("tflite", "LiteRT"), ("onnx", "ONNX Runtime")):
        names = (f"{format_}-{recipe}" for recipe in ("fp32", "int8"))
        plain, small = (found[name][0].median_ms for name in names)
        print(
            f"| {base} | {threads} | {word} | {plain:.1f} | {small:.1f} | {plain / small:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
