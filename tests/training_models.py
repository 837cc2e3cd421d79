"""Small models and samples that the tests of training share."""

from __future__ import annotations

import numpy as np

from tl_keras.data.samples import Samples, from_arrays
from tl_keras.data.splits import Splits


def small_model(outputs: int = 3, dropout: float = 0.0, size: int = 16):
    """A base of two blocks with BatchNorm, and a head: raw RGB in, softmax out."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    inputs = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, -1.0, name="scaling")(inputs)
    for number, filters in enumerate((4, 8), 1):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"block{number}_conv")(x)
        x = layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = layers.Activation("relu", name=f"block{number}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="head_avg_pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout_1")(x)
    x = layers.Dense(outputs, name="head_logits")(x)
    x = layers.Activation("softmax", dtype="float32", name="head_predictions")(x)
    return keras.Model(inputs, x, name="small")


def nested_model(kind: str = "functional", outputs: int = 3):
    """What Keras' tutorial builds: a frozen base within a model ("twice": with a layer's twin)."""
    import keras
    from keras import layers

    whole = small_model(outputs)
    base = keras.Model(whole.inputs, whole.get_layer("block2_relu").output, name="base")
    base.trainable = False
    pool, out = layers.GlobalAveragePooling2D(name="pool"), layers.Dense(outputs, "softmax",
                                                                         name="out")
    if kind == "sequential":
        return keras.Sequential([base, pool, out])
    inputs = keras.Input((16, 16, 3))
    if kind == "twice":
        noise = keras.Sequential([layers.GaussianNoise(0.0, name="scaling")])
        return keras.Model(inputs, out(pool(base(noise(inputs)))))
    return keras.Model(inputs, out(pool(base(inputs, training=False))))


def small_transformer(pooling: str = "avg", outputs: int = 3):
    """Patches, two blocks of attention and dense layers, and a user's own head."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 4, strides=4, name="patches")(layers.Rescaling(1 / 255)(inputs))
    x = layers.Reshape((16, 12))(x)
    for block in (1, 2):
        y = layers.LayerNormalization(name=f"block{block}_norm")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 6, name=f"block{block}_mha")(y, y)])
        x = layers.Add()([x, layers.Dense(12, "relu", name=f"block{block}_dense")(x)])
    x = layers.LayerNormalization(name="last_norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x) if pooling == "avg" else x[:, 0]
    x = layers.Dropout(0.1, name="drop")(x)
    return keras.Model(inputs, layers.Dense(outputs, "softmax", name="mine")(x), name="vit")


def coloured(count: int, seed: int, classes: int = 3) -> Samples:
    """Noisy pictures whose class is the colour channel that is brightest."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pictures = generator.integers(0, 120, (count, 16, 16, 3))
    pictures[np.arange(count), :, :, labels] += 60
    return from_arrays(pictures.astype(np.uint8), labels, ["red", "green", "blue"][:classes])


def splits(train: int = 48, val: int = 18) -> Splits:
    """Training and validation pictures of three colours."""
    return Splits(coloured(train, 0), coloured(val, 1), None)


def weights_of(model) -> dict[str, np.ndarray]:
    """Every weight by its path."""
    return {weight.path: weight.numpy().copy() for weight in model.weights}
