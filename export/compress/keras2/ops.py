"""Operations that are no layers: `keras.ops` on one side, functions of TensorFlow on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tl_keras.errors import ExportError

__all__ = ["ACTIVATIONS", "backward", "forward"]

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


def forward(operation: Any) -> Callable[..., Any]:
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
            return _function(symbol)
    for name, symbol, _ in _REDUCED:
        if kind == name:
            return lambda x: _function(symbol)(x, operation.axis, operation.keepdims)
    shaped: dict[str, Callable[..., Any]] = {
        "Reshape": lambda x: tf.reshape(x, [-1 if n is None else n for n in operation.newshape]),
        "Transpose": lambda x: tf.transpose(x, operation.axes),
        "Concatenate": lambda xs: tf.concat(xs, operation.axis),
        "ExpandDims": lambda x: tf.expand_dims(x, operation.axis),
        "Squeeze": lambda x: tf.squeeze(x, operation.axis),
    }
    if kind not in shaped:
        raise _refused(kind, operation.name)
    return shaped[kind]


def _function(symbol: str) -> Callable[..., Any]:
    import tensorflow as tf

    module, name = symbol.split(".")
    return getattr(getattr(tf, module), name)


def backward(layer: Any) -> Callable[..., Any]:
    """The function of `keras.ops` for an operation in a graph of tf_keras.

    Args:
        layer: a TFOpLambda layer.

    Raises:
        ExportError: if there is none.
    """
    import keras

    name = {**_BACK, **_SHAPED}.get(layer.symbol.removeprefix("compat.v1."))
    if name is None:
        raise _refused(f"tf.{layer.symbol}", layer.name)
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


def _refused(kind: str, name: str) -> ExportError:
    return ExportError(
        f"Operation {name!r} ({kind}) has no twin in the other Keras. Use a stock layer in its "
        "place, or leave compression out and export the model as it is."
    )
