"""A network made ill-scaled on purpose: what int8 loses, and what the search wins back.

    python benchmarks/ill_scaled.py RUN

A run of a base with depthwise convolutions, such as MobileNetV2. ReLU6 becomes ReLU first; then
one channel in eight of every depthwise layer is multiplied by `--spread` and the next layer's
weights for it divided: the function is unchanged. No labels are used. "as it is" is plain
quantization, which the search itself does not try.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from export.convert import tflite
from export.convert.graph import fold_batch_normalization
from export.quantize import equalize
from export.quantize import search as searching
from export.quantize.recipes import find_recipe
from export.quantize.search import Limits, QuantizationSearch, QuantizationTask
from export.source import from_run
from tl_keras.errors import GateError


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--spread", type=float, default=1000.0)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--max-drop", type=float, default=0.01)
    args = parser.parse_args()
    source = from_run(args.run, samples=args.samples)
    model = spoiled(source.model, args.spread)
    source = dataclasses.replace(source, model=model, labels=None, parts=())
    truth = model.predict(source.inputs["image"].astype("float32"), verbose=0)
    limits = Limits(args.max_drop, train=False)
    strategies = [("as it is", lambda quantizer, best: iter([(best, "")])), *searching.STRATEGIES]
    with tempfile.TemporaryDirectory() as folder:
        task = QuantizationTask(source, truth, find_recipe("int8", "tflite"), tflite.convert(model),
                    Path(folder, "model.tflite"), tflite.convert)  # fmt: skip
        try:
            search = QuantizationSearch(task, limits, lambda *step: None, strategies)
            attempts = search.run().attempts
        except GateError as error:
            print(error)
            return
    print(f"{len(truth)} pictures, channels spread 1:{args.spread:.0f}")
    for one in attempts:
        print(f"{one.strategy:34} lost {100 * one.drop:6.2f} points, "
              f"{one.seconds:5.1f} s  {one.note}")


def spoiled(model, spread: float):
    """Return a model of the same function whose depthwise channels are far apart."""
    pairs = [pair for pair in equalize._find_pairs(model)
             if type(model.get_layer(pair.first)).__name__ == "DepthwiseConv2D"]  # fmt: skip
    copy = fold_batch_normalization(model, {name for pair in pairs for name in pair.bounded})
    generator = np.random.default_rng(0)
    for pair in pairs:
        first, second = copy.get_layer(pair.first), copy.get_layer(pair.second)
        kernel, bias = first.get_weights()
        factors = np.where(generator.random(len(bias)) < 0.125, spread, 1.0)
        first.set_weights([equalize._along(kernel, first, "out", factors), bias * factors])
        kernel, bias = second.get_weights()
        second.set_weights([equalize._along(kernel, second, "in", 1 / factors), bias])
    return copy


if __name__ == "__main__":
    main()
