"""A Keras model as a TensorFlow Lite file in float32."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from export.convert.signature import INPUT, OUTPUT, signature
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["convert"]

ENDPOINT = "serving_default"


def convert(model: keras.Model) -> bytes:
    """Convert a model with its weights in float32.

    The way is over a SavedModel with one signature for batches of one picture, input `image`
    and output `probabilities`: constants are folded and batch normalisation is merged into the
    convolutions, and a device may address both tensors by name.

    Args:
        model: takes float32 (n, height, width, 3), RGB 0..255; gives (n, outputs).

    Returns:
        The contents of the .tflite file.

    Raises:
        ExportError: if the model's shapes are not fixed, or it has an operation that
            TensorFlow Lite does not know.
    """
    shape = signature(model).shape
    start_tensorflow()
    with tempfile.TemporaryDirectory(prefix="tl_keras-") as folder:
        try:
            with silenced() as said:
                _save(model, shape, folder)
                return _converted(folder)
        except Exception as error:
            raise ExportError(
                f"{model.name} cannot be converted to TensorFlow Lite: {error}\n{said.last_lines()}"
            ) from error


def _save(model: keras.Model, shape: tuple[int, ...], folder: str) -> None:
    import keras

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = keras.InputSpec(shape=(1, *shape), dtype="float32", name=INPUT)
    archive.add_endpoint(ENDPOINT, _named(model), input_signature=[spec])
    archive.write_out(folder, verbose=False)


def _named(model: keras.Model) -> Callable:
    import tensorflow as tf

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: tf.cast(model(image, training=False), tf.float32)}

    return serve


def _converted(folder: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        os.fspath(folder), signature_keys=[ENDPOINT]
    )
    return converter.convert()
