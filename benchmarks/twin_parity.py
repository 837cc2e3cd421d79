"""Every base of `keras.applications` against its tf_keras twin, there and back again.

    python benchmarks/twin_parity.py                     # all of them
    python benchmarks/twin_parity.py mobilenet_v2 vgg16  # some

Weights are random, as in `base_parity.py`; pictures are small. `outputs` is the largest difference
of the probabilities of one random head, made of the tf_keras twin's features and of the
original's. `there` is the twin's largest difference over the largest value of the last
feature map, `back` that of the Keras 3 model made of the twin again, which computes as the
original does. `own rounding` is how far the original's own features move when its input moves by
one unit in the last place: what a network magnifies by itself, one draw of it. Bound of every
difference: 1e-6, or three times what that move changes in the same figure. The exit code is 1 when
a base exceeds it.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BOUND = 1e-6
RESULT = Path(__file__).parent / "results" / "twin_parity.md"
HEADING = (
    "| base | parameters | outputs | there | back | own rounding |\n|---|---:|---:|---:|---:|---:|"
)


def probabilities(features: np.ndarray) -> np.ndarray:
    """What a random softmax head of ten classes on the pooled features answers, in float64."""
    pooled = features.astype(np.float64).mean(axis=(1, 2))
    kernel = np.random.default_rng(7).normal(size=(pooled.shape[1], 10)) / pooled.shape[1] ** 0.5
    raised = np.exp(pooled @ kernel - (pooled @ kernel).max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def compare(name: str) -> dict:
    """One base, its twin, and the twin's twin: differences of their last feature maps."""
    from base_parity import GAIN, GAINS, blobs, randomize, relative, run

    from export.twin import from_legacy, to_legacy
    from tl_keras.models import registry

    info = registry.BASES[name]
    size = max(info.minimum_size, 64)
    model = registry.construct(info, size)
    randomize(model, gain=GAINS.get(info.module, GAIN))
    pictures = blobs(2, size, seed=1)
    if info.scaling != "included":
        pictures = pictures / np.float32(127.5) - np.float32(1.0)
    expected = run(model, pictures)
    moved = run(model, np.nextafter(pictures, np.float32(np.inf)))
    parameters = model.count_params()
    twin = to_legacy(model)
    del model
    there = run(twin, pictures)
    back = run(from_legacy(twin), pictures)
    spread = float(np.abs(expected[0] - expected[1]).max() / np.abs(expected).max())
    answers = probabilities(expected)
    outputs, moves = (
        float(np.abs(probabilities(other) - answers).max()) for other in (there, moved)
    )
    return {"base": name, "outputs": outputs, "parameters": parameters, "spread": spread,
            "moves": moves,
            "there": relative(there, expected), "back": relative(back, expected),
            "rounding": relative(moved, expected)}  # fmt: skip


def passed(result: dict) -> bool:
    """Whether both twins are equal but for rounding, and the pictures told apart at all."""
    worst = max(result["there"], result["back"])
    close = worst <= max(BOUND, 3 * result["rounding"])
    same = result["outputs"] <= max(BOUND, 3 * result["moves"])
    return close and same and result["spread"] > 1e-3


def main() -> int:
    """Print the table, and keep it when all bases were asked for."""
    import keras

    from export.legacy import legacy_keras
    from tl_keras.models.bases import base_names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="*", help="names of bases; all when none is given")
    wanted = parser.parse_args().bases
    lines, failed, start = [HEADING], [], time.perf_counter()
    print(HEADING)
    for name in wanted or base_names():
        result = compare(name)
        keras.backend.clear_session()
        legacy_keras().backend.clear_session()
        gc.collect()
        shown = [f"{result[key]:.1e}" for key in ("outputs", "there", "back", "rounding")]
        lines.append(f"| {name} | {result['parameters']:,} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
        failed += [] if passed(result) else [name]
    count, seconds = len(lines) - 1, time.perf_counter() - start
    last = f"\n{count} bases in {seconds:.0f} s; beyond the bound: {', '.join(failed) or 'none'}."
    print(last)
    if not wanted:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text("\n".join([*lines, last, ""]), encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
