"""A model that gets more outputs and keeps those it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.graph import alone

if TYPE_CHECKING:
    import keras

__all__ = ["feature_model", "grow", "output_layer", "set_output"]


def output_layer(model: keras.Model) -> keras.layers.Dense:
    """Return the dense layer that gives a model's outputs; only an activation may follow it.

    Raises:
        ModelError: The model does not end so.
    """
    import keras

    with_weights = [layer for layer in model.layers if layer.weights]
    last = with_weights[-1] if with_weights else None
    if isinstance(last, keras.layers.Dense) and last.units == model.output_shape[-1]:
        return last
    what = f"{type(last).__name__} '{last.name}'" if last is not None else "no weights at all"
    raise ModelError(
        f"the model '{model.name}' ends in {what}; expected a Dense layer with one unit for each "
        f"of its {model.output_shape[-1]} outputs, which can grow"
    )


def feature_model(model: keras.Model) -> keras.Model:
    """Return the part of a model before its output layer: its inputs in, features (n, d) out.

    It shares the model's layers.

    Raises:
        ModelError: The model does not end in a dense layer, or that sees no vector.
    """
    import keras

    tensor = output_layer(model).input
    if len(tensor.shape) != 2:
        raise ModelError(
            f"the output layer of '{model.name}' sees {tensor.shape}; expected a vector (None, d)"
        )
    return keras.Model(alone(model.inputs), tensor, name="features")


def grow(model: keras.Model, outputs: int) -> keras.Model:
    """Return a copy of a model with more outputs; the old ones stay as they are.

    A new output begins as the mean of the old ones, weights and bias. The mean of some numbers
    is never above the largest of them: so the grown model at first says of every image
    what the old one says.

    Args:
        model: A functional model that ends in a dense layer and an activation; not changed.
        outputs: How many outputs the new model has, the old ones first, in their order.

    Raises:
        ModelError: The model does not end so, or has more outputs already.
    """
    import keras

    last = output_layer(model)
    if outputs < last.units:
        raise ModelError(f"the model has {last.units} outputs, expected at most {outputs}")

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if layer is last:
            config["units"] = outputs
        return type(layer).from_config(config)

    inputs = keras.tree.map_structure(_input_like, model.input)
    grown = keras.models.clone_model(model, input_tensors=inputs, clone_function=copy)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer is last:
            weights = [_widen(array, outputs) for array in weights]
        grown.get_layer(layer.name).set_weights(weights)
    return grown


def _input_like(tensor: Any) -> Any:
    import keras

    name = tensor._keras_history.operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)


def _widen(array: np.ndarray, outputs: int) -> np.ndarray:
    mean = array.mean(-1, keepdims=True)
    more = np.repeat(mean, outputs - array.shape[-1], axis=-1)
    return np.concatenate([array, more], axis=-1)


def set_output(model: keras.Model, weights: np.ndarray, bias: np.ndarray) -> None:
    """Give a model's output layer its weights.

    Args:
        model: Ends in a dense layer with a bias.
        weights: (d, outputs).
        bias: (outputs,).

    Raises:
        ModelError: They do not fit.
    """
    last = output_layer(model)
    got, expected = [weights.shape, bias.shape], [tuple(w.shape) for w in last.weights]
    if got != expected:
        raise ModelError(f"got weights of shapes {got} for '{last.name}', expected {expected}")
    last.set_weights([weights, bias])
