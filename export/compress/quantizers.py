"""Wrap the layers of a tf_keras model by tfmot so that it trains with the rounding of int8.

Weights: symmetric, a scale for each output channel (for a dense layer one for all).
Activations: the range is that of the first batch, then a moving average (Jacob et al. 2018,
arXiv 1712.05877, section 3.1). Where tfmot's own configurations begin at -6..6 and move by
0.1 % a step, a short fine-tune would never arrive; and they give a depthwise convolution one
scale for all channels.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from export.compress.graph import ENTRY
from export.compress.keras2.load import load_tf_keras, load_tfmot

__all__ = ["wrap_for_rounding"]

_MOST_CLUSTERS = 256
_WEIGHTED = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
_MOVING = {"ReLU", "LeakyReLU", "Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average",
           "Concatenate", "GlobalAveragePooling2D", "AveragePooling2D",
           "UpSampling2D"}  # fmt: skip
# What they give has the scale of what they take.
_THROUGH = {"InputLayer", "ZeroPadding2D", "Cropping2D", "Dropout", "SpatialDropout2D", "Flatten",
            "Reshape", "Permute", "MaxPooling2D", "GlobalMaxPooling2D"}  # fmt: skip
# The scales that the integer kernels of TensorFlow Lite ask for.
_FIXED = {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


def wrap_for_rounding(model: Any, preserve: str = "") -> tuple[Any, list[str]]:
    """Wrap a model's layers so that it trains with the rounding of int8.

    Args:
        model: what `make_quantizable` gave, in tf_keras; its layers move into the result.
        preserve: "" or "zeros" (weights that are zero stay so) or "clusters" (weights that are
            equal stay so).

    Returns:
        The model, and the names of the layers that stay in float. The activation that gives the
        answer is left to the converter.
    """
    library, kinds = load_tf_keras(), _make_kinds()
    readers = _readers(model)
    outputs = {tensor.node.layer.name for tensor in model.outputs}
    left: list[str] = []

    def wrap(layer: Any) -> Any:
        after = readers.get(layer.name, [])
        config = _choose_config(layer, after, layer.name in outputs, preserve)
        answer = layer.name in outputs and type(layer).__name__ in ("Activation", "Softmax")
        if config is None and type(layer).__name__ not in _THROUGH and not answer:
            left.append(layer.name)
        return layer if config is None else kinds["Wrapper"](layer, config)

    return library.models.clone_model(model, clone_function=wrap), left


def _readers(model: Any) -> dict[str, list[Any]]:
    return {
        layer.name: [node.outbound_layer for node in layer.outbound_nodes] for layer in model.layers
    }


def _choose_config(layer: Any, after: list[Any], is_output: bool, preserve: str) -> Any:
    kind, kinds = type(layer).__name__, _make_kinds()
    merged = len(after) == 1 and _is_relu(after[0]) and (kind in _WEIGHTED or kind == "Add")
    if layer.name == ENTRY:
        return kinds["Config"](None, (0.0, 255.0))
    if kind in _WEIGHTED:
        return kinds["Config"](_WEIGHTED[kind], None if merged else "moving", preserve)
    if kind == "Activation" and not is_output:
        name = layer.activation.__name__
        if name in ("relu", "relu6", "linear"):
            return kinds["Config"](None, "moving")
        return kinds["Config"](None, _FIXED[name]) if name in _FIXED else None
    if kind in _MOVING:
        return kinds["Config"](None, None if merged else "moving")
    return None


def _is_relu(layer: Any) -> bool:
    kind = type(layer).__name__
    if kind == "ReLU":
        return layer.max_value in (None, 1.0, 6.0) and not layer.negative_slope and (
            not layer.threshold)  # fmt: skip
    return kind == "Activation" and layer.activation.__name__ in ("relu", "relu6")


@functools.cache
def _make_kinds() -> dict[str, Any]:  # noqa: C901 (it holds classes)
    """Classes derived from tfmot's: made when they are needed, since it is imported then."""
    import tensorflow as tf

    core = "tensorflow_model_optimization.python.core.quantization.keras"
    keras_api = load_tfmot().quantization.keras
    library, wrapper = load_tf_keras(), importlib.import_module(f"{core}.quantize_wrapper")
    quantizer_base = keras_api.quantizers.Quantizer

    class Weights(quantizer_base):  # type: ignore[misc, valid-type]
        """Symmetric, -127..127."""

        def __init__(self, kept: Callable[[Any], Any], kind: str) -> None:
            self.kept, self.kind = kept, kind

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            return _round_kernel(self.kept(inputs), self.kind)

        def get_config(self) -> dict[str, Any]:
            return {"kind": self.kind}

    class Moving(quantizer_base):  # type: ignore[misc, valid-type]
        """The first batch's range, then a moving average; fixed where one is given."""

        def __init__(self, fixed: Any = None) -> None:
            self.fixed = fixed

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
            def add(end: str, value: float) -> Any:
                initializer = library.initializers.Constant(value)
                return layer.add_weight(f"{name}_{end}", initializer=initializer, trainable=False)

            low, high = self.fixed or (0.0, 0.0)
            return {"low": add("min", low), "high": add("max", high)}

        def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
            low, high = weights["low"], weights["high"]
            if training and not self.fixed:
                _follow(inputs, low, high)
            return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

        def get_config(self) -> dict[str, Any]:
            return {"fixed": self.fixed}

    class Config(keras_api.QuantizeConfig):  # type: ignore[misc, name-defined]
        """One weight of a layer, or none, and its output."""

        def __init__(self, weight: str | None, output: Any, preserve: str = "") -> None:
            self.weight, self.output, self.preserve = weight, output, preserve

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            if self.weight is None:
                return []
            weight, kind = getattr(layer, self.weight), type(layer).__name__
            if self.preserve == "clusters" and kind == "Conv2D":
                # One scale for all: equal weights stay equal as integers.
                kind = "Dense"
            return [(weight, Weights(_make_keeper(weight.numpy(), self.preserve), kind))]

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for weight in quantize_weights:
                setattr(layer, str(self.weight), weight)

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            if self.output is None:
                return []
            return [Moving(None if self.output == "moving" else self.output)]

        def get_config(self) -> dict[str, Any]:
            return {"weight": self.weight, "output": self.output, "preserve": self.preserve}

    return {"Config": Config, "Wrapper": wrapper.QuantizeWrapperV2}


def _round_kernel(kernel: Any, kind: str) -> Any:
    """A kernel as int8 would hold it; the scales follow the weights of this moment."""
    import tensorflow as tf

    least = 1e-6
    fake = tf.quantization
    if kind == "Dense":
        top = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(kernel)), least))
        return fake.fake_quant_with_min_max_vars(kernel, -top, top, narrow_range=True)
    shape = kernel.shape
    flat = tf.reshape(kernel, (shape[0], shape[1], -1)) if kind == "DepthwiseConv2D" else kernel
    axes = list(range(len(flat.shape) - 1))
    top = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(flat), axes), least))
    flat = fake.fake_quant_with_min_max_vars_per_channel(flat, -top, top, narrow_range=True)
    return tf.reshape(flat, shape)


def _make_keeper(values: np.ndarray, preserve: str) -> Callable[[Any], Any]:
    """What keeps the pattern of a kernel's first values: its zeros, its equals, or nothing."""
    import tensorflow as tf

    if preserve == "zeros":
        mask = (values != 0).astype(values.dtype)
        return lambda kernel: kernel * mask
    found, places = np.unique(values, return_inverse=True)
    if preserve != "clusters" or len(found) > _MOST_CLUSTERS:
        return lambda kernel: kernel
    places = places.reshape(-1)

    def equal(kernel: Any) -> Any:
        means = tf.math.unsorted_segment_mean(tf.reshape(kernel, [-1]), places, len(found))
        return tf.reshape(tf.gather(means, places), kernel.shape)

    return equal


def _follow(inputs: Any, low: Any, high: Any, pace: float = 0.05) -> None:
    import tensorflow as tf

    # Zero must be among the values: padding is made of it.
    least = tf.minimum(tf.reduce_min(inputs), 0.0)
    most = tf.maximum(tf.reduce_max(inputs), 0.0)
    fresh = tf.equal(low, high)
    low.assign(tf.where(fresh, least, low + pace * (least - low)))
    high.assign(tf.where(fresh, most, high + pace * (most - high)))
