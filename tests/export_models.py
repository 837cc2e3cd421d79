"""Small models and pictures for the tests of the way out."""

from __future__ import annotations

import numpy as np


def small_model(activation="softmax", size=16, outputs=3):
    """Scaling, convolution, batch normalisation, pooling and a head: one of each kind."""
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    inputs = layers.Input((size, size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    norm = layers.BatchNormalization()
    x = layers.ReLU(6.0)(norm(x))
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(x))
    x = layers.Dense(outputs, name="head_logits")(layers.Dropout(0.5)(x))
    x = layers.Activation(activation, dtype="float32", name="head_predictions")(x)
    rng = np.random.default_rng(7)
    norm.set_weights([rng.uniform(0.5, 1.5, 8).astype("float32") for _ in range(4)])
    return keras.Model(inputs, x, name="small")


def pictures(count, size=16):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def settle(model, batch):
    """Set the moving statistics to those of one batch: else untrained signals die away."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(batch.astype("float32"), training=True)


def images(count, size=16):
    return {"image": pictures(count, size)}


def int8(model, batch, output="float32"):
    """The contents of a .tflite file in int8 that takes uint8 pictures."""
    import tensorflow as tf

    from export.convert import tflite

    def configure(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[None].astype("float32")] for one in batch)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = getattr(tf, output)

    return tflite.convert(model, configure=configure)
