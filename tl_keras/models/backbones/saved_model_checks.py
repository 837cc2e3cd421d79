"""Compares a rewritten base with the SavedModel that it was made of, on photos."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.graph_layers import Rewritten
from tl_keras.models.backbones.saved_model_folder import Module

if TYPE_CHECKING:
    import keras

__all__ = ["TOLERANCE", "check_equal", "difference", "follow_training", "photos"]

_LOG = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of features, as a part of the largest feature."""

_TRAINING_TOLERANCE = 1e-3
"""The same in training mode, where the variance of few images is a divisor."""


def photos(size: int) -> np.ndarray:
    """Return four cuts of the two photos that scikit-learn ships.

    Returns:
        float32 (4, size, size, 3), RGB 0..255.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    cuts = []
    for photo in load_sample_images().images:
        image = Image.fromarray(photo)
        side = min(image.size)
        for left in (0, image.width - side):
            box = (left, 0, left + side, side)
            cuts.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box)))
    return np.stack(cuts).astype(np.float32)


def difference(wanted: np.ndarray, got: np.ndarray) -> float:
    """Return the largest difference as a part of the largest value; infinite where none is."""
    if wanted.shape != got.shape or not np.all(np.isfinite(wanted)):
        return float("inf")
    largest = float(np.max(np.abs(wanted))) or 1.0
    return float(np.max(np.abs(wanted - got))) / largest


def check_equal(what: str, wanted: np.ndarray, got: np.ndarray) -> None:
    """Refuse a base whose values are not those of the SavedModel.

    Raises:
        ModelError: They differ by more than `TOLERANCE`.
    """
    found = difference(wanted, got)
    if not found <= TOLERANCE:
        raise ModelError(
            f"{what} of the rewritten base differ from the SavedModel's own by {found:.2g} of "
            f"their range, expected at most {TOLERANCE:g}")


def follow_training(module: Module, rewritten: Rewritten, images: np.ndarray) -> None:
    """Compare with the SavedModel in training mode, and take over how slowly BatchNorm averages.

    What differs there is told, not refused: bases are frozen at first, and their BatchNorm stays
    in inference mode unless asked otherwise.

    Args:
        module: The SavedModel.
        rewritten: What was made of it; its weights are as before in the end.
        images: float32, as the SavedModel takes them.
    """
    import tensorflow as tf

    if module.train is None:
        return
    model = rewritten.model
    before = model.get_weights()
    try:
        wanted = np.asarray(module.train(tf.constant(images)))
        after = {id(variable.handle): variable.numpy() for variable in module.variables
                 if variable.dtype.is_floating}
        again = np.asarray(module.train(tf.constant(images)))
    except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
        _LOG.warning("the SavedModel does not run in training mode here (%s)",
                     " ".join(str(error).split())[:100])
        return
    old = {layer.name: [np.array(w) for w in layer.get_weights()] for layer in model.layers}
    got = np.asarray(model(images, training=True))
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    found = [_momentum(layer, old[layer.name][-2], rewritten.variables[layer.name][-2], after)
             for layer in norms]
    known = [momentum for momentum in found if momentum is not None]
    for layer in norms if known else ():
        layer.momentum = round(float(np.median(known)), 3)  # of all: some see random images
    model.set_weights(before)
    if difference(wanted, again) > TOLERANCE:
        _LOG.info("in training mode the SavedModel is random (dropout), which the base is not")
        return
    apart = difference(wanted, got)
    if apart > _TRAINING_TOLERANCE:
        _LOG.warning(
            "in training mode the base differs from the SavedModel by %.2g of its range", apart)


def _momentum(layer: keras.Layer, mean: np.ndarray, resource: Any,
              after: dict[int, np.ndarray]) -> float | None:
    """Find the momentum by which the SavedModel moved a mean that this layer moved too.

    Both started at `mean` and saw the same images: new = momentum * mean + (1 - momentum) * seen.
    """
    moved = after.get(id(resource))
    if moved is None or moved.shape != mean.shape:
        return None
    own = np.asarray(layer.moving_mean) - mean
    channel = int(np.argmax(np.abs(own)))
    if own[channel] == 0.0:
        return None
    seen = own[channel] / (1.0 - layer.momentum)
    return float(np.clip(1.0 - (moved - mean)[channel] / seen, 0.0, 1.0))
