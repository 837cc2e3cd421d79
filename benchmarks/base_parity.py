"""Every base against `keras.applications`: own preprocess + base + head, on random weights.

    python benchmarks/base_parity.py                     # all of them, 5 to 15 minutes
    python benchmarks/base_parity.py vgg16 xception      # some

Weights are random, the statistics of BatchNorm too, so that nothing is constant. (Statistics
taken from a batch, or larger kernels, would let a random deep network magnify each rounding:
see the column that tells how far the original's own features move when its input moves by one
unit in the last place.) A difference is the
largest one over the largest value: of the last feature map, and of the linear outputs of one
head. Bound: 1e-5. The exit code is 1 when a base exceeds it.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BOUND = 1e-5
# Variance of a kernel times its inputs: where a signal neither dies nor explodes.
# A deeper one of the same module magnifies more.
GAIN, GAINS = 1.6, {
    "efficientnet": 2.0, "efficientnet_b4": 1.9, "efficientnet_b6": 1.7, "efficientnet_b7": 1.6,
    "efficientnet_v2": 1.2, "efficientnet_v2_m": 1.1, "efficientnet_v2_l": 1.0,
}  # fmt: skip
RESULT = Path(__file__).parent / "results" / "base_parity.md"
HEADING = "| base | parameters | size, px | features | outputs | own rounding | cut points |\n" \
          "|---|---:|---:|---:|---:|---:|---:|"


def gain(info) -> float:
    """The gain for a base: its own, or that of its module in `keras.applications`."""
    return GAINS.get(info.name, GAINS.get(info.module, GAIN))


def randomize(model, seed: int = 0, gain: float = GAIN) -> None:
    """Random weights that keep values of order one through a deep network."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if getattr(layer, "layers", None):
            randomize(layer, seed + 1, gain)
        elif layer.weights:
            layer.set_weights([_random(random, v, layer, gain) for v in layer.weights])


def _random(random, variable, layer, gain):
    shape, name = tuple(variable.shape), variable.name
    kind = type(layer).__name__
    if kind == "Normalization":
        return variable.numpy()
    if name in ("gamma", "moving_variance"):
        return random.uniform(0.5, 1.5, shape).astype("float32")
    if len(shape) > 1:
        fan = np.prod(shape[:2]) if kind.startswith("Depthwise") or "depthwise" in name \
            else np.prod(shape[:-1])
        return (random.normal(size=shape) * np.sqrt(gain / fan)).astype("float32")
    if kind == "LayerScale":
        return random.uniform(0.1, 0.5, shape).astype("float32")
    return random.normal(scale=0.1, size=shape).astype("float32")


def blobs(count: int, size: int, seed: int) -> np.ndarray:
    """Pictures of a few random colours, whole numbers 0..255: float32 (count, size, size, 3)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 4, 4, 3))
    side = np.arange(size) * 4 // size
    return coarse[:, side][:, :, side].round().astype("float32")


def run(model, pictures: np.ndarray) -> np.ndarray:
    """Outputs in inference; called once, so that tracing a graph would only cost time."""
    return np.asarray(model(pictures, training=False))


def each_alone(compare: Callable[[str], dict], names: Iterable[str]) -> Iterator[dict]:
    """Compare one base after the other, each in a process of its own, that leaves no memory."""
    spawn = multiprocessing.get_context("spawn")
    for name in names:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            yield pool.submit(compare, name).result()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the largest value of the reference `b`."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def compare(name: str, size: int | None = None, count: int = 2) -> dict:
    """One base against its original: differences, size, parameters, cut points."""
    import keras

    from tl_keras.models import graph
    from tl_keras.models.backbones import load as bases
    from tl_keras.models.backbones import preprocessing as scaling
    from tl_keras.models.backbones import registry
    from tl_keras.models.backbones import weights as loading
    from tl_keras.models.heads import Head, attach

    info = bases.describe(name)
    size = size or max(info.minimum_size, 64)
    plain = registry.construct(info, size)
    randomize(plain, gain=gain(info))
    module = getattr(keras.applications, info.module, None)
    prepare = module.preprocess_input if module else np.asarray
    pictures = blobs(count, size, seed=1)
    prepared = prepare(pictures.copy())
    expected = run(plain, prepared)
    moved = run(plain, np.nextafter(prepared, np.float32(np.inf)))
    chain = scaling.scaling_of(info.scaling).then(scaling.read_chain(plain))
    base = loading.finish(plain, info, chain)
    parameters = plain.count_params()
    points = len(graph.cut_points(plain))
    del plain
    outputs = attach(base, Head(activation="linear"), 7)
    model = keras.Model(base.inputs[0], [base.outputs[0], outputs])
    found, predicted = map(np.asarray, model(pictures, training=False))
    kernel, bias = model.get_layer("head_logits").get_weights()
    reference = expected.mean(axis=(1, 2)) @ kernel + bias
    spread = float(np.abs(expected[0] - expected[1]).max() / np.abs(expected).max())
    return {"base": name, "parameters": parameters, "size": size, "spread": spread,
            "features": relative(found, expected), "cuts": points,
            "rounding": relative(moved, expected),
            "outputs": relative(predicted, reference)}


def row(result: dict) -> str:
    """One line of the table."""
    shown = [result["base"], f"{result['parameters']:,}", result["size"]]
    shown += [f"{result[key]:.1e}" for key in ("features", "outputs", "rounding")]
    return "| " + " | ".join(map(str, [*shown, result["cuts"]])) + " |"


def main() -> int:
    """Print the table and keep it when all bases were asked for."""
    import keras

    from tl_keras.models.backbones.load import backbone_names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="*", help="names of bases; all when none is given")
    wanted = parser.parse_args().bases
    lines, worst, start = [HEADING], 0.0, time.perf_counter()
    print(HEADING)
    for name in wanted or backbone_names():
        result = compare(name)
        keras.backend.clear_session()
        gc.collect()
        lines.append(row(result))
        print(lines[-1], flush=True)
        worst = max(worst, result["features"], result["outputs"])
        if result["spread"] < 1e-3:
            print(f"{name}: two pictures give the same features; the check says nothing")
            worst = np.inf
    seconds = time.perf_counter() - start
    last = f"\nLargest difference {worst:.1e}, bound {BOUND:.0e}; {len(lines) - 1} bases " \
           f"in {seconds:.0f} s; Keras {keras.__version__}."
    print(last)
    if not wanted:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text("\n".join([*lines, last, ""]), encoding="utf-8")
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
