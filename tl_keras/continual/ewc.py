"""Weights held near where they were, each as strongly as it matters: EWC and L2-SP.

The pull is a regularizer on each variable, which plain `fit` adds to the loss. It is there
within :func:`anchor_weights` alone, so nothing of it is in a model that is saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.features.backends import Batch, pack_inputs, sort_inputs

if TYPE_CHECKING:
    import keras

__all__ = ["Anchor", "anchor_weights", "fisher", "l2sp"]

_LIKELY = 5  # classes


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where weights should stay, and how much each matters.

    Attributes:
        centers: Value by "layer/variable".
        importance: 0 or more, of the same shapes.
    """

    centers: Mapping[str, np.ndarray]
    importance: Mapping[str, np.ndarray]

    def __add__(self, other: Anchor) -> Anchor:
        """Return one anchor whose pull is that of both, but for a constant.

        F (w - a)² + G (w - b)² = (F + G) (w - (F a + G b) / (F + G))² + constant. A variable
        that has more columns in the other (a head that grew) is filled up with zeros.
        """
        centers, importance = dict(self.centers), dict(self.importance)
        for name, second in other.importance.items():
            first = pad(importance.get(name, np.zeros_like(second)), second.shape)
            center = pad(centers.get(name, np.zeros_like(second)), second.shape)
            both = first + second
            mixed = (first * center + second * other.centers[name]) / np.where(both > 0, both, 1)
            centers[name] = np.where(both > 0, mixed, other.centers[name])
            importance[name] = both
        return Anchor(centers, importance)

    def __mul__(self, factor: float) -> Anchor:
        """Return the anchor with its pull multiplied."""
        return Anchor(self.centers, {n: v * np.float32(factor) for n, v in self.importance.items()})


def pad(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return an array filled up with zeros to a shape that is at least as large.

    Raises:
        ModelError: It does not fit.
    """
    if array.ndim != len(shape) or any(a > b for a, b in zip(array.shape, shape)):
        raise ModelError(f"an anchor of shape {array.shape} does not fit a variable of {shape}")
    return np.pad(array, [(0, b - a) for a, b in zip(array.shape, shape)])


def _name_variables(model: keras.Model) -> dict[str, Any]:
    """The variables of layers that can learn, BatchNorm's statistics left out."""
    import keras

    names: dict[str, Any] = {}
    for layer in model.layers:
        statistics = isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.weights:
            if not (statistics and variable.name.startswith("moving_")):
                names[f"{layer.name}/{variable.name}"] = variable
    return names


def fisher(
    model: keras.Model,
    samples: Batch,
    *,
    labels: np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Anchor:
    """Measure how much each weight matters for what a model says: the diagonal of Fisher's matrix.

    F = mean over x of the expectation over y ~ p(y | x) of (d log p(y | x) / d w)² (Kirkpatrick
    et al., arXiv 1612.00796), calculated over the five likeliest classes rather than drawn: a
    trained model is so sure that draws miss all that the unlikely classes tell. Each sample's
    gradient is taken alone, BatchNorm in inference mode.

    Args:
        model: Gives probabilities (n, classes); trained. For a pretrained base, put a head on
            it and train that first.
        samples: What it was trained on, as the model takes it, (n, ...); a hundred do.
        labels: int (n,), to take instead of the expectation (the "empirical" Fisher matrix).
        progress: Called with the samples done and all of them.

    Returns:
        An anchor at the model's weights.

    Raises:
        ModelError: The model gives no probabilities: a base without a head.
    """
    import tensorflow as tf

    if len(model.outputs[0].shape) != 2:
        raise ModelError(
            f"'{model.name}' gives {tuple(model.outputs[0].shape)}, expected probabilities "
            "(None, classes); put a head on the base (build_model) and train that first"
        )
    names = _name_variables(model)
    variables = [variable.value for variable in names.values()]
    sums = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @tf.function(reduce_retracing=True)
    def answer(picture: Any) -> Any:
        return model(picture, training=False)

    @tf.function(reduce_retracing=True)
    def add(picture: Any, label: Any, share: Any) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            log = tf.math.log(tf.maximum(answer(picture)[0, label], 1e-12))
        gradients = tape.gradient(
            log, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        for sum_, gradient in zip(sums, gradients, strict=True):
            # An embedding's gradient comes as its rows.
            sum_.assign_add(share * tf.convert_to_tensor(gradient) ** 2)

    arrays = sort_inputs(samples, [one.name for one in model.inputs])
    total = len(arrays[0])
    for number in range(total):
        one = pack_inputs(model, [array[number : number + 1] for array in arrays])
        for label, share in _asked(answer, one, None if labels is None else int(labels[number])):
            add(one, tf.constant(label, tf.int32), tf.constant(share, tf.float32))
        progress(number + 1, total)
    shares = (one.numpy() / max(total, 1) for one in sums)
    return Anchor(_values(names), dict(zip(names, shares, strict=True)))


def _asked(
    answer: Callable[[Any], Any], picture: Any, label: int | None
) -> list[tuple[int, float]]:
    """The labels whose gradients count for an image, each with its share."""
    if label is not None:
        return [(label, 1.0)]
    said = np.asarray(answer(picture))[0]
    return [(int(place), float(said[place])) for place in np.argsort(-said)[:_LIKELY]]


def l2sp(model: keras.Model, *, without: Sequence[str] = ()) -> Anchor:
    """Hold every weight alike: "L2-SP", a decay towards the start (Li et al., arXiv 1802.01483).

    Args:
        model: The start.
        without: Layers that are free.
    """
    names = {n: v for n, v in _name_variables(model).items() if n.split("/")[0] not in without}
    values = _values(names)
    return Anchor(values, {name: np.ones_like(value) for name, value in values.items()})


def _values(names: Mapping[str, Any]) -> dict[str, np.ndarray]:
    import keras

    return {n: np.array(keras.ops.convert_to_numpy(variable)) for n, variable in names.items()}


class _Pull:
    """strength / 2 * sum of importance * (variable - center)², as a Keras regularizer."""

    def __init__(self, center: np.ndarray, importance: np.ndarray, strength: float) -> None:
        import keras

        # Variables, not constants: a graph may hold at most 2 GB of those.
        make = keras.Variable
        self.center = make(center, trainable=False, dtype="float32")
        self.weights = make(importance * np.float32(strength / 2), trainable=False, dtype="float32")

    def __call__(self, variable: Any) -> Any:
        import keras

        return keras.ops.sum(self.weights * keras.ops.square(variable - self.center))


@contextlib.contextmanager
def anchor_weights(model: keras.Model, anchor: Anchor, strength: float = 1.0) -> Iterator[None]:
    """Hold a model's weights while it is trained within this context.

    The penalty strength / 2 * sum F (w - w*)² is added to the loss of whatever fit trains the
    model or a part of it. A head that has grown is held in its old columns alone.

    Args:
        model: Its variables get a regularizer; afterwards they have what they had.
        anchor: From :func:`fisher` or :func:`l2sp`.
        strength: 0 or more.

    Raises:
        ModelError: The anchor is of another model.
    """
    names = _name_variables(model)
    if missing := sorted(set(anchor.centers) - set(names)):
        raise ModelError(
            f"the anchor holds {missing[0]}, which '{model.name}' lacks: it is of another model"
        )
    before = {name: names[name].regularizer for name in anchor.centers}
    try:
        for name, center in anchor.centers.items():
            shape = tuple(names[name].shape)
            parts = pad(center, shape), pad(anchor.importance[name], shape)
            names[name].regularizer = _Pull(*parts, strength)
        yield
    finally:
        for name, regularizer in before.items():
            names[name].regularizer = regularizer
