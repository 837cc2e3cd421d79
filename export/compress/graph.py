"""A model's graph made ready for compression: fewer kinds of layers, the same function.

Batch normalisation in inference is a scale and an offset a channel: it is folded into the
convolution before it (Jacob et al. 2018, arXiv 1712.05877, section 3.2), so that what is
pruned, clustered or rounded is what the device computes with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError
from tl_keras.models.graph import Step, steps
from tl_keras.models.rewrite import Rewriter

if TYPE_CHECKING:
    import keras

__all__ = ["ENTRY", "flat", "folded", "quantizable"]

ENTRY = "input_rounding"
"""Name of the layer behind the input, in what `quantizable` returns."""

_WEIGHTED = ("Conv2D", "DepthwiseConv2D", "Dense", "SeparableConv2D")


def flat(model: keras.Model) -> keras.Model:
    """A flat copy whose batch normalisations are as they were, and stay so in training.

    Raises:
        ExportError: if the graph cannot be rewritten.
    """
    return _rewritten(model, Rewriter())


def folded(model: keras.Model) -> keras.Model:
    """A flat copy without the batch normalisations that a convolution or dense layer can take.

    Args:
        model: a functional model of stock layers with one input.

    Returns:
        A model that gives the same in inference; all is trainable but what normalises.

    Raises:
        ExportError: if the graph cannot be rewritten.
    """
    return _rewritten(flat(model), None)


def quantizable(model: keras.Model) -> keras.Model:
    """A flat copy of layers that integers can compute.

    Scalings and lone batch normalisations of feature maps become 1 x 1 depthwise convolutions,
    separable convolutions become two, and activations other than ReLU layers of their own. The
    copies of scalings are not trainable.

    Args:
        model: what `folded` gave.

    Returns:
        A model that gives the same; the layer `ENTRY` stands behind its input.

    Raises:
        ExportError: if the graph cannot be rewritten.
    """
    return _rewritten(model, _Quantizable())


def _rewritten(model: keras.Model, rewriter: Rewriter | None) -> keras.Model:
    import keras

    rewriter = rewriter or _Folding(_foldable(model))
    source = model.inputs[0]
    entry = keras.Input(tuple(source.shape)[1:], name=source._keras_history.operation.name)
    start = entry
    if isinstance(rewriter, _Quantizable):
        start = keras.layers.Activation("linear", name=ENTRY)(entry)
    try:
        outputs = rewriter.run(model, [start])
        rewriter.copy_weights()
    # Keras refuses with a ValueError what it cannot rebuild.
    except ValueError as error:
        raise ExportError(f"The model cannot be compressed: {error}") from error
    made = keras.Model(entry, outputs[0], name=model.name)
    fixed = rewriter.fixed if isinstance(rewriter, _Quantizable) else []
    for layer in made.layers:
        # Statistics of few pictures would spoil those of many.
        normalises = type(layer).__name__ == "BatchNormalization"
        layer.trainable = not normalises and layer not in fixed
    return made


def _foldable(model: keras.Model) -> dict[int, Any]:
    """By the id of a layer, the batch normalisation that alone reads its only output."""
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
    if type(norm).__name__ != "BatchNormalization" or type(layer).__name__ not in _WEIGHTED:
        return False
    last = norm.axis in (-1, len(norm.input.shape) - 1)
    return last and layer.get_config()["activation"] == "linear"


def _scale_and_offset(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a batch normalisation multiplies by and adds, float64 (channels,)."""
    weights = {weight.name: np.asarray(weight, np.float64) for weight in norm.weights}
    scale = weights.get("gamma", 1.0) / np.sqrt(weights["moving_variance"] + norm.epsilon)
    return scale, weights.get("beta", 0.0) - weights["moving_mean"] * scale


class _Folding(Rewriter):
    """Leaves batch normalisations out and puts them into the weights before them."""

    def __init__(self, norms: dict[int, Any]) -> None:
        super().__init__(skip=[id(norm) for norm in norms.values()])
        self.norms = norms

    def layer(self, operation: Any, prefix: str = "") -> Any:
        norm = self.norms.get(id(operation))
        if norm is None:
            return super().layer(operation, prefix)
        kind, scale_and_offset = type(operation), _scale_and_offset(norm)
        return self.make(
            operation,
            lambda config: kind.from_config({**config, "use_bias": True}),
            prefix,
            lambda weights: _folded(operation, weights, *scale_and_offset),
        )


def _folded(layer: Any, weights: list, scale: np.ndarray, offset: np.ndarray) -> list:
    *kernels, bias = weights if layer.use_bias else [*weights, 0.0]
    last = kernels[-1]
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    factor = scale.reshape(last.shape[-2:]) if depthwise else scale
    return [*kernels[:-1], (last * factor).astype("float32"),
            np.asarray(bias * scale + offset, "float32")]  # fmt: skip


class _Quantizable(Rewriter):
    """Puts convolutions where integers would not know what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed: list[Any] = []
        self._chains: dict[int, list[Any]] = {}

    def layer(self, operation: Any, prefix: str = "") -> Any:
        kind = type(operation).__name__
        shape: tuple[int, ...] = ()
        if kind in ("Rescaling", "BatchNormalization"):
            shape = tuple(operation.input.shape)
        if len(shape) == 4:
            made = self._per_channel(operation, prefix, shape[-1])
            # A normalisation is called with a mask; pictures have none.
            return lambda x, mask=None: made(x)
        if kind in _WEIGHTED:
            return self._chain(operation, prefix)
        return super().layer(operation, prefix)

    def _per_channel(self, operation: Any, prefix: str, channels: int) -> Any:
        import keras

        if type(operation).__name__ == "Rescaling":
            scale, offset = np.asarray(operation.scale), np.asarray(operation.offset)
        else:
            scale, offset = _scale_and_offset(operation)
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
            parts = self._separated(operation, prefix, own)
        else:
            parts = [self.make(operation, lambda c: kind.from_config({**c, **own}), prefix)]
        if not plain:
            name = f"{parts[-1].name}_activation"
            parts.append(keras.layers.Activation(activation, name=name))
        return parts

    def _separated(self, operation: Any, prefix: str, own: dict[str, Any]) -> list[Any]:
        import keras

        shared = ("strides", "padding", "dilation_rate", "depth_multiplier", "kernel_size")
        config = operation.get_config()
        depthwise = keras.layers.DepthwiseConv2D(
            **{key: config[key] for key in shared},
            use_bias=False,
            name=f"{self.name(operation, prefix)}_depthwise",
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
