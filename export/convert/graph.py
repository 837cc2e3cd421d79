"""Rewrite a model's graph before it is quantized or compressed: flat, and without normalisation."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError, ModelError
from tl_keras.models.graph import Step, is_functional, steps
from tl_keras.models.rewrite import Rewriter

if TYPE_CHECKING:
    import keras

__all__ = [
    "WEIGHTED", "copy_flat", "find_foldable", "fold_batch_normalization", "read_scale_and_offset",
    "rewrite",
]  # fmt: skip

WEIGHTED = ("Conv2D", "DepthwiseConv2D", "Dense", "SeparableConv2D")
"""Layers that can take a batch normalisation into their weights."""


def copy_flat(model: keras.Model) -> keras.Model:
    """Copy a model as one flat graph of stock layers, with the same inputs.

    Args:
        model: functional or built sequential; it is not changed.

    Raises:
        ExportError: if the graph cannot be read or rewritten.
    """
    return rewrite(model, Rewriter())


def fold_batch_normalization(
    model: keras.Model, unbounded: Collection[str] = frozenset()
) -> keras.Model:
    """Merge batch normalisation into the kernels before it, and give each of those a bias.

    In inference it is a scale and an offset a channel (Jacob et al. 2018, arXiv 1712.05877,
    section 3.2): what is pruned, clustered or rounded is then what a device computes with.

    Args:
        model: functional; it is not changed.
        unbounded: names of ReLU layers that lose their upper end.

    Returns:
        A flat model that gives the same in inference; other layers keep their names.

    Raises:
        ExportError: if the graph cannot be read or rewritten.
    """
    plain = copy_flat(model)
    return rewrite(plain, _Folding(find_foldable(plain), unbounded))


def rewrite(model: keras.Model, rewriter: Rewriter, first: str = "") -> keras.Model:
    """Replay a model by a rewriter, on inputs of the same names, shapes and types.

    Args:
        model: functional; it is not changed.
        rewriter: without any call so far.
        first: name of a linear activation to put behind each input; empty for none.

    Raises:
        ExportError: if the graph cannot be read or rewritten.
    """
    import keras

    if not is_functional(model):
        raise ExportError(
            f"Got {type(model).__name__}, whose graph cannot be read; expected a functional or "
            "a built sequential keras.Model."
        )
    entries = [
        keras.Input(tuple(t.shape)[1:], dtype=t.dtype, name=t._keras_history.operation.name)
        for t in model.inputs
    ]
    starts = [keras.layers.Activation("linear", name=first)(e) for e in entries if first]
    try:
        outputs = rewriter.run(model, starts or entries)
        rewriter.copy_weights()
    # Keras refuses with a ValueError what it cannot rebuild; ModelError is one, too.
    except ValueError as error:
        known = str(error) if isinstance(error, ModelError) else f"it cannot be rebuilt: {error}"
        raise ExportError(f"The graph of {model.name} cannot be rewritten: {known}") from error
    return keras.Model(_unlist(entries), _unlist(outputs), name=model.name)


def _unlist(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def find_foldable(model: keras.Model) -> dict[int, Any]:
    """Return, by the id of a layer, the batch normalisation that alone reads its output."""
    walk = steps(model)
    readers: dict[int, list[Step]] = {}
    calls: dict[int, int] = {}
    for step in walk:
        calls[id(step.operation)] = calls.get(id(step.operation), 0) + 1
        for tensor in step.inputs:
            readers.setdefault(id(tensor), []).append(step)
    kept = {id(tensor) for tensor in model.outputs}
    found = {}
    for step in walk:
        after = readers.get(id(step.outputs[0]), [])
        alone = len(after) == 1 and id(step.outputs[0]) not in kept
        if not alone or calls[id(step.operation)] > 1 or calls[id(after[0].operation)] > 1:
            continue
        if _fits(step.operation, after[0].operation):
            found[id(step.operation)] = after[0].operation
    return found


def _fits(layer: Any, norm: Any) -> bool:
    if type(norm).__name__ != "BatchNormalization" or type(layer).__name__ not in WEIGHTED:
        return False
    last = norm.axis in (-1, len(norm.input.shape) - 1)
    return last and layer.get_config()["activation"] == "linear"


def read_scale_and_offset(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what a batch normalisation multiplies by and adds, each float64 (channels,)."""
    weights = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    scale = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + norm.epsilon)
    return scale, weights.get("beta", 0.0) - weights["moving_mean"] * scale


class _Folding(Rewriter):
    """Leaves batch normalisations out and puts them into the weights before them."""

    def __init__(self, norms: dict[int, Any], unbounded: Collection[str]) -> None:
        super().__init__(skip=[id(norm) for norm in norms.values()])
        self.norms, self.unbounded = norms, unbounded

    def layer(self, operation: Any, prefix: str = "") -> Any:
        kind, norm = type(operation), self.norms.get(id(operation))
        if operation.name in self.unbounded:
            return self.make(
                operation, lambda config: kind.from_config({**config, "max_value": None}), prefix
            )
        if kind.__name__ not in WEIGHTED:
            return super().layer(operation, prefix)
        affine = (1.0, 0.0) if norm is None else read_scale_and_offset(norm)
        return self.make(
            operation,
            lambda config: kind.from_config({**config, "use_bias": True}),
            prefix,
            lambda weights: _fold_weights(operation, weights, *affine),
        )


def _fold_weights(layer: Any, weights: list, scale: Any, offset: Any) -> list:
    *kernels, bias = weights if layer.use_bias else [*weights, 0.0]
    last = kernels[-1]
    outputs = last.shape[-1]
    if type(layer).__name__ == "DepthwiseConv2D":
        outputs *= last.shape[-2]
        scale = np.reshape(np.broadcast_to(scale, outputs), last.shape[-2:])
    bias = np.broadcast_to(bias * np.reshape(scale, -1) + offset, outputs)
    return [*kernels[:-1], (last * scale).astype("float32"), bias.astype("float32")]
