"""Translate operations that are no layers, and activations that only one Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.compress.keras2.config import refuse
from tl_keras.errors import ExportError

__all__ = ["ACTIVATIONS", "build_activation", "take_out_activation", "to_keras", "to_tensorflow"]

ACTIVATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "Silu": "silu",
    "Elu": "elu", "Selu": "selu", "Softplus": "softplus", "Softsign": "softsign",
    "LogSoftmax": "log_softmax", "Softmax": "softmax", "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu",
}  # fmt: skip
"""Operations of `keras.ops` by class, and the activation of the same value."""

# Class in keras.ops, function of TensorFlow, function of keras.ops.
_PLAIN = (
    ("Add", "math.add", "add"),
    ("Subtract", "math.subtract", "subtract"),
    ("Multiply", "math.multiply", "multiply"),
    ("Divide", "math.divide", "divide"),
    ("TrueDivide", "math.truediv", "true_divide"),
    ("Power", "math.pow", "power"),
    ("Maximum", "math.maximum", "maximum"),
    ("Minimum", "math.minimum", "minimum"),
    ("Matmul", "linalg.matmul", "matmul"),
    ("Exp", "math.exp", "exp"),
    ("Log", "math.log", "log"),
    ("Sqrt", "math.sqrt", "sqrt"),
    ("Rsqrt", "math.rsqrt", "rsqrt"),
    ("Square", "math.square", "square"),
    ("Absolute", "math.abs", "absolute"),
    ("Negative", "math.negative", "negative"),
)
_REDUCED = (
    ("Mean", "math.reduce_mean", "mean"),
    ("Sum", "math.reduce_sum", "sum"),
    ("Max", "math.reduce_max", "max"),
    ("Min", "math.reduce_min", "min"),
)
_OPERATORS = {
    "__operators__.add": "add", "math.truediv": "true_divide", "nn.relu": "relu",
    "nn.relu6": "relu6", "math.sigmoid": "sigmoid", "math.tanh": "tanh", "nn.gelu": "gelu",
    "nn.silu": "silu", "nn.swish": "silu", "nn.softmax": "softmax", "math.softplus": "softplus",
    "nn.elu": "elu", "nn.selu": "selu",
}  # fmt: skip
_BACK = {symbol: name for _, symbol, name in (*_PLAIN, *_REDUCED)} | _OPERATORS
_SHAPED = {"reshape": "reshape", "transpose": "transpose", "concat": "concatenate",
           "expand_dims": "expand_dims", "squeeze": "squeeze"}  # fmt: skip
_WORDS = {"perm": "axes", "shape": "newshape", "values": "xs", "input": "x", "tensor": "x",
          "a": "x", "input_tensor": "x", "features": "x"}  # fmt: skip


_ONLY_KERAS_3 = {
    "celu", "glu", "hard_shrink", "hard_tanh", "log_sigmoid", "soft_shrink", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "tanh_shrink", "threshold",
}  # fmt: skip
# Keras 3: relu6(x + 3) / 6. Keras 2: clip(0.2 x + 0.5, 0, 1). Each as (scale, offset) before a
# clipped ReLU, its ceiling, and the factor behind it.
_HARD = {"tf_keras": (1.0, 3.0, 6.0, 1 / 6), "keras": (0.2, 0.5, 1.0, 1.0)}


def to_tensorflow(operation: Any) -> Callable[..., Any]:
    """The function of TensorFlow for an operation of `keras.ops`.

    Args:
        operation: what stands in a graph of Keras 3 and is no layer.

    Returns:
        A function that takes what the operation is called with, in tensors of tf_keras.

    Raises:
        ExportError: if there is none.
    """
    import tensorflow as tf

    kind = type(operation).__name__
    for name, symbol, _ in _PLAIN:
        if kind == name:
            return _find_function(symbol)
    for name, symbol, _ in _REDUCED:
        if kind == name:
            return lambda x: _find_function(symbol)(x, operation.axis, operation.keepdims)
    shaped: dict[str, Callable[..., Any]] = {
        "Reshape": lambda x: tf.reshape(x, [-1 if n is None else n for n in operation.newshape]),
        "Transpose": lambda x: tf.transpose(x, operation.axes),
        "Concatenate": lambda xs: tf.concat(xs, operation.axis),
        "ExpandDims": lambda x: tf.expand_dims(x, operation.axis),
        "Squeeze": lambda x: tf.squeeze(x, operation.axis),
    }
    if kind not in shaped:
        raise _refuse(kind, operation.name)
    return shaped[kind]


def _find_function(symbol: str) -> Callable[..., Any]:
    import tensorflow as tf

    module, name = symbol.split(".")
    return getattr(getattr(tf, module), name)


def to_keras(layer: Any) -> Callable[..., Any]:
    """The function of `keras.ops` for an operation in a graph of tf_keras.

    Args:
        layer: a TFOpLambda layer.

    Raises:
        ExportError: if there is none.
    """
    import keras

    name = {**_BACK, **_SHAPED}.get(layer.symbol.removeprefix("compat.v1."))
    if name is None:
        raise _refuse(f"tf.{layer.symbol}", layer.name)
    function = getattr(keras.ops, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        said = {
            key: value
            for key, value in kwargs.items()
            if key != "name" and value is not None and value is not False
        }
        words = {"x": "x1", "y": "x2"} if "y" in said else _WORDS
        given = [value for value in args if value is not None]
        return function(*given, **{words.get(key, key): value for key, value in said.items()})

    return call


def _refuse(kind: str, name: str) -> ExportError:
    return ExportError(
        f"Operation {name!r} ({kind}) has no counterpart in the other Keras. Use a stock layer "
        "in its place, or leave compression out and export the model as it is."
    )


def take_out_activation(layer: Any, config: dict[str, Any], library: Any) -> str | None:
    """Take an activation out of a configuration that the other Keras computes otherwise.

    Args:
        layer: the layer that has it.
        config: its translated configuration; changed in place.
        library: the other Keras, as a module.

    Returns:
        The name of what must come after the layer instead; None for nothing.

    Raises:
        ExportError: if nothing that both have computes it.
    """
    name = config.get("activation")
    if not isinstance(name, str | dict) and name is not None:
        raise refuse(layer, f"its activation {name!r} is a function of its own")
    if name in _ONLY_KERAS_3 if isinstance(name, str) else name is not None:
        raise refuse(layer, f"{library.__name__} lacks the activation {name!r}")
    recurrent = config.get("recurrent_activation") in ("hard_sigmoid", "hard_silu", "hard_swish")
    if name not in ("hard_sigmoid", "hard_silu", "hard_swish") and not recurrent:
        return None
    if recurrent or "recurrent_initializer" in config:
        raise refuse(layer, f"{library.__name__} computes {name or 'hard_sigmoid'} otherwise")
    config["activation"] = "linear"
    return "hard_sigmoid" if name == "hard_sigmoid" else "hard_silu"


def build_activation(kind: str, name: str, library: Any) -> Callable[[Any], Any]:
    """Layers that compute an activation; made once, to be called as often as needed.

    Args:
        kind: "hard_sigmoid" or "hard_silu" (Howard et al. 2019, arXiv 1905.02244).
        name: what their names begin with.
        library: the Keras to make them of, as a module.
    """
    layers, (scale, offset, ceiling, factor) = library.layers, _HARD[library.__name__]
    shift = layers.Rescaling(scale, offset, name=f"{name}_shift")
    clip = layers.ReLU(ceiling, name=f"{name}_clip")
    divide = layers.Rescaling(factor, name=f"{name}_divide") if factor != 1.0 else None
    times = layers.Multiply(name=f"{name}_times") if kind == "hard_silu" else None

    def call(x: Any) -> Any:
        y = clip(shift(x))
        y = divide(y) if divide is not None else y
        return times([x, y]) if times is not None else y

    return call
