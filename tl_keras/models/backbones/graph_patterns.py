"""Recognizes layers that TensorFlow writes as several operations: normalizations, activations.

A normalization is found by its algebra, x * m - mean * m + beta with m = gamma / sqrt(variance +
epsilon), however its terms are grouped. An activation is found by its values: what leads from one
tensor to another by operations on each element is tried on a grid of numbers and compared with
the functions that Keras knows by name.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.models.backbones.frozen_graph import FrozenGraph

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Normalization", "find_activation", "find_normalization"]

_SUMS = ("Add", "AddV2", "Sub")
_ELEMENTWISE = (
    "Add", "AddV2", "BiasAdd", "Erf", "Erfc", "Exp", "LeakyRelu", "Log", "Log1p", "Maximum",
    "Minimum", "Mul", "Neg", "Pow", "RealDiv", "Relu", "Relu6", "Sigmoid", "Softplus", "Square",
    "Sub", "Tanh",
)  # fmt: skip
_ACTIVATIONS = ("silu", "hard_silu", "hard_sigmoid", "gelu", "mish", "softplus", "softsign",
                "sigmoid", "tanh", "relu", "relu6", "elu", "selu", "log_sigmoid", "hard_tanh")
_MOST_OPERATIONS = 12
"""No activation that is known by name is written in more."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """A normalization of the last axis.

    Attributes:
        kind: "BatchNormalization" or "LayerNormalization".
        x: What is normalized.
        epsilon: What is added to the variance.
        gamma: The factor, None for none.
        beta: The sum, None for none.
        mean: Of a BatchNormalization, its moving mean.
        variance: Of a BatchNormalization, its moving variance.
    """

    kind: str
    x: tf.Tensor
    epsilon: float
    gamma: tf.Tensor | None = None
    beta: tf.Tensor | None = None
    mean: tf.Tensor | None = None
    variance: tf.Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Term:
    """A product in a sum, with its sign."""

    sign: int
    factors: tuple[tf.Tensor, ...]

    def names(self) -> set[str]:
        return {factor.name for factor in self.factors}


def find_normalization(graph: FrozenGraph, op: tf.Operation) -> Normalization | None:
    """Recognize the sum that a batch or layer normalization ends in, None for another."""
    terms = _terms(graph, op.outputs[0], 1, depth=3)
    whole = [term for term in terms if len(term.factors) > 1]
    betas = [term for term in terms if len(term.factors) == 1]
    if len(whole) != 2 or len(betas) > 1 or whole[0].sign == whole[1].sign:
        return None
    plus, minus = sorted(whole, key=lambda term: -term.sign)
    shared = plus.names() & minus.names()
    inverse = [factor for factor in plus.factors
               if factor.name in shared and factor.op.type == "Rsqrt"]
    gammas = [factor for factor in plus.factors
              if factor.name in shared and factor.op.type != "Rsqrt"]
    xs = [factor for factor in plus.factors if factor.name not in shared]
    means = [factor for factor in minus.factors if factor.name not in shared]
    if not (len(inverse) == len(xs) == len(means) == 1 and len(gammas) < 2):
        return None
    if any(term.sign < 0 or graph.is_live(term.factors[0]) for term in betas):
        return None
    if any(graph.is_live(gamma) for gamma in gammas):
        return None
    epsilon, variance = _variance(graph, inverse[0])
    if variance is None:
        return None
    beta = betas[0].factors[0] if betas else None
    found = Normalization("", xs[0], epsilon, gammas[0] if gammas else None, beta, means[0],
                          variance)
    return _with_kind(graph, found)


def _with_kind(graph: FrozenGraph, found: Normalization) -> Normalization | None:
    """What it is: by moving statistics, by those of the tensor itself, or neither."""
    parts = [tensor for tensor in (found.gamma, found.beta, found.mean, found.variance)
             if tensor is not None]
    fixed = [tensor for tensor in parts if not graph.is_live(tensor)]
    if any(graph.value(tensor).size != found.x.shape[-1] for tensor in fixed):
        return None
    if len(fixed) == len(parts):
        return replace(found, kind="BatchNormalization")
    if _is_mean(graph, found) and _is_variance(graph, found):
        return replace(found, kind="LayerNormalization", mean=None, variance=None)
    return None


def _terms(graph: FrozenGraph, tensor: tf.Tensor, sign: int, depth: int) -> list[_Term]:
    tensor = graph.source(tensor)
    op = tensor.op
    if op.type in _SUMS and depth:
        second = -sign if op.type == "Sub" else sign
        return [*_terms(graph, op.inputs[0], sign, depth - 1),
                *_terms(graph, op.inputs[1], second, depth - 1)]
    if op.type == "Neg":
        return _terms(graph, op.inputs[0], -sign, depth)
    sign, factors = _factors(graph, tensor, sign, top=True)
    return [_Term(sign, tuple(factors))]


def _factors(graph: FrozenGraph, tensor: tf.Tensor, sign: int, *, top: bool
             ) -> tuple[int, list[tf.Tensor]]:
    """What a product consists of; of what is multiplied, 1 / sqrt(...) is taken apart further."""
    tensor = graph.source(tensor)
    op = tensor.op
    if op.type == "Neg":
        return _factors(graph, op.inputs[0], -sign, top=top)
    if op.type != "Mul" or not (_holds_root(graph, tensor) or (top and graph.is_live(tensor))):
        return sign, [tensor]
    found: list[tf.Tensor] = []
    for one in op.inputs:
        sign, factors = _factors(graph, one, sign, top=False)
        found += factors
    return sign, found


def _holds_root(graph: FrozenGraph, tensor: tf.Tensor) -> bool:
    op = graph.source(tensor).op
    return op.type == "Rsqrt" or (
        op.type in ("Mul", "Neg") and any(_holds_root(graph, one) for one in op.inputs))


def _variance(graph: FrozenGraph, inverse: tf.Tensor) -> tuple[float, tf.Tensor | None]:
    """What stands under the root: a small number, and the variance."""
    total = graph.source(inverse.op.inputs[0])
    if total.op.type not in ("Add", "AddV2"):
        return 0.0, None
    numbers = [one for one in total.op.inputs if not graph.is_live(one)
               and graph.value(one).size == 1 and graph.variable(one) is None]
    if len(numbers) != 1:
        return 0.0, None
    variance = next(one for one in total.op.inputs if one is not numbers[0])
    return float(np.ravel(graph.value(numbers[0]))[0]), graph.source(variance)


def _is_mean(graph: FrozenGraph, found: Normalization) -> bool:
    """Whether the mean is that of what is normalized, over its last axis."""
    op = graph.source(found.mean).op if found.mean is not None else None
    if op is None or op.type != "Mean" or graph.is_live(op.inputs[1]):
        return False
    axes = [int(axis) for axis in np.ravel(graph.value(op.inputs[1]))]
    last = (-1, None if found.x.shape.rank is None else found.x.shape.rank - 1)
    return graph.source(op.inputs[0]).name == found.x.name and len(axes) == 1 and axes[0] in last


def _is_variance(graph: FrozenGraph, found: Normalization) -> bool:
    """Whether the variance is the mean of the squared differences from the mean."""
    op = graph.source(found.variance).op if found.variance is not None else None
    square = graph.source(op.inputs[0]) if op is not None and op.type == "Mean" else None
    if square is None or square.op.type != "SquaredDifference":
        return False
    pair = {graph.source(one).name for one in square.op.inputs}
    return pair == {found.x.name, graph.source(found.mean).name}


def find_activation(graph: FrozenGraph, op: tf.Operation) -> tuple[tf.Tensor, str, int] | None:
    """Recognize what an activation of several operations ends in.

    Returns:
        The tensor that it is an activation of, Keras' name for it, and how many of its operations
        take the tensor; None if there is none.
    """
    inside: list[tf.Operation] = []
    border = {op.outputs[0].name: op.outputs[0]}
    while len(inside) < _MOST_OPERATIONS:
        last = max(border.values(), key=lambda tensor: graph.positions[tensor.op.name])
        if not _is_elementwise(graph, last.op):
            return None
        del border[last.name]
        inside.append(last.op)
        for tensor in last.op.inputs:
            if graph.is_live(tensor):
                source = graph.source(tensor)
                border[source.name] = source
        if len(border) == 1:
            x = next(iter(border.values()))
            name = _matching(graph, inside, x)
            if name:
                takers = [one for one in inside
                          if any(graph.source(taken).name == x.name for taken in one.inputs)]
                return x, name, len(takers)
    return None


def _is_elementwise(graph: FrozenGraph, op: tf.Operation) -> bool:
    return op.type in _ELEMENTWISE and all(
        graph.is_live(tensor) or graph.value(tensor).size == 1 for tensor in op.inputs)


def _matching(graph: FrozenGraph, inside: list[tf.Operation], x: tf.Tensor) -> str:
    import tensorflow as tf

    grid, known = _known()
    values: dict[str, Any] = {x.name: tf.constant(grid)}
    for op in reversed(inside):
        given = [values[graph.source(tensor).name] if graph.is_live(tensor)
                 else tf.constant(np.ravel(graph.value(tensor))[0], tf.float32)
                 for tensor in op.inputs]
        names = [argument.name for argument in op.op_def.input_arg]
        more = {"alpha": op.get_attr("alpha")} if op.type == "LeakyRelu" else {}
        result = getattr(tf.raw_ops, op.type)(**dict(zip(names, given, strict=True)), **more)
        values[op.outputs[0].name] = result
    got = result.numpy()
    return next((name for name, wanted in known.items()
                 if np.allclose(got, wanted, rtol=1e-5, atol=1e-5)), "")


@functools.cache
def _known() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import keras

    grid = np.concatenate([np.linspace(-12, 12, 4801), [-60.0, -30.0, 30.0, 60.0]])
    grid = grid.astype(np.float32)
    return grid, {
        name: keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.array(grid)))
        for name in _ACTIVATIONS}
