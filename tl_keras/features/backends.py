"""Compile a model that is only evaluated, and measure which arithmetic is fastest here.

A frozen prefix need not be evaluated by Keras. What is fastest depends on the backbone and the
machine: it is measured, and kept only where the features agree with float32's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError, PlanError

if TYPE_CHECKING:
    import keras

__all__ = [
    "ENGINES", "Batch", "Engine", "Predict", "choose_engine", "cosine", "onnx_function",
    "pack_inputs", "prefix_function", "sort_inputs",
]  # fmt: skip

Batch = Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray
"""Arrays by the name of their input, or in the inputs' order; one alone for one input."""
Predict = Callable[[Batch], list[np.ndarray]]
ENGINES = ("float32", "bfloat16", "onnxruntime")
_AGREEMENT = 0.999
_ONNX_DTYPES = {f"tensor({name})": name for name in ("int8", "uint8", "int32", "int64", "bool")}
_BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True)
class Engine:
    """The choice made, and why.

    Attributes:
        name: One of `ENGINES`.
        reason: One sentence for the report.
        rates: Samples a second that each tried engine reached.
        agreement: Smallest cosine of each tried engine's features with float32's.
    """

    name: str
    reason: str
    rates: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)


def sort_inputs(batch: Batch, names: Sequence[str]) -> list[np.ndarray]:
    """Return a batch's arrays in the order of a model's inputs: by name, else as they come.

    Args:
        batch: One array (n, ...) for each input.
        names: Of the inputs.

    Raises:
        ModelError: There are more or fewer arrays than inputs.
    """
    arrays: list[Any] = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    if isinstance(batch, Mapping):
        known = all(name in batch for name in names)
        arrays = [batch[name] for name in names] if known else list(batch.values())
    if len(arrays) != len(names):
        raise ModelError(
            f"got {len(arrays)} arrays for the inputs {', '.join(names)}; expected one for each"
        )
    return arrays


def pack_inputs(model: keras.Model, batch: Batch) -> Any:
    """Return a batch as tensors that a model can be called with, each of its input's dtype."""
    import keras
    import tensorflow as tf

    arrays = sort_inputs(batch, [one.name for one in model.inputs])
    tensors = [tf.cast(a, one.dtype) for a, one in zip(arrays, model.inputs, strict=True)]
    return keras.tree.pack_sequence_as(model.input, tensors)


def prefix_function(prefix: keras.Model, engine: str) -> Predict:
    """Return a function from a batch to the model's outputs, in inference mode.

    Args:
        prefix: A functional model of any inputs.
        engine: "float32" (TensorFlow), "bfloat16" (TensorFlow with oneDNN's automatic mixed
            precision) or "onnxruntime" (float32 there).

    Returns:
        Takes arrays of any dtype, each of which becomes its input's; returns a list of float32
        arrays, one for each output.

    Raises:
        PlanError: The engine is unknown.
    """
    makers = {"float32": _tensorflow, "bfloat16": _bfloat16, "onnxruntime": _onnxruntime}
    if engine not in makers:
        raise PlanError(f"unknown precision '{engine}', expected auto or {', '.join(ENGINES)}")
    return makers[engine](prefix)


def _tensorflow(prefix: keras.Model) -> Predict:
    import keras
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *one.shape[1:]), one.dtype) for one in prefix.inputs]

    @tf.function(input_signature=signature)
    def call(*tensors: tf.Tensor) -> Any:
        return prefix(keras.tree.pack_sequence_as(prefix.input, tensors), training=False)

    def predict(batch: Batch) -> list[np.ndarray]:
        outputs = call(*keras.tree.flatten(pack_inputs(prefix, batch)))
        return [np.asarray(one, np.float32) for one in keras.tree.flatten(outputs)]

    return predict


def _bfloat16(prefix: keras.Model) -> Predict:
    plain = _tensorflow(prefix)

    def predict(batch: Batch) -> list[np.ndarray]:
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
    kinds = {one.name: _ONNX_DTYPES.get(one.type, "float32") for one in session.get_inputs()}

    def predict(batch: Batch) -> list[np.ndarray]:
        arrays = zip(kinds.items(), sort_inputs(batch, list(kinds)), strict=True)
        return session.run(None, {name: np.asarray(a, kind) for (name, kind), a in arrays})

    return predict


def cosine(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Return the smallest cosine between the features of one sample in two lists of outputs."""
    worst = 1.0
    for a, b in zip(left, right, strict=True):
        a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = np.where(norms > 0, (a * b).sum(1) / np.maximum(norms, 1e-300), 1.0)
        worst = min(worst, float(cosines.min()))
    return worst


def choose_engine(
    prefix: keras.Model, sample: Batch, rows: int, min_seconds: float = 15.0
) -> tuple[Engine, Predict]:
    """Measure which engine runs a prefix fastest here, and return it.

    An engine is kept only if the features of every sample agree with float32's
    (cosine >= 0.999). Nothing is measured when float32 would take less than `min_seconds`
    in all, since trying the others costs as much.

    Args:
        prefix: The frozen part.
        sample: A batch of real samples.
        rows: Samples that are going to be run.
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
    reason = f"{best}: samples a second {said}; cosine with float32 {agreement[best]:.6f}"
    return Engine(best, reason, rates, agreement), functions[best]


def _candidates() -> list[str]:
    found = ["onnxruntime"] if os.environ.get("CUDA_VISIBLE_DEVICES", "") in ("", "-1") else []
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return found + (["bfloat16"] if any(flag in flags for flag in _BF16_FLAGS) else [])


def _rate(predict: Predict, sample: Batch) -> float:
    count = len(predict(sample)[0])
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        predict(sample)
        seconds.append(time.perf_counter() - start)
    return count / min(seconds)
