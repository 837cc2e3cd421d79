"""Where a classifier looks: heatmaps of what speaks for a class, laid over images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError
from tl_keras.models import graph
from tl_keras.models.logits import logits_of

if TYPE_CHECKING:
    import keras
    from PIL.Image import Image

    from tl_keras.data.samples import Samples
    from tl_keras.evaluation.mistakes import Mistake

__all__ = ["add_heatmaps", "grad_cam", "lay_over"]


def grad_cam(
    model: keras.Model, inputs: Sequence[np.ndarray], classes: Sequence[int]
) -> np.ndarray | None:
    """Return which places of the last feature map speak for a class.

    Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): the channels of the map where the features
    end, weighted by the mean gradient of the class's logit, what is below 0 left out.

    Args:
        model: a classifier of n samples; any backbone that ends in a map (None, h, w, channels).
        inputs: one array (n, ...) for each input of the model.
        classes: for each sample the output to explain.

    Returns:
        float32 (n, h, w), 0..1 with 1 at each sample's strongest place (all 0 where nothing speaks
        for the class); None where the features are no map, as a transformer's.
    """
    import keras
    import tensorflow as tf

    point = graph.feature_point(model)
    if len(point.shape) != 4:
        return None
    try:
        answer = logits_of(model)
    except ExportError:
        answer = model.outputs[0]
    prefix = keras.Model(graph.alone(model.inputs), point.tensor)
    suffix = keras.Model(point.tensor, answer)
    maps = tf.cast(prefix(graph.alone([tf.constant(one) for one in inputs])), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = tf.cast(suffix(maps), tf.float32)
        chosen = tf.gather(logits, tf.constant(list(classes), tf.int32), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    heat = np.maximum(tf.reduce_sum(weights * maps, axis=-1).numpy(), 0.0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


def lay_over(image: Image, heat: np.ndarray) -> Image:
    """Return an image with its heatmap over it: yellow where it is strongest, then red, then none.

    Args:
        image: RGB; the whole of what the model saw.
        heat: (h, w), 0..1.
    """
    from PIL.Image import Resampling, fromarray

    small = fromarray((255 * np.asarray(heat)).astype(np.uint8))
    share = np.asarray(small.resize(image.size, Resampling.BICUBIC), float)[..., None] / 255
    color = np.concatenate([np.full_like(share, 255), 230 * share**2, np.zeros_like(share)], axis=2)
    pixels = np.asarray(image.convert("RGB"), float)
    gray = pixels.mean(axis=2, keepdims=True)
    faded = 0.5 * pixels + 0.5 * gray
    return fromarray(((1 - 0.65 * share) * faded + 0.65 * share * color).astype(np.uint8))


def add_heatmaps(
    model: keras.Model, samples: Samples, mistakes: Sequence[Mistake]
) -> list[Mistake]:
    """Return mistakes with heatmaps of what spoke for the wrong class.

    Args:
        model: made them.
        samples: that it was asked about.
        mistakes: of these samples, see :func:`tl_keras.evaluation.mistakes.collect_mistakes`.

    Returns:
        The same without heatmaps where they are no images, or the backbone ends in no map.
    """
    shown = [one for one in mistakes if one.preview is not None and one.index >= 0]
    if samples.modality.name != "image" or not shown:
        return list(mistakes)
    batch: dict[str, Any] = samples.reader(model).read([one.index for one in shown])
    heats = grad_cam(model, list(batch.values()), [one.places[1] for one in shown])
    if heats is None:
        return list(mistakes)
    laid = {
        one.index: lay_over(one.preview, heat)  # type: ignore[arg-type]
        for one, heat in zip(shown, heats, strict=True) if heat.any()
    }  # fmt: skip
    return [dataclasses.replace(one, heatmap=laid.get(one.index)) for one in mistakes]
