"""What computes a frozen prefix, and which of the ways is fastest here.

A frozen prefix is only ever evaluated, so it need not be evaluated by Keras. Which
arithmetic is fastest depends on the base and the machine: it is measured, and kept only
where the features agree with float32's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.errors import PlanError

if TYPE_CHECKING:
    import keras

__all__ = [
    "ENGINES", "Engine", "Predict", "choose_engine", "cosine", "onnx_function", "prefix_function",
]  # fmt: skip

Predict = Callable[[np.ndarray], list[np.ndarray]]
ENGINES = ("float32", "bfloat16", "onnxruntime")
_AGREEMENT = 0.999
_BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Engine:
    """The choice made, and why.

    Attributes:
        name: One of `ENGINES`.
        reason: One sentence for the report.
        rates: Pictures a second that each tried engine reached.
        agreement: Smallest cosine of each tried engine's features with float32's.
    """

    name: str
    reason: str
    rates: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


def prefix_function(prefix: keras.Model, engine: str) -> Predict:
    """Return a function from pictures to the prefix's outputs, in inference mode.

    Args:
        prefix: A functional model.
        engine: "float32" (TensorFlow), "bfloat16" (TensorFlow with oneDNN's automatic mixed
            precision) or "onnxruntime" (float32 there).

    Returns:
        Takes a batch of uint8 or float32 pictures; returns a list of float32 arrays, one for
        each output.

    Raises:
        PlanError: The engine is unknown.
    """
    makers = {"float32": _tensorflow, "bfloat16": _bfloat16, "onnxruntime": _onnxruntime}
    if engine not in makers:
        raise PlanError(f"unknown precision '{engine}', expected auto or {', '.join(ENGINES)}")
    return makers[engine](prefix)


def _tensorflow(prefix: keras.Model) -> Predict:
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *prefix.input_shape[1:]), tf.float32)]
    call = tf.function(lambda x: prefix(x, training=False), input_signature=signature)

    def predict(batch: np.ndarray) -> list[np.ndarray]:
        outputs = call(tf.cast(batch, tf.float32))
        return [np.asarray(one, np.float32) for one in tf.nest.flatten(outputs)]

    return predict


def _bfloat16(prefix: keras.Model) -> Predict:
    plain = _tensorflow(prefix)

    def predict(batch: np.ndarray) -> list[np.ndarray]:
        with _mixed_bfloat16():
            return plain(batch)

    return predict


@contextlib.contextmanager
def _mixed_bfloat16() -> Iterator[None]:
    import tensorflow as tf

    option = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def _onnxruntime(prefix: keras.Model) -> Predict:
    from tl_keras.models.onnx_graph import to_onnx

    return onnx_function(to_onnx(prefix).SerializeToString())


def onnx_function(content: bytes) -> Predict:
    """Return a function that runs an ONNX file in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: np.asarray(batch, np.float32)})


def cosine(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Return the smallest cosine between the features of one picture in two lists of outputs."""
    worst = 1.0
    for a, b in zip(left, right, strict=True):
        a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-300), 1.0)
        worst = min(worst, float(cosines.min()))
    return worst


def choose_engine(
    prefix: keras.Model, sample: np.ndarray, rows: int, min_seconds: float = 15.0
) -> tuple[Engine, Predict]:
    """Measure which engine runs a prefix fastest here, and return it.

    An engine is kept only if the features of every sample picture agree with float32's
    (cosine >= 0.999). Nothing is measured when float32 would take less than `min_seconds`
    in all, since trying the others costs as much.

    Args:
        prefix: The frozen part.
        sample: A batch of real pictures, uint8 (n, size, size, 3).
        rows: Pictures that are going to be run.
        min_seconds: Below this much expected work in float32, no search.
    """
    functions = {"float32": prefix_function(prefix, "float32")}
    features = functions["float32"](sample)
    rates, agreement = {"float32": _rate(functions["float32"], sample)}, {"float32": 1.0}
    if rows / rates["float32"] < min_seconds:
        reason = f"float32: the whole takes under {min_seconds:g} s, a search would cost as much"
        return Engine("float32", reason, rates, agreement), functions["float32"]
    for name in _candidates():
        functions[name] = prefix_function(prefix, name)
        agreement[name] = cosine(features, functions[name](sample))
        rates[name] = _rate(functions[name], sample)
    fit = [name for name in rates if agreement[name] >= _AGREEMENT]
    best = max(fit, key=lambda name: rates[name])
    said = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    reason = f"{best}: pictures a second {said}; cosine with float32 {agreement[best]:.6f}"
    return Engine(best, reason, rates, agreement), functions[best]


def _candidates() -> list[str]:
    found = ["onnxruntime"] if os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1") else []
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return found + (["bfloat16"] if any(flag in flags for flag in _BF16_FLAGS) else [])


def _rate(predict: Predict, sample: np.ndarray) -> float:
    predict(sample)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        predict(sample)
        seconds.append(time.perf_counter() - start)
    return len(sample) / min(seconds)
