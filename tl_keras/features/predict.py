"""What a model says about samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.modalities.image.reader import ImageReader

if TYPE_CHECKING:
    import keras

__all__ = ["predict"]


def predict(
    model: keras.Model,
    samples: Samples,
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the model's outputs for samples, in their order.

    Args:
        model: Takes RGB 0..255 (n, size, size, 3).
        samples: What to predict; labels are not looked at.
        batch_size: Pictures a batch.
        progress: Called with what is done and of how much.

    Returns:
        float32 (n, outputs): probabilities for "classes" and "tags", numbers for "values".

    Raises:
        DataError: A picture cannot be read.
    """
    import tensorflow as tf

    size, total = int(model.input_shape[1]), len(samples)
    reader, rows = ImageReader(samples, size), []
    call = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    for first in range(0, total, batch_size):
        indices = range(first, min(first + batch_size, total))
        rows.append(np.asarray(call(tf.cast(reader.images(indices, 0), tf.float32))))
        if progress:
            progress(indices[-1] + 1, total)
    return np.concatenate(rows) if rows else np.zeros((0, model.output_shape[-1]), np.float32)
