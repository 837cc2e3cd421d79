"""Which tool quantizes best: TFLite's converter, AI Edge Quantizer, ONNX Runtime's.

    python benchmarks/quantizers.py RUN

The same calibration pictures for all, the same validation pictures; times are of this machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from export.agreement import measure_agreement, predict_all
from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges, read_calibration_inputs
from export.quantize.recipes import find_recipe
from export.quantize.search import TOOLS
from export.runtime.runtimes import load
from export.source import from_run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pictures", type=int, default=128)
    args = parser.parse_args()
    source = from_run(args.run)
    specs = source.signature.inputs
    shown = read_calibration_inputs(source.calibrating, specs, args.pictures)
    truth = source.model.predict(source.inputs["image"].astype("float32"), verbose=0)
    floats = {"tflite": tflite.convert(source.model), "onnx": onnx.convert(source.model)}
    ways = {
        "TFLite converter int8": ("tflite", lambda: _by_converter(source.model, shown)),
        "AI Edge Quantizer int8": ("tflite", lambda: _by_tool("tflite", floats, shown)),
        "ONNX Runtime int8": ("onnx", lambda: _by_tool("onnx", floats, shown)),
    }
    ways |= {f"{name} fp32": (name, lambda name=name: floats[name]) for name in floats}
    with tempfile.TemporaryDirectory() as folder:
        for name, (format_, make) in ways.items():
            start = time.perf_counter()
            contents = make()
            seconds = time.perf_counter() - start
            path = Path(folder, f"model.{format_}")
            path.write_bytes(contents)
            runtime = load(path)
            given = predict_all(runtime, source.inputs, lambda *step: None, name)
            proof = measure_agreement(truth, given, source)
            print(
                f"{name:24} {seconds:6.1f} s, {len(contents) / 1e6:.2f} MB, accuracy "
                f"{proof.accuracy} (Keras {proof.source_accuracy}), agreement "
                f"{proof.agreement:.4f}, divergence {proof.divergence:.2g}, mean difference "
                f"{proof.mean_difference:.4f}, "
                f"{_milliseconds(runtime, source.inputs['image']):.2f} ms",
                flush=True,
            )


def _by_tool(name: str, floats: dict[str, bytes], shown: dict[str, np.ndarray]) -> bytes:
    tool = TOOLS[name]
    ranges = clip_ranges(tool.observe(floats[name], shown))
    return tool.quantize(floats[name], find_recipe("int8", name), ranges)


def _by_converter(model, shown: dict[str, np.ndarray]) -> bytes:
    import tensorflow as tf

    def configure(converter) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [one[None].astype("float32")] for one in shown["image"]
        )
        converter.inference_input_type = tf.uint8

    return tflite.convert(model, configure=configure)


def _milliseconds(runtime, pictures: np.ndarray) -> float:
    times = []
    for index in range(33):
        one = pictures[index % len(pictures)][None]
        start = time.perf_counter()
        runtime.predict(one)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:]))


if __name__ == "__main__":
    main()
