from __future__ import annotations

import numpy as np
import pytest

from export.compress.graph import ENTRY, fold_trainable, make_quantizable
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()


def answers(model, batch):
    return np.asarray(model(batch, training=False))


def batch(size=8):
    return np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype("float32")


def lively(model):
    """Weights and statistics that no initializer gives."""
    rng = np.random.default_rng(5)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) if "variance" in w.name
                           else rng.normal(0.2, 0.3, w.shape) for w in layer.weights])  # fmt: skip
    return model


def of_layers(*layers):
    import keras

    scaling = keras.layers.Rescaling(1 / 127.5, -1.0, name="scaling")
    return lively(keras.Sequential([keras.Input((8, 8, 3)), scaling, *layers]))


FOLDED = {
    "convolution": lambda k: [k.Conv2D(4, 3, use_bias=False), k.BatchNormalization()],
    "with a bias": lambda k: [k.Conv2D(4, 3), k.BatchNormalization(scale=False), k.ReLU()],
    "depthwise": lambda k: [k.DepthwiseConv2D(3, depth_multiplier=2), k.BatchNormalization()],
    "separable": lambda k: [k.SeparableConv2D(4, 3), k.BatchNormalization(center=False)],
    "dense": lambda k: [k.Flatten(), k.Dense(4), k.BatchNormalization()],
}
KEPT = {
    "behind an activation": lambda k: [k.Conv2D(4, 3, activation="relu"), k.BatchNormalization()],
    "in front of a convolution": lambda k: [k.BatchNormalization(), k.Conv2D(4, 3)],
    "of another axis": lambda k: [k.Conv2D(4, 3), k.BatchNormalization(axis=1)],
}


def normalisations(model):
    return [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]


@pytest.mark.parametrize("build", FOLDED.values(), ids=FOLDED)
def test_a_normalisation_behind_a_kernel_is_folded_and_nothing_changes(build):
    import keras

    model = of_layers(*build(keras.layers))
    made = fold_trainable(model)
    assert normalisations(model) and not normalisations(made)
    np.testing.assert_allclose(answers(made, batch()), answers(model, batch()), atol=2e-6)


@pytest.mark.parametrize("build", KEPT.values(), ids=KEPT)
def test_a_normalisation_that_cannot_be_folded_stays(build):
    import keras

    model = of_layers(*build(keras.layers))
    made = fold_trainable(model)
    assert len(normalisations(made)) == 1
    assert not normalisations(made)[0].trainable, "its statistics must stay"
    np.testing.assert_allclose(answers(made, batch()), answers(model, batch()), atol=2e-6)


def test_a_kernel_whose_output_is_read_twice_keeps_its_normalisation():
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, keras.layers.Add()([x, keras.layers.BatchNormalization()(x)]))
    made = fold_trainable(lively(model))
    assert len(normalisations(made)) == 1
    np.testing.assert_allclose(answers(made, batch()), answers(model, batch()), rtol=1e-5)


def test_what_integers_cannot_compute_becomes_convolutions_of_the_same_function():
    import keras

    k = keras.layers
    model = of_layers(k.BatchNormalization(), k.SeparableConv2D(4, 3, activation="relu"),
                      k.Conv2D(5, 2, activation="sigmoid"), k.GlobalAveragePooling2D(),
                      k.Dense(3, "softmax"))  # fmt: skip
    made = make_quantizable(fold_trainable(model))
    kinds = {type(layer).__name__ for layer in made.layers}
    assert not kinds & {"Rescaling", "BatchNormalization", "SeparableConv2D"}
    assert made.layers[1].name == ENTRY
    np.testing.assert_allclose(answers(made, batch()), answers(model, batch()), atol=1e-6)
    assert not made.get_layer("scaling").trainable
    assert all(layer.trainable for layer in made.layers if layer.name != "scaling")
