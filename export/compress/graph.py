"""Make a model's graph ready for compression: fewer kinds of layers, the same function."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.graph import (
    WEIGHTED,
    fold_batch_normalization,
    read_scale_and_offset,
    rewrite,
)
from tl_keras.features.places import free_names
from tl_keras.models.rewrite import Rewriter

if TYPE_CHECKING:
    import keras

__all__ = ["ENTRY", "fold_trainable", "make_quantizable"]

ENTRY = "input_rounding"
"""Name of the layer behind the input, in what `make_quantizable` returns."""


def fold_trainable(model: keras.Model) -> keras.Model:
    """Copy a model flat and folded; all is trainable but what still normalises.

    Raises:
        ExportError: if the graph cannot be rewritten.
    """
    return _set_trainable(fold_batch_normalization(model))


def make_quantizable(model: keras.Model) -> keras.Model:
    """Copy a model in layers that integers can compute.

    Scalings and lone batch normalisations of feature maps become 1 x 1 depthwise convolutions,
    separable convolutions become two, and activations other than ReLU layers of their own. The
    copies of scalings are not trainable.

    Args:
        model: what `fold_trainable` gave.

    Returns:
        A model that gives the same; the layer `ENTRY` stands behind its input.

    Raises:
        ExportError: if the graph cannot be rewritten.
    """
    rewriter = _Quantizable(model)
    return _set_trainable(rewrite(model, rewriter, ENTRY), rewriter.fixed)


def _set_trainable(model: keras.Model, fixed: Collection[Any] = ()) -> keras.Model:
    for layer in model.layers:
        # Statistics of few samples would spoil those of many.
        normalises = type(layer).__name__ == "BatchNormalization"
        layer.trainable = not normalises and layer not in fixed
    return model


class _Quantizable(Rewriter):
    """Puts convolutions where integers would not know what to do."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._taken.add(ENTRY)
        self._free = free_names(model)
        self.fixed: list[Any] = []
        self._chains: dict[int, list[Any]] = {}

    def layer(self, operation: Any, prefix: str = "") -> Any:
        kind = type(operation).__name__
        shape: tuple[int, ...] = ()
        if kind in ("Rescaling", "BatchNormalization"):
            shape = tuple(operation.input.shape)
        if len(shape) == 4:
            made = self._per_channel(operation, prefix, shape[-1])
            # A normalisation is called with a mask; samples have none.
            return lambda x, mask=None: made(x)
        if kind in WEIGHTED:
            return self._chain(operation, prefix)
        return super().layer(operation, prefix)

    def _per_channel(self, operation: Any, prefix: str, channels: int) -> Any:
        import keras

        if type(operation).__name__ == "Rescaling":
            scale, offset = np.asarray(operation.scale), np.asarray(operation.offset)
        else:
            scale, offset = read_scale_and_offset(operation)
        values = [np.broadcast_to(value, channels).astype("float32") for value in (scale, offset)]
        layer = self.make(
            operation,
            lambda config: keras.layers.DepthwiseConv2D(1, name=config["name"]),
            prefix,
            lambda weights: [values[0].reshape(1, 1, -1, 1), values[1]],
        )
        if type(operation).__name__ == "Rescaling" and layer not in self.fixed:
            self.fixed.append(layer)
        return layer

    def _chain(self, operation: Any, prefix: str) -> Any:
        """A layer as one or two convolutions, and what is left of its activation."""
        if id(operation) not in self._chains:
            self._chains[id(operation)] = self._parts(operation, prefix)

        def call(x: Any) -> Any:
            for part in self._chains[id(operation)]:
                x = part(x)
            return x

        return call

    def _parts(self, operation: Any, prefix: str) -> list[Any]:
        import keras

        activation = operation.get_config()["activation"]
        plain = activation in ("linear", "relu", "relu6")
        own = {} if plain else {"activation": "linear"}
        kind = type(operation)
        if kind.__name__ == "SeparableConv2D":
            parts = self._separate(operation, prefix, own)
        else:
            parts = [self.make(operation, lambda c: kind.from_config({**c, **own}), prefix)]
        if not plain:
            name = self._free(f"{parts[-1].name}_activation")
            parts.append(keras.layers.Activation(activation, name=name))
        return parts

    def _separate(self, operation: Any, prefix: str, own: dict[str, Any]) -> list[Any]:
        import keras

        shared = ("strides", "padding", "dilation_rate", "depth_multiplier", "kernel_size")
        config = operation.get_config()
        depthwise = keras.layers.DepthwiseConv2D(
            **{key: config[key] for key in shared},
            use_bias=False,
            name=self._free(f"{operation.name}_depthwise"),
        )
        activation = own.get("activation", config["activation"])
        pointwise = keras.layers.Conv2D(
            config["filters"],
            1,
            use_bias=config["use_bias"],
            activation=activation,
            name=self.name(operation, prefix + "pointwise_"),
        )
        self.pairs.append((operation, depthwise, lambda weights: weights[:1]))
        self.pairs.append((operation, pointwise, lambda weights: weights[1:]))
        return [depthwise, pointwise]
