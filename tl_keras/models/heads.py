"""Heads: pooling, dense layers and the output that go on top of a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["ACTIVATIONS", "POOLINGS", "Head", "attach"]

POOLINGS = ("avg", "max", "avg+max", "gem", "flatten", "none")
ACTIVATIONS = ("softmax", "sigmoid", "linear")
GEM_POWER = 3.0
_GEM_FLOOR = 1e-6


@dataclass(frozen=True)
class Head:
    """What goes on top of a base.

    Attributes:
        pooling: How the last feature map (h, w, c) becomes a vector: "avg" and "max" over
            positions (c values), "avg+max" both side by side (2 c), "gem" the generalised mean
            with power 3 over positive parts (Radenovic et al. 2019, arXiv 1711.02512; c),
            "flatten" all positions (h w c), "none" for a base that gives a vector already.
        dense: Units of the hidden layers, bottom to top, each with ReLU.
        dropout: Share of values dropped before each dense layer's successor and before the
            output, 0 to below 1. 0 adds no layer.
        activation: "softmax" (one class a picture), "sigmoid" (several labels a picture) or
            "linear" (regression).
    """

    pooling: str = "avg"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    activation: str = "softmax"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ModelError: When one is not among those above.
        """
        object.__setattr__(self, "dense", _units(self.dense))
        if self.pooling not in POOLINGS:
            raise ModelError(f"got pooling {self.pooling!r}; expected one of {_list(POOLINGS)}")
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"got activation {self.activation!r}; expected one of {_list(ACTIVATIONS)}")
        if not isinstance(self.dropout, (int, float)) or not 0.0 <= self.dropout < 1.0:
            raise ModelError(f"got dropout {self.dropout!r}; expected a number from 0 to below 1")


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _units(dense: Any) -> tuple[int, ...]:
    units = (dense,) if isinstance(dense, int) else tuple(dense)
    if any(isinstance(unit, bool) or not isinstance(unit, int) or unit < 1 for unit in units):
        raise ModelError(f"got dense {dense!r}; expected whole numbers of units, 1 or more each")
    return units


def _gem(x: Any) -> Any:
    """Mean of cubes over positions, then the cube root; all of it loads without tl_keras."""
    import keras
    from keras import layers

    x = layers.ReLU(name="head_gem_positive")(x)
    x = layers.Multiply(name="head_gem_cube")([x, x, x])
    x = layers.GlobalAveragePooling2D(name="head_gem_mean")(x)
    # The slope of a cube root at zero is infinite.
    x = layers.Rescaling(1.0, _GEM_FLOOR, name="head_gem_floor")(x)
    x = keras.ops.power(x, 1.0 / GEM_POWER)
    x._keras_history.operation.name = "head_gem_root"
    return x


def _pool(x: Any, pooling: str) -> Any:
    from keras import layers

    if pooling == "gem":
        return _gem(x)
    if pooling == "flatten":
        return layers.Flatten(name="head_flatten")(x)
    average = layers.GlobalAveragePooling2D(name="head_avg_pool")
    maximum = layers.GlobalMaxPooling2D(name="head_max_pool")
    if pooling == "avg+max":
        return layers.Concatenate(name="head_concat")([average(x), maximum(x)])
    return average(x) if pooling == "avg" else maximum(x)


def _to_vector(x: Any, pooling: str) -> Any:
    rank = len(x.shape)
    if pooling == "none" and rank == 2:
        return x
    if pooling != "none" and rank == 4:
        return _pool(x, pooling)
    wanted = "a vector (None, c)" if pooling == "none" else "a feature map (None, h, w, c)"
    raise ModelError(
        f"the base gives shape {tuple(x.shape)}, pooling {pooling!r} expects {wanted}; "
        + ("choose a pooling such as avg" if pooling == "none" else "choose pooling none"))


def attach(base: keras.Model, head: Head, outputs: int) -> Any:
    """Put a head on a base.

    Args:
        base: A functional model that gives a feature map (None, h, w, c), or a vector
            (None, c) for pooling "none".
        head: The head.
        outputs: Number of outputs, 1 or more; 2 or more for softmax.

    Returns:
        The predictions, a float32 Keras tensor (None, outputs). Layers are named head_*.

    Raises:
        ModelError: When the number of outputs or the base's shape does not fit the head.
    """
    from keras import layers

    _check_outputs(outputs, head.activation)
    x = _to_vector(base.outputs[0], head.pooling)
    for number, units in enumerate(head.dense, start=1):
        x = layers.Dense(units, activation="relu", name=f"head_dense_{number}")(x)
        x = _drop(x, head.dropout, number)
    if not head.dense:
        x = _drop(x, head.dropout, 1)
    x = layers.Dense(outputs, name="head_logits")(x)
    # Half precision has too few digits for probabilities.
    return layers.Activation(head.activation, dtype="float32", name="head_predictions")(x)


def _drop(x: Any, rate: float, number: int) -> Any:
    from keras import layers

    return layers.Dropout(rate, name=f"head_dropout_{number}")(x) if rate else x


def _check_outputs(outputs: int, activation: str) -> None:
    least = 2 if activation == "softmax" else 1
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < least:
        raise ModelError(
            f"got outputs {outputs!r}; expected a whole number, {least} or more for {activation}")
