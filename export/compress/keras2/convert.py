"""Convert models between Keras 3 and Keras 2: the same graph with the same weights.

tfmot knows tf_keras (Keras 2) only. A functional Keras 3 model is walked call by call, each
layer made anew by the class of the same name, and its weights copied; and the same way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from export.compress.keras2 import ops
from export.compress.keras2.config import find_counterpart, refuse, translate_config
from export.compress.keras2.load import load_tf_keras
from export.convert.graph import copy_flat
from tl_keras.models.graph import steps

if TYPE_CHECKING:
    import keras

__all__ = ["from_keras2", "to_keras2"]


def to_keras2(model: keras.Model) -> Any:
    """Convert a Keras 3 model to tf_keras.

    Nested models are inlined, and layers of `keras.applications` that are no stock layers are
    replaced by stock ones of equal value, as `tl_keras.models.rewrite` does. Layers keep their
    names and whether they are trainable; a layer that is called twice stays one layer.

    Args:
        model: a functional or built sequential model of stock layers; it is not changed.

    Returns:
        A `tf_keras.Model` whose outputs equal the model's but for rounding.

    Raises:
        ExportError: if the graph cannot be read, or a layer has no counterpart; it is named.
    """
    tf_keras = load_tf_keras()
    plain = copy_flat(model)
    converter = _Converter(tf_keras)
    for tensor in plain.inputs:
        shape, name = tuple(tensor.shape)[1:], tensor._keras_history.operation.name
        converter.tensors[id(tensor)] = tf_keras.Input(shape, dtype=tensor.dtype, name=name)
    for step in steps(plain):
        if step.inputs:
            converter.call(step.operation, step.args, step.kwargs, step.outputs)
    return converter.model(plain)


def from_keras2(model: Any) -> keras.Model:
    """Convert a tf_keras model to Keras 3.

    Args:
        model: a flat functional or sequential `tf_keras.Model` of stock layers, as
            `strip_pruning` and `strip_clustering` give it; it is not changed.

    Returns:
        A functional `keras.Model` of stock layers, equal but for rounding.

    Raises:
        ExportError: if a layer has no counterpart; it is named.
    """
    import keras
    import tensorflow as tf

    converter = _Converter(keras)
    for tensor in model.inputs:
        name = tensor.node.layer.name
        shape, dtype = tuple(tensor.shape)[1:], tensor.dtype.name
        converter.tensors[id(tensor)] = keras.Input(shape, dtype=dtype, name=name)
    for node in _keras2_nodes(model):
        args, kwargs = node.call_args, node.call_kwargs
        converter.call(node.layer, args, kwargs, tf.nest.flatten(node.outputs))
    return converter.model(model)


def _keras2_nodes(model: Any) -> Iterator[Any]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


class _Converter:
    """Replays calls in the other Keras.

    Attributes:
        tensors: id of a source tensor -> tensor of the new graph.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self.tensors: dict[int, Any] = {}
        self._calls: dict[int, Callable[..., Any]] = {}
        self._pairs: list[tuple[Any, Any]] = []

    def call(self, operation: Any, args: Any, kwargs: dict, outputs: Any) -> None:
        """Do one call of the source graph, and remember what comes out."""
        import tensorflow as tf

        if id(operation) not in self._calls:
            self._calls[id(operation)] = self._convert_layer(operation)
        args, kwargs = self._substitute((tuple(args), dict(kwargs)))
        said = {key: value for key, value in kwargs.items() if value is not None}
        result = self._calls[id(operation)](*args, **said)
        for old, new in zip(outputs, tf.nest.flatten(result), strict=True):
            self.tensors[id(old)] = new

    def _substitute(self, structure: Any) -> Any:
        if isinstance(structure, dict):
            return {key: self._substitute(one) for key, one in structure.items()}
        if isinstance(structure, list | tuple):
            return type(structure)(self._substitute(one) for one in structure)
        return self.tensors.get(id(structure), structure)

    def _convert_layer(self, operation: Any) -> Callable[..., Any]:
        """What to call for an operation: a new layer, or a function."""
        kind = type(operation).__name__
        if kind == "TFOpLambda":
            return ops.to_keras(operation)
        if not hasattr(operation, "get_weights"):
            return self._convert_operation(operation)
        target = find_counterpart(operation, self.library)
        config = translate_config(operation, target, self.library)
        last = ops.take_out_activation(operation, config, self.library)
        if kind == "Activation" and last:
            return ops.build_activation(last, operation.name, self.library)
        # The one class that would want to know what it was called with.
        direct = kind == "MultiHeadAttention"
        layer = target(**config) if direct else target.from_config(config)
        layer.trainable = operation.trainable
        self._pairs.append((operation, layer))
        if last is None:
            return layer
        then = ops.build_activation(last, operation.name, self.library)
        return lambda *args, **kwargs: then(layer(*args, **kwargs))

    def _convert_operation(self, operation: Any) -> Callable[..., Any]:
        name = ops.ACTIVATIONS.get(type(operation).__name__)
        if name is None:
            return ops.to_tensorflow(operation)
        if name.startswith("hard_"):
            return ops.build_activation(name, operation.name, self.library)
        if name == "softmax":
            return self.library.layers.Softmax(operation.axis, name=operation.name)
        if name == "gelu" and operation.approximate:
            raise refuse(operation, "its GELU is the approximate one; use keras.layers.Dense "
                         "and Activation('gelu')")  # fmt: skip
        return self.library.layers.Activation(name, name=operation.name)

    def model(self, source: Any) -> Any:
        """Return the converted `source`, with its weights."""
        outputs = [self.tensors[id(tensor)] for tensor in source.outputs]
        inputs = [self.tensors[id(tensor)] for tensor in source.inputs]
        made = self.library.Model(_unlist(inputs), _unlist(outputs), name=source.name)
        for old, new in self._pairs:
            _copy_weights(old, new)
        return made


def _unlist(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _copy_weights(old: Any, new: Any) -> None:
    values = _order(old, new)
    shapes = [tuple(value.shape) for value in values], [tuple(v.shape) for v in new.weights]
    if shapes[0] != shapes[1]:
        raise refuse(old, f"its weights have shapes {shapes[0]}, there {shapes[1]}")
    new.set_weights(values)
    # A normalisation computes with what was derived from its weights.
    if hasattr(new, "finalize_state") and values:
        new.finalize_state()


def _order(old: Any, new: Any) -> list[np.ndarray]:
    """The weights in the order of the other layer: by name where the names are the same."""
    values = [np.asarray(value) for value in old.get_weights()]
    names, wanted = _names(old), _names(new)
    if set(names) == set(wanted) and len(set(names)) == len(names):
        return [values[names.index(name)] for name in wanted]
    return values


def _names(layer: Any) -> list[str]:
    return [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
