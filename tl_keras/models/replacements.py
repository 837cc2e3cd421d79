"""Stock layers of equal value for what a saved file could not be loaded with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["replacement"]


def _is_stock(operation: Any) -> bool:
    return type(operation).__module__.split(".")[0] == "keras"


def _common(config: dict) -> dict:
    return {key: config[key] for key in ("name", "dtype", "trainable") if key in config}


def _layer_scale(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    import keras

    return rewriter.make(
        operation,
        lambda config: keras.layers.DepthwiseConv2D(1, use_bias=False, **_common(config)),
        prefix,
        lambda weights: [weights[0].reshape(1, 1, -1, 1)],
    )(x)


def _stochastic_depth(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    import keras

    return rewriter.make(
        operation,
        lambda config: keras.layers.Dropout(
            operation.drop_path_rate, noise_shape=(None, 1, 1, 1), **_common(config)),
        prefix,
    )(x)


def _scaled_sum(rewriter: Any, operation: Any, prefix: str, pair: Any) -> Any:
    import keras

    total = rewriter.make(
        operation, lambda config: keras.layers.Add(**_common(config)), prefix)
    scale = keras.layers.Rescaling(operation.scale, name=f"{total.name}_factor")
    return total([pair[0], scale(pair[1])])


def _depthwise(rewriter: Any, operation: Any, prefix: str, x: Any) -> Any:
    """A convolution with one group a channel: as a depthwise one it also trains on a CPU."""
    import keras

    def build(config: dict) -> Any:
        keys = ("kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias",
                "bias_initializer", "bias_regularizer", "bias_constraint")
        return keras.layers.DepthwiseConv2D(
            **{key: config[key] for key in keys}, **_common(config),
            depthwise_initializer=config["kernel_initializer"],
            depthwise_regularizer=config["kernel_regularizer"],
        )

    return rewriter.make(
        operation, build, prefix,
        lambda weights: [weights[0].transpose(0, 1, 3, 2), *weights[1:]],
    )(x)


def _arithmetic(rewriter: Any, operation: Any, prefix: str, a: Any, b: Any) -> Any:
    """A sum or product of two tensors, or of a tensor and a number."""
    import keras

    tensors = [value for value in (a, b) if isinstance(value, keras.KerasTensor)]
    kind, name = type(operation).__name__, rewriter.name(operation, prefix)
    if len(tensors) == 2:
        return getattr(keras.layers, kind)(name=name)(tensors)
    number = float(b if tensors[0] is a else a)
    scale, offset = (number, 0.0) if kind == "Multiply" else (1.0, number)
    return keras.layers.Rescaling(scale, offset, name=name)(tensors[0])


_REPLACED: dict[str, Callable[..., Any]] = {
    "LayerScale": _layer_scale,
    "StochasticDepth": _stochastic_depth,
    "CustomScaleLayer": _scaled_sum,
}


def replacement(operation: Any, args: tuple, kwargs: dict) -> Callable[..., Any] | None:
    """The function that puts stock layers where an operation stood.

    Args:
        operation: A layer or operation of the source graph.
        args: Positional arguments of its call, in new tensors.
        kwargs: Keyword arguments of its call.

    Returns:
        A function (rewriter, operation, prefix, *args) -> new tensor; None when the operation
        is kept.
    """
    import keras

    kind = type(operation).__name__
    if not _is_stock(operation):
        return None
    if not isinstance(operation, keras.Layer):
        plain = len(args) == 2 and all(
            isinstance(value, (int, float, keras.KerasTensor)) for value in args)
        return _arithmetic if kind in ("Add", "Multiply") and plain and not kwargs else None
    if kind == "Conv2D" and operation.groups > 1:
        channels = args[0].shape[-1]
        return _depthwise if operation.groups == channels == operation.filters else None
    return _REPLACED.get(kind)
