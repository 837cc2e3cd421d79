"""What each TensorFlow operation is in stock Keras layers: a table of small functions.

A graph is read from its output back to its images. For each tensor on the way the readers of its
operation are asked in turn; the first that knows it names a layer, its settings, its weights and
the tensors that it takes. What no reader knows is collected, so that all of it can be named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.models.backbones.frozen_graph import FrozenGraph, scope_of
from tl_keras.models.backbones.graph_patterns import (
    Normalization,
    find_activation,
    find_normalization,
)

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Piece", "read_pieces"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A layer to be made.

    Attributes:
        kind: Name of the class in `keras.layers`; empty where the input only passes.
        inputs: What it takes: tensors of the graph, or the pieces that make them.
        config: Its settings, without a name.
        weights: Values of its weights, in Keras' order.
        variables: Resource of the variable behind each of its weights, None where there is none.
    """

    kind: str
    inputs: tuple[tf.Tensor | Piece, ...]
    config: dict[str, Any] = field(default_factory=dict)
    weights: tuple[np.ndarray, ...] = ()
    variables: tuple[Any, ...] = ()


Reader = Callable[[FrozenGraph, "tf.Operation"], "Piece | None"]


def read_pieces(graph: FrozenGraph) -> tuple[dict[str, Piece], list[str]]:
    """Name the layers that a graph consists of.

    Returns:
        Name of a tensor -> the layer that makes it, each after those it needs; and the
        operations that are no layers, as "Type (name)".
    """
    found: dict[str, Piece] = {}
    unknown: list[str] = []
    open_ones = [(graph.exit, False)]
    while open_ones:
        tensor, ready = open_ones.pop()
        if tensor.name in found and not ready:
            continue
        if ready:
            found[tensor.name] = found.pop(tensor.name)  # behind what it needs
            continue
        if tensor is graph.entry or tensor.name == graph.entry.name:
            continue
        piece = _read(graph, tensor)
        if piece is None:
            unknown.append(f"{tensor.op.type} ({tensor.op.name.rpartition('Call/')[2]})")
            piece = Piece("", tuple(tensor.op.inputs))
        found[tensor.name] = piece
        open_ones.append((tensor, True))
        open_ones.extend((source, False) for source in reversed(_sources(graph, piece)))
    return found, unknown


def _sources(graph: FrozenGraph, piece: Piece) -> list[tf.Tensor]:
    """The live tensors that a piece takes, itself or through the pieces before it."""
    taken: list[tf.Tensor] = []
    for one in piece.inputs:
        if isinstance(one, Piece):
            taken += _sources(graph, one)
        elif graph.is_live(one):
            taken.append(graph.source(one))
    return taken


def _read(graph: FrozenGraph, tensor: tf.Tensor) -> Piece | None:
    if tensor.value_index or (_attribute(tensor.op, "data_format") or b"NHWC") != b"NHWC":
        return None
    for reader in READERS.get(tensor.op.type, ()):
        if piece := reader(graph, tensor.op):
            return piece
    return None


def _attribute(op: tf.Operation, name: str) -> Any:
    return op.get_attr(name) if name in op.node_def.attr else None


def _constant(graph: FrozenGraph, op: tf.Operation, index: int) -> np.ndarray | None:
    tensor = op.inputs[index]
    return None if graph.is_live(tensor) else graph.value(tensor)


def _only(graph: FrozenGraph, op: tf.Operation) -> tuple[tf.Tensor, np.ndarray, bool] | None:
    """The live tensor, the constant and whether the constant comes first; None of two alike."""
    first, second = op.inputs
    if graph.is_live(first) == graph.is_live(second):
        return None
    live, constant = (first, second) if graph.is_live(first) else (second, first)
    return graph.source(live), graph.value(constant), constant is first


def _padding(op: tf.Operation) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Keras' word for the padding, and what must be padded before."""
    padding = op.get_attr("padding").decode().lower()
    if padding != "explicit":
        return padding, ()
    around = _attribute(op, "explicit_paddings")
    return "valid", ((around[2], around[3]), (around[4], around[5]))


def _sliding(op: tf.Operation, x: tf.Tensor, size: tuple[int, int], steps: str = "strides"
             ) -> tuple[tf.Tensor | Piece, dict[str, Any]]:
    """Input and settings that convolutions and poolings have alike."""
    padding, around = _padding(op)
    given: tf.Tensor | Piece = x
    if around:
        given = Piece("ZeroPadding2D", (x,), {"padding": around})
    return given, {steps: tuple(op.get_attr("strides")[1:3]), "padding": padding}


def _convolution(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    kernel = _constant(graph, op, 1)
    x = graph.source(op.inputs[0])
    if kernel is None or x.shape.rank != 4 or x.shape[-1] is None:
        return None
    height, width, depth, filters = kernel.shape
    given, config = _sliding(op, x, (height, width))
    config |= {"kernel_size": (height, width), "use_bias": False,
               "dilation_rate": tuple(op.get_attr("dilations")[1:3])}
    groups = x.shape[-1] // depth
    owner = (graph.variable(op.inputs[1]),)
    if groups > 1 and depth == 1 and filters % groups == 0:
        # As a depthwise one it also runs and trains on a CPU.
        kernel = kernel.reshape(height, width, groups, filters // groups)
        config["depth_multiplier"] = filters // groups
        return Piece("DepthwiseConv2D", (given,), config, (kernel,), owner)
    return Piece("Conv2D", (given,), {**config, "filters": filters, "groups": groups},
                 (kernel,), owner)


def _separable(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    """A depthwise convolution that a 1 x 1 one follows at once, with no bias between."""
    before = graph.source(op.inputs[0])
    kernel = _constant(graph, op, 1)
    if (before.op.type != "DepthwiseConv2dNative" or graph.uses(before) != 1 or kernel is None
            or kernel.shape[:2] != (1, 1) or set(op.get_attr("strides")) != {1}):
        return None
    depthwise = _depthwise(graph, before.op)
    if depthwise is None:
        return None
    return Piece("SeparableConv2D", depthwise.inputs,
                 {**depthwise.config, "filters": kernel.shape[3]},
                 (*depthwise.weights, kernel),
                 (*depthwise.variables, graph.variable(op.inputs[1])))


def _depthwise(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    kernel = _constant(graph, op, 1)
    if kernel is None:
        return None
    given, config = _sliding(op, graph.source(op.inputs[0]), kernel.shape[:2])
    config |= {"kernel_size": kernel.shape[:2], "depth_multiplier": kernel.shape[3],
               "use_bias": False, "dilation_rate": tuple(op.get_attr("dilations")[1:3])}
    return Piece("DepthwiseConv2D", (given,), config, (kernel,), (graph.variable(op.inputs[1]),))


def _matrix(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    kernel = _constant(graph, op, 1)
    if kernel is None or kernel.ndim != 2 or _attribute(op, "transpose_a") or _attribute(
            op, "adj_x"):
        return None
    if _attribute(op, "transpose_b") or _attribute(op, "adj_y"):
        kernel = kernel.T
    return Piece("Dense", (graph.source(op.inputs[0]),),
                 {"units": kernel.shape[1], "use_bias": False}, (kernel,),
                 (graph.variable(op.inputs[1]),))


def _dense_on_maps(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    """A product of the last axis, which TensorFlow writes as a product between two reshapes."""
    product = graph.source(op.inputs[0])
    if product.op.type != "MatMul" or graph.is_live(product.op.inputs[1]):
        return None
    rows = graph.source(product.op.inputs[0])
    dense = _matrix(graph, product.op)
    if rows.op.type != "Reshape" or dense is None:
        return None
    x = graph.source(rows.op.inputs[0])
    order = _constant(graph, x.op, 1) if x.op.type == "Transpose" else None
    if order is not None and order.tolist() == sorted(order):
        x = graph.source(x.op.inputs[0])
    known, wanted = x.shape, op.outputs[0].shape
    if known.rank != wanted.rank or known[-1] != dense.weights[0].shape[0]:
        return None
    same = all(None in (a, b) or a == b for a, b in zip(known[:-1], wanted[:-1], strict=True))
    return replace(dense, inputs=(x,)) if same else None


def _biased(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    """A sum of a constant by channel, right behind a layer that may have a bias."""
    pair = _only(graph, op)
    if pair is None or op.type == "Sub":
        return None
    before, value, _ = pair
    channels = before.shape[-1] if before.shape.rank else None
    if graph.uses(before) != 1 or not value.ndim or value.size != value.shape[-1]:
        return None
    layer = _read(graph, before)
    if layer is None or layer.config.get("use_bias") is not False or (
            "activation" in layer.config) or channels not in (
            None, value.size):
        return None
    constant = op.inputs[1] if graph.is_live(op.inputs[0]) else op.inputs[0]
    return replace(layer, config={**layer.config, "use_bias": True},
                   weights=(*layer.weights, value.reshape(-1)),
                   variables=(*layer.variables, graph.variable(constant)))


def _fused_normalization(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    if op.get_attr("is_training") or any(graph.is_live(tensor) for tensor in op.inputs[1:]):
        return None
    gamma, beta = (
        tensor if graph.variable(tensor) is not None or np.any(graph.value(tensor) != usual)
        else None for tensor, usual in zip(op.inputs[1:3], (1.0, 0.0), strict=True))
    return _normalization_piece(graph, Normalization(
        "BatchNormalization", graph.source(op.inputs[0]), float(op.get_attr("epsilon")),
        gamma, beta, op.inputs[3], op.inputs[4]))


def _normalization(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    found = find_normalization(graph, op)
    return None if found is None else _normalization_piece(graph, found)


def _normalization_piece(graph: FrozenGraph, found: Normalization) -> Piece:
    parameters = [tensor for tensor in (found.gamma, found.beta, found.mean, found.variance)
                  if tensor is not None]
    return Piece(
        found.kind, (found.x,),
        {"epsilon": found.epsilon, "scale": found.gamma is not None,
         "center": found.beta is not None},
        tuple(np.ravel(graph.value(tensor)) for tensor in parameters),
        tuple(graph.variable(tensor) for tensor in parameters))


def _activation(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    found = find_activation(graph, op)
    return None if found is None else _activated(graph, op, *found)


def _named(graph: FrozenGraph, op: tf.Operation) -> Piece:
    return _activated(graph, op, graph.source(op.inputs[0]), op.type.lower())


def _activated(
    graph: FrozenGraph, op: tf.Operation, x: tf.Tensor, name: str, takers: int = 1
) -> Piece:
    """An activation: the own one of the layer before it, or a layer."""
    if graph.uses(x) == takers and scope_of(x.name) == scope_of(op.name):
        layer = _read(graph, x)
        if layer is not None and layer.config.get("use_bias") is not None:
            return replace(layer, config={**layer.config, "activation": name})
    if name in ("relu", "relu6"):
        return Piece("ReLU", (x,), {"max_value": 6.0} if name == "relu6" else {})
    return Piece("Activation", (x,), {"activation": name})


def _leaky_relu(graph: FrozenGraph, op: tf.Operation) -> Piece:
    return Piece("LeakyReLU", (graph.source(op.inputs[0]),),
                 {"negative_slope": float(op.get_attr("alpha"))})


def _pooling(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    size = tuple(op.get_attr("ksize")[1:3])
    given, config = _sliding(op, graph.source(op.inputs[0]), size)
    kind = {"MaxPool": "MaxPooling2D", "AvgPool": "AveragePooling2D"}[op.type]
    # Where Keras pads by zeros, a maximum of negative numbers would be another.
    if isinstance(given, Piece):
        return None
    return Piece(kind, (given,), {**config, "pool_size": size})


def _reduction(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    x, axes = graph.source(op.inputs[0]), _constant(graph, op, 1)
    if axes is None or x.shape.rank not in (3, 4):
        return None
    rank = x.shape.rank
    if sorted(int(axis) % rank for axis in np.ravel(axes)) != list(range(1, rank - 1)):
        return None
    word = {"Mean": "Average", "Max": "Max"}[op.type]
    return Piece(f"Global{word}Pooling{rank - 2}D", (x,), {"keepdims": op.get_attr("keep_dims")})


def _pad(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    around = _constant(graph, op, 1)
    if around is None or around.shape != (4, 2) or np.any(around[[0, 3]]) or (
            len(op.inputs) == 3 and np.any(_constant(graph, op, 2))):
        return None
    return Piece("ZeroPadding2D", (graph.source(op.inputs[0]),),
                 {"padding": tuple(tuple(int(v) for v in side) for side in around[1:3])})


def _crop(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    """Rows and columns cut off a map."""
    x = graph.source(op.inputs[0])
    bounds = [_constant(graph, op, i) for i in (1, 2, 3)]
    if x.shape.rank != 4 or any(v is None or len(v) != 4 for v in bounds) or any(
            op.get_attr(name) for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")):
        return None
    cut = []
    for axis, (begin, end, stride) in enumerate(zip(*bounds, strict=True)):  # type: ignore[arg-type]
        open_start = op.get_attr("begin_mask") >> axis & 1
        open_end = op.get_attr("end_mask") >> axis & 1
        side = x.shape[axis]
        if side is None:
            if not (open_start or begin == 0) or not open_end or stride != 1:
                return None
            cut.append((0, 0))
            continue
        kept = range(side)[slice(None if open_start else int(begin),
                                 None if open_end else int(end), int(stride))]
        if stride != 1 or not kept:
            return None
        cut.append((kept[0], side - 1 - kept[-1]))
    if cut[0] != (0, 0) or cut[3] != (0, 0):
        return None
    return Piece("Cropping2D", (x,), {"cropping": tuple(cut[1:3])})


def _reshape(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    from tensorflow.python.framework import tensor_util

    x, made = graph.source(op.inputs[0]), op.outputs[0].shape
    if op.type == "Reshape":
        made = made.merge_with(tensor_util.constant_value_as_shape(op.inputs[1]))
    before = None if x.shape.rank is None else x.shape.as_list()[1:]
    after = None if made.rank is None else made.as_list()[1:]
    if not after or not before or after.count(None) or before.count(None):
        return None
    if int(np.prod(after)) != int(np.prod(before)):
        return None
    if after == before:
        return Piece("", (x,))
    if len(after) == 1:
        return Piece("Flatten", (x,))
    return Piece("Reshape", (x,), {"target_shape": tuple(after)})


def _transpose(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    order = _constant(graph, op, 1)
    if order is None or order[0] != 0:
        return None
    if order.tolist() == sorted(order):
        return Piece("", (graph.source(op.inputs[0]),))
    return Piece("Permute", (graph.source(op.inputs[0]),),
                 {"dims": tuple(int(axis) for axis in order[1:])})


def _concatenation(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    axis, parts = _constant(graph, op, len(op.inputs) - 1), op.inputs[:-1]
    if axis is None or not all(graph.is_live(part) for part in parts) or int(axis) == 0:
        return None
    rank = op.outputs[0].shape.rank
    where = int(axis) - rank if rank and axis > 0 else int(axis)
    return Piece("Concatenate", tuple(graph.source(part) for part in parts), {"axis": where})


def _of_tensors(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    if op.type not in ("Add", "AddV2", "AddN", "Mul", "Sub", "Maximum", "Minimum") or not all(
            graph.is_live(tensor) for tensor in op.inputs):
        return None
    kind = {"Mul": "Multiply", "Sub": "Subtract", "Maximum": "Maximum", "Minimum": "Minimum"}
    return Piece(kind.get(op.type, "Add"), tuple(graph.source(tensor) for tensor in op.inputs))


def _of_a_constant(graph: FrozenGraph, op: tf.Operation) -> Piece | None:
    """A sum, difference, product or quotient with a number, or with one for each channel."""
    pair = _only(graph, op) if len(op.inputs) == 2 else None
    if pair is None:
        return None
    x, value, first = pair
    flat: np.ndarray = np.ravel(value).astype(np.float64)
    if flat.size != 1 and (value.shape[-1] != flat.size or flat.size != x.shape[-1]):
        return None
    formulas: dict[str, Callable[[], tuple[Any, Any]]] = {
        "Mul": lambda: (flat, 0.0),
        "RealDiv": lambda: (1.0 / flat, 0.0),
        "Sub": lambda: (-1.0, flat) if first else (1.0, -flat),
    }
    if op.type == "RealDiv" and (first or not np.all(flat)):
        return None
    scale, offset = formulas.get(op.type, lambda: (1.0, flat))()
    if np.size(scale) > _FEW and x.shape.rank == 4:
        constant = op.inputs[0] if first else op.inputs[1]
        return Piece("DepthwiseConv2D", (x,), {"kernel_size": 1, "use_bias": False},
                     (np.reshape(scale, (1, 1, -1, 1)),), (graph.variable(constant),))
    if x.op.type in READERS and graph.uses(x) == 1 and scope_of(x.name) == scope_of(op.name):
        before = _read(graph, x)
        if before is not None and before.kind == "Rescaling":
            x = before.inputs[0]
            scale, offset = (scale * np.asarray(before.config["scale"]),
                             scale * np.asarray(before.config["offset"]) + offset)
    return Piece("Rescaling", (x,), {"scale": _plain(scale), "offset": _plain(offset)})


_FEW = 4
"""Channels that a scaling of the input has at most; of more, a factor each is a layer's weight."""


def _plain(value: Any) -> float | list[float]:
    values = np.ravel(value)
    return float(values[0]) if np.all(values == values[0]) else [float(v) for v in values]


_SUM = (_normalization, _biased, _activation, _of_tensors, _of_a_constant)
_SHAPE = (_reshape,)

READERS: dict[str, tuple[Reader, ...]] = {
    "Add": _SUM, "AddV2": _SUM, "BiasAdd": _SUM, "Sub": _SUM,
    "AddN": (_of_tensors,),
    "AvgPool": (_pooling,), "MaxPool": (_pooling,),
    "BatchMatMulV2": (_matrix,), "MatMul": (_matrix,),
    "ConcatV2": (_concatenation,),
    "Conv2D": (_separable, _convolution),
    "DepthwiseConv2dNative": (_depthwise,),
    "Elu": (_named,), "Selu": (_named,), "Sigmoid": (_named,), "Softmax": (_named,),
    "Softplus": (_named,), "Softsign": (_named,), "Tanh": (_named,),
    "FusedBatchNorm": (_fused_normalization,), "FusedBatchNormV2": (_fused_normalization,),
    "FusedBatchNormV3": (_fused_normalization,),
    "LeakyRelu": (_leaky_relu,), "Relu": (_named,), "Relu6": (_named,),
    "Max": (_reduction,), "Mean": (_reduction,),
    "Maximum": (_activation, _of_tensors), "Minimum": (_activation, _of_tensors),
    "Mul": (_activation, _of_tensors, _of_a_constant),
    "Pad": (_pad,), "PadV2": (_pad,),
    "RealDiv": (_activation, _of_a_constant),
    "Reshape": (_dense_on_maps, _reshape),
    "ExpandDims": _SHAPE, "Squeeze": _SHAPE,
    "StridedSlice": (_crop,),
    "Transpose": (_transpose,),
}  # fmt: skip
"""Type of an operation -> the readers to ask, in this order."""
