"""What a step of a stage costs that trains the top block only, against its share of the work.

    python benchmarks/suffix_step.py --base mobilenet_v2 --train 'head,blocks:1'

Plain Keras computes the whole base in every step and the gradients of the top block; a cached
stage computes the suffix and the gradients of the same layers. The share of the arithmetic is
counted in multiply-adds, gradients twice the forward pass. A step should cost no more than 1.1
times that share of the plain step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--train", default="head,blocks:1")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    start_tensorflow()
    import keras

    from tl_keras.models import graph
    from tl_keras.models.build import build_model
    from tl_keras.training.freezing import freeze, last_frozen_cut

    keras.utils.set_random_seed(0)
    model = build_model(args.base, 10, size=args.size, weights=None)
    freeze(model, args.train.split(","))
    cut = last_frozen_cut(model)
    prefix, suffix = graph.split(model, cut)
    pictures = np.random.default_rng(0).uniform(0, 255, (args.batch_size, *model.input_shape[1:]))
    features = prefix.predict(pictures, verbose=0)
    labels = np.eye(10, dtype=np.float32)[np.arange(args.batch_size) % 10]
    steps = {"plain": _step(model, pictures, labels), "stage": _step(suffix, features, labels)}
    times = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(step())
    whole, part = _work(model), _work(suffix)
    # The gradients of the suffix are computed by both: twice its forward pass.
    share = 3 * part / (whole + 2 * part)
    ratios = [a / b for a, b in zip(times["stage"], times["plain"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"{args.base} cut at {cut}: the suffix has {part / whole:.3f} of the forward work")
    print(f"share of the arithmetic of a step {share:.3f}; measured share {ratio:.3f} "
          f"({min(ratios):.3f} to {max(ratios):.3f}); ratio {ratio / share:.2f}")  # fmt: skip


def _step(model, inputs: np.ndarray, labels: np.ndarray):
    import tensorflow as tf

    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    batch = tf.constant(inputs, tf.float32), tf.constant(labels)
    for _ in range(2):
        model.train_on_batch(*batch)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(3):
            model.train_on_batch(*batch)
        return (time.perf_counter() - start) / 3

    return run


def _work(model) -> int:
    """Multiply-adds of convolutions and dense layers for one sample."""
    total = 0
    for layer in model.layers:
        kernel = next((w for w in layer.weights if w.path.endswith("kernel")), None)
        if kernel is None:
            continue
        positions = int(np.prod(layer.output.shape[1:-1])) or 1
        total += int(np.prod(kernel.shape)) * positions
    return total


if __name__ == "__main__":
    main()
