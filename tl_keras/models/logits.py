"""The logits of a classifier: what comes before its softmax, and its named layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError
from tl_keras.models import graph
from tl_keras.utils.suggest import nearest

if TYPE_CHECKING:
    import keras

__all__ = ["last_map", "layer_tensor", "logits_of", "softmax", "with_own_softmax"]

_FIX = (
    "give a model that ends in a softmax over its classes, or in the linear layer before one: "
    "keras.Model(model.inputs, model.get_layer(NAME).output), with the name of that layer"
)


def logits_of(model: keras.Model, what: str = "model") -> Any:
    """Return the tensor (None, classes) that a classifier's softmax is taken of.

    A softmax that is a layer or an operation of its own is cut off. One within a layer (a Dense
    with `activation="softmax"`) is left out of a new layer with the same weights. An output that
    is linear already is taken as it is: a softmax is never taken of a softmax.

    Args:
        model: A functional model with one output; it gets no layer, but its tensors may feed a
            new one.
        what: What to call it in an error.

    Raises:
        ExportError: Its output is no softmax and not linear either.
    """
    last = graph.steps(model)[-1]
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = [tuple(tensor.shape) for tensor in model.outputs]
        raise ExportError(f"The {what} gives {shapes}; expected one row of numbers, so {_FIX}.")
    kind, activation = type(last.operation).__name__, _activation(last.operation)
    if kind == "Softmax" or (kind == "Activation" and activation == "softmax"):
        return last.inputs[0]
    if activation == "softmax":
        return _linear_twin(last)(*last.args, **last.kwargs)
    if activation == "linear":
        return _before_linear(model, what)
    ends = f"{kind} '{last.name}'" + (f" ({activation})" if activation else "")
    raise ExportError(f"The {what} ends in {ends}, which leaves no logits to learn from; {_FIX}.")


def _activation(operation: Any) -> str:
    function = getattr(operation, "activation", None)
    return getattr(function, "__name__", "") if function is not None else ""


def _linear_twin(step: graph.Step) -> Any:
    layer = step.operation
    twin = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    twin.build(step.inputs[0].shape)
    twin.set_weights(layer.get_weights())
    return twin


def _before_linear(model: keras.Model, what: str) -> Any:
    """Look through linear activations: a softmax may stand before one."""
    import keras

    last = graph.steps(model)[-1]
    if type(last.operation).__name__ == "Activation":
        return logits_of(keras.Model(model.inputs, last.inputs[0]), what)
    return model.outputs[0]


def with_own_softmax(model: keras.Model) -> keras.Model:
    """Return a classifier whose softmax is a layer of its own, which gives float32.

    Raises:
        ExportError: It has no logits, see :func:`logits_of`.
    """
    import keras

    logits = logits_of(model, "student")
    last = graph.steps(model)[-1]
    if type(last.operation).__name__ in ("Activation", "Softmax") and last.inputs[0] is logits:
        return model
    # Named head_, it alone would be the head of a model that has no such names.
    name = f"{last.name}_softmax"
    softmax = keras.layers.Activation("softmax", dtype="float32", name=name)
    return keras.Model(model.inputs, softmax(logits), name=model.name)


def layer_tensor(model: keras.Model, name: str, what: str) -> Any:
    """Return what a layer gives, shape (None, ...).

    Raises:
        ExportError: There is no such layer; the nearest are named.
    """
    found = {step.name: step.outputs[0] for step in graph.steps(model)}
    if name not in found:
        near = nearest(name, found) or list(found)[-4:]
        raise ExportError(f"The {what} has no layer '{name}'; the nearest are: {', '.join(near)}.")
    return found[name]


def last_map(model: keras.Model, what: str) -> str:
    """Return the name of the layer where the features end, if they are a map (None, h, w, c).

    Raises:
        ExportError: They are none.
    """
    end = graph.feature_point(model)
    if len(end.shape) != 4:
        raise ExportError(
            f"The {what} has no feature map; name layers: --features TEACHER:STUDENT."
        )
    return end.layer


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (n, classes), float64, of logits divided by a temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = np.exp(scaled - scaled.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
