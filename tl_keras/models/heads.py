"""Heads: pooling, dense layers and the output that go on top of a base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["ACTIVATIONS", "POOLINGS", "Head", "attach", "pool"]

POOLINGS = ("avg", "max", "avg+max", "gem", "flatten", "first", "none")
ACTIVATIONS = ("softmax", "sigmoid", "linear", "softplus", "exponential", "tanh")
GEM_POWER = 3.0
_GEM_FLOOR = 1e-6


@dataclass(frozen=True)
class Head:
    """What goes on top of a base.

    Attributes:
        pooling: How the features, a map (h, w, c) or a sequence (t, c), become a vector: "avg"
            and "max" over positions (c values), "avg+max" both side by side (2 c), "gem" the
            generalized mean with power 3 over positive parts (Radenovic et al. 2019,
            arXiv 1711.02512; c), "flatten" all positions (h w c), "first" the first token of a
            sequence (c). Features that are a vector already stay as they are. "none" takes a
            model's whole output, which must be a vector.
        dense: Units of the hidden layers, bottom to top, each with ReLU.
        dropout: Share of values dropped before each dense layer's successor and before the
            output, 0 to below 1. 0 adds no layer.
        activation: One of `ACTIVATIONS`, as the task asks for: "softmax" (one class a sample),
            "sigmoid" (several labels a sample), "linear" (regression)...
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


def _rename(x: Any, name: str) -> Any:
    x._keras_history.operation.name = name
    return x


def _gem(x: Any, name: Callable[[str], str]) -> Any:
    """Mean of cubes over positions, then the cube root; all of it loads without tl_keras."""
    import keras
    from keras import layers

    x = layers.ReLU(name=name("head_gem_positive"))(x)
    x = layers.Multiply(name=name("head_gem_cube"))([x, x, x])
    mean = layers.GlobalAveragePooling2D if len(x.shape) == 4 else layers.GlobalAveragePooling1D
    x = mean(name=name("head_gem_mean"))(x)
    # The slope of a cube root at zero is infinite.
    x = layers.Rescaling(1.0, _GEM_FLOOR, name=name("head_gem_floor"))(x)
    return _rename(keras.ops.power(x, 1.0 / GEM_POWER), name("head_gem_root"))


def pool(x: Any, pooling: str, name: Callable[[str], str] = str) -> Any:
    """Make a vector (None, d) of features, by stock layers named head_*.

    Args:
        x: A Keras tensor: a map (None, h, w, c), a sequence (None, t, c) or a vector
            (None, d), which stays as it is.
        pooling: One of `POOLINGS`, see :class:`Head`.
        name: Gives a layer's name, or another where it is taken.

    Raises:
        ModelError: The pooling is unknown or does not fit the shape.
    """
    from keras import layers

    rank = len(x.shape)
    if pooling not in POOLINGS:
        raise ModelError(f"got pooling {pooling!r}; expected one of {_list(POOLINGS)}")
    if rank == 2:
        return x
    ways = ("flatten",) if rank not in (3, 4) else POOLINGS[:-1] if rank == 3 else POOLINGS[:-2]
    if pooling not in ways:
        raise ModelError(
            f"the features have shape {tuple(x.shape)}, which pooling {pooling!r} does not take; "
            f"choose a pooling of {_list(ways)}")
    if pooling == "flatten":
        return layers.Flatten(name=name("head_flatten"))(x)
    if pooling == "first":
        return _rename(x[:, 0], name("head_first"))
    if pooling == "gem":
        return _gem(x, name)
    average, maximum = (
        (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
        if rank == 4
        else (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
    )
    vectors = [average(name=name("head_avg_pool"))(x)] if "avg" in pooling else []
    vectors += [maximum(name=name("head_max_pool"))(x)] if "max" in pooling else []
    if len(vectors) == 1:
        return vectors[0]
    return layers.Concatenate(name=name("head_concat"))(vectors)


def attach(base: keras.Model, head: Head, outputs: int) -> Any:
    """Put a head on a base.

    Args:
        base: A functional model that gives a feature map (None, h, w, c), a sequence
            (None, t, c) or a vector (None, c).
        head: The head.
        outputs: Number of outputs, 1 or more; 2 or more for softmax.

    Returns:
        The predictions, a float32 Keras tensor (None, outputs). Layers are named head_*.

    Raises:
        ModelError: When the number of outputs or the base's shape does not fit the head.
    """
    from keras import layers

    _check_outputs(outputs, head.activation)
    x = pool(base.outputs[0], head.pooling)
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
