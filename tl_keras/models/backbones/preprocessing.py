"""The scaling a base expects, as one stock layer behind the input.

"caffe": BGR, mean (103.939, 116.779, 123.68) taken off. "tf": x / 127.5 - 1. "torch":
x / 255, mean (0.485, 0.456, 0.406) taken off, divided by (0.229, 0.224, 0.225). Each is
`x * scale + offset` per channel, and so is a chain of them. The order BGR is folded into the
first kernel instead, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.graph import steps
from tl_keras.models.rewrite import Rewriter, stable_names

if TYPE_CHECKING:
    import keras

__all__ = ["LAYER", "Scaling", "read_chain", "scaling_of", "swap_channels", "with_scaling"]

LAYER = "input_scaling"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)


@dataclass(frozen=True, eq=False)
class Scaling:
    """y = x * scale + offset, per channel in RGB order.

    Attributes:
        scale: float64 (3,).
        offset: float64 (3,).
        swapped: Whether the weights behind it expect BGR.
        layers: The layers of a model that were read as this scaling.
    """

    scale: np.ndarray
    offset: np.ndarray
    swapped: bool = False
    layers: tuple[Any, ...] = ()

    def then(self, other: Scaling) -> Scaling:
        """This scaling, followed by another one."""
        return Scaling(self.scale * other.scale, self.offset * other.scale + other.offset,
                       self.swapped, self.layers + other.layers)


def _of(scale: Any, offset: Any, **more: Any) -> Scaling:
    return Scaling(np.broadcast_to(np.asarray(scale, np.float64), 3).copy(),
                   np.broadcast_to(np.asarray(offset, np.float64), 3).copy(), **more)


def scaling_of(kind: str) -> Scaling:
    """The scaling of a name: "caffe", "tf", "torch" or "included" (none).

    Raises:
        ModelError: For another name.
    """
    if kind == "caffe":
        return _of(1.0, [-mean for mean in CAFFE_MEAN_RGB], swapped=True)
    if kind == "tf":
        return _of(1 / 127.5, -1.0)
    if kind == "torch":
        deviation = np.array(IMAGENET_DEVIATION)
        return _of(1 / (255 * deviation), -np.array(IMAGENET_MEAN) / deviation)
    if kind == "included":
        return _of(1.0, 0.0)
    raise ModelError(f"got scaling {kind!r}; expected caffe, tf, torch or included")


def _read(layer: Any) -> Scaling | None:
    import keras

    if isinstance(layer, keras.layers.Rescaling):
        return _of(layer.scale, layer.offset, layers=(layer,))
    if isinstance(layer, keras.layers.Normalization) and not layer.invert:
        mean: np.ndarray = np.ravel(keras.ops.convert_to_numpy(layer.mean)).astype(float)
        variance: np.ndarray = np.ravel(keras.ops.convert_to_numpy(layer.variance)).astype(float)
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        return _of(1 / deviation, -mean / deviation, layers=(layer,))
    return None


def read_chain(model: keras.Model) -> Scaling:
    """What the Rescaling and Normalization layers right behind a model's input do together.

    Args:
        model: A functional model with one input (None, h, w, 3).

    Returns:
        Their product; no layers and no change when there are none.
    """
    found = _of(1.0, 0.0)
    tensor = model.inputs[0]
    walk = steps(model)
    while True:
        users = [step for step in walk if any(x is tensor for x in step.inputs)]
        part = _read(users[0].operation) if len(users) == 1 else None
        if part is None:
            return found
        found, tensor = found.then(part), users[0].outputs[0]


def _is_identity(scaling: Scaling) -> bool:
    return bool(np.all(scaling.scale == 1.0) and np.all(scaling.offset == 0.0))


def _simplest(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if np.all(values == values[0]) else [float(v) for v in values]


def with_scaling(model: keras.Model, scaling: Scaling, name: str) -> keras.Model:
    """A flat copy of a base behind its scaling, for raw RGB.

    Args:
        model: The base, one input (None, size, size, 3).
        scaling: What comes before; `scaling.layers` are left out of the copy, since it does
            what they do.
        name: Name of the new model.

    Returns:
        A flat functional model, float32 input named `pixels`, in RGB 0..255. Layers that
        Keras named are numbered from the model's own start.
    """
    import keras

    entry = keras.Input(tuple(model.inputs[0].shape)[1:], name="pixels")
    x = entry
    if not _is_identity(scaling):
        x = keras.layers.Rescaling(
            _simplest(scaling.scale), _simplest(scaling.offset), name=LAYER)(x)
    skip = {id(layer) for layer in scaling.layers}
    rewriter = Rewriter(stable_names(model, skip), skip)
    outputs = rewriter.run(model, [x])
    rewriter.copy_weights()
    return keras.Model(entry, outputs[0], name=name)


def swap_channels(model: keras.Model) -> None:
    """Turn the input channels of the first kernel round, in place: BGR weights take RGB.

    Raises:
        ModelError: When the first layer with weights is no convolution over three channels.
    """
    first: Any = next((layer for layer in model.layers if layer.weights), None)
    shape = tuple(first.weights[0].shape) if first is not None else ()
    if len(shape) != 4 or shape[2] != 3:
        raise ModelError(
            f"the first weights have shape {shape}; expected a convolution over RGB channels")
    kernel, *others = first.get_weights()
    first.set_weights([kernel[:, :, ::-1, :], *others])
