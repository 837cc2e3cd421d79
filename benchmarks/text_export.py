"""What smaller files of a text encoder keep: size, accuracy, equal labels, time of one text.

    python benchmarks/text_export.py RUN

RUN is a finished run on texts; figures are of its test texts, asked one at a time with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from export.agreement import measure_agreement
from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges, read_calibration_inputs
from export.quantize.recipes import find_recipe
from export.quantize.search import TOOLS
from export.runtime.runtimes import load
from export.source import Source, from_run
from tl_keras.errors import ExportError

RECIPES = ("fp32", "dynamic_int8", "weight_int8", "fp16", "int8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=int, default=128, help="to calibrate int8 with")
    args = parser.parse_args()
    source = from_run(args.run)
    shown = read_calibration_inputs(source.calibrating, source.signature.inputs, args.texts)
    truth = source.model.predict(source.inputs["token_ids"], verbose=0)
    print("| file | MB | accuracy | labels equal | ms a text |\n|---|---:|---:|---:|---:|")
    for format_, convert in (("tflite", tflite.convert), ("onnx", onnx.convert)):
        floats = convert(source.model)
        observed = None
        for name in RECIPES:
            try:
                if name == "int8":
                    observed = TOOLS[format_].observe(floats, shown)
                contents = _make(floats, name, format_, observed)
            except ExportError as error:
                print(f"| {format_}-{name} | refused: {str(error).splitlines()[0][:80]} | | | |")
                continue
            print(_row(f"{format_}-{name}", contents, format_, source, truth), flush=True)


def _make(floats: bytes, name: str, format_: str, observed: dict | None) -> bytes:
    recipe = find_recipe(name, format_)
    if recipe is None:
        return floats
    ranges = clip_ranges(observed, "min-max", recipe.bits) if recipe.calibrated else None
    return TOOLS[format_].quantize(floats, recipe, ranges, in_bytes=())


def _row(name: str, contents: bytes, format_: str, source: Source, truth: np.ndarray) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model.{format_}")
        path.write_bytes(contents)
        runtime, ids = load(path, 1), source.inputs["token_ids"]
        given, times = [], []
        for row in ids:
            start = time.perf_counter()
            given.append(runtime.predict({"token_ids": row[np.newaxis]}))
            times.append(time.perf_counter() - start)
    proof = measure_agreement(truth, np.concatenate(given), source)
    return (f"| {name} | {len(contents) / 1e6:.1f} | {proof.accuracy:.3f} | "
            f"{100 * proof.agreement:.1f} % of {proof.count} | {1000 * np.median(times):.1f} |")


if __name__ == "__main__":
    main()
