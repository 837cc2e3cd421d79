"""Every base of `keras.applications` against its tf_keras twin, there and back again.

    python benchmarks/twin_parity.py                     # all of them, about an hour
    python benchmarks/twin_parity.py mobilenet_v2 vgg16  # some

Weights are random, as in `base_parity.py`; pictures are small. All is computed twice. In float64,
where rounding explains nothing, every difference is bound by 1e-6: of the last feature map of the
twin (`there`) and of the Keras 3 model made of the twin again (`back`), each over its largest
value, and of the probabilities (`outputs`) that one random softmax head of ten classes makes of
the features, with logits of a root mean square of three. In float32, in which the models are used,
`outputs` may be 1e-5, the bound for files in float32 too; `own rounding` is how far the original's
own move when its input moves by one unit in the last place. The exit code is 1 when a base exceeds
a bound.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))
from base_parity import blobs, each_alone, gain, randomize, relative, run

BOUND, SINGLE = 1e-6, 1e-5
RESULT = Path(__file__).parent / "results" / "twin_parity.md"
HEADING = (
    "| base | parameters | there | back | outputs | float32 outputs | own rounding |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def head(features: np.ndarray) -> np.ndarray:
    """Kernel (channels, 10) of a softmax head whose logits have a root mean square of three."""
    pooled = features.astype(np.float64).mean(axis=tuple(range(1, features.ndim - 1)))
    kernel = np.random.default_rng(7).normal(size=(pooled.shape[1], 10))
    return 3 / np.sqrt(((pooled @ kernel) ** 2).mean()) * kernel


def probabilities(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What the head answers to features, in float64."""
    logits = features.astype(np.float64).mean(axis=tuple(range(1, features.ndim - 1))) @ kernel
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Let both Keras make their layers in one precision, and put back what was set before."""
    import keras

    from export.compress.keras2.load import load_tf_keras

    legacy = load_tf_keras().backend
    kept = keras.config.floatx(), keras.config.dtype_policy(), legacy.floatx()
    try:
        keras.config.set_floatx(precision)
        keras.config.set_dtype_policy(precision)
        legacy.set_floatx(precision)
        yield
    finally:
        keras.config.set_floatx(kept[0])
        keras.config.set_dtype_policy(kept[1])
        legacy.set_floatx(kept[2])


def differences(name: str, precision: str) -> dict:
    """One base, its twin, and the twin's twin, all in one precision."""
    from export.compress.keras2.convert import from_keras2, to_keras2
    from tl_keras.models.backbones import registry

    info = registry.BACKBONES[name]
    size = max(info.minimum_size, 64)
    model = registry.construct(info, size)
    randomize(model, gain=gain(info))
    pictures = blobs(2, size, seed=1).astype(precision)
    if info.scaling != "included":
        pictures = pictures / pictures.dtype.type(127.5) - 1
    parameters, expected = model.count_params(), run(model, pictures)
    moved = run(model, np.nextafter(pictures, pictures.dtype.type(np.inf)))
    twin = to_keras2(model)
    del model
    there, back = run(twin, pictures), run(from_keras2(twin), pictures)
    types = [one.dtype.name for one in (expected, there, back)]
    if set(types) != {precision}:
        raise TypeError(f"{name}: features are {', '.join(types)}; expected {precision}.")
    kernel = head(expected)
    answers, other, changed = (probabilities(one, kernel) for one in (expected, there, moved))
    return {
        "parameters": parameters, "there": relative(there, expected),
        "back": relative(back, expected), "outputs": float(np.abs(other - answers).max()),
        "rounding": float(np.abs(changed - answers).max()),
        "spread": float(np.abs(answers[0] - answers[1]).max()),
    }  # fmt: skip


def compare(name: str) -> dict:
    """One base in both precisions."""
    with computing_in("float32"):
        single = differences(name, "float32")
    with computing_in("float64"):
        exact = differences(name, "float64")
    return {**exact, "base": name, "single": single["outputs"], "rounding": single["rounding"]}


def passed(result: dict) -> bool:
    """Whether both twins are equal, and the pictures told apart at all."""
    exact = max(result[key] for key in ("there", "back", "outputs")) <= BOUND
    return exact and result["single"] <= SINGLE and result["spread"] > 1e-3


def main() -> int:
    """Print the table, and keep it when all bases were asked for."""
    import keras

    from tl_keras.models.backbones.load import backbone_names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="*", help="names of bases; all when none is given")
    wanted = parser.parse_args().bases
    lines, failed, start = [HEADING], [], time.perf_counter()
    print(HEADING)
    for result in each_alone(compare, wanted or backbone_names()):
        keys = ("there", "back", "outputs", "single", "rounding")
        shown = [result["base"], f"{result['parameters']:,}", *(f"{result[k]:.1e}" for k in keys)]
        lines.append(f"| {' | '.join(shown)} |")
        print(lines[-1], flush=True)
        failed += [] if passed(result) else [result["base"]]
    count, seconds = len(lines) - 1, time.perf_counter() - start
    last = (
        f"\n{count} bases in {seconds:.0f} s; beyond the bound: {', '.join(failed) or 'none'}; "
        f"Keras {keras.__version__}."
    )
    print(last)
    if not wanted:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text("\n".join([*lines, last, ""]), encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
