"""Whole models that Keras 2 saved as .h5 give the same answers in Keras 3."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from tl_keras.errors import ModelError
from tl_keras.models.backbones.weights import load_user_model
from tl_keras.models.build import build_model


@pytest.fixture(scope="module")
def k2():
    import tf_keras

    return tf_keras


def sequential(k2):
    layers = k2.layers
    return k2.Sequential([
        layers.InputLayer((16, 16, 3)), layers.Rescaling(1 / 255), layers.SeparableConv2D(5, 3),
        layers.BatchNormalization(), layers.DepthwiseConv2D(3), layers.LeakyReLU(0.2),
        layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")])


def nested(k2):
    layers = k2.layers
    x = layers.Input((16, 16, 3))
    y = layers.Conv2D(4, 1, name="fire/squeeze")(x)
    y = layers.BatchNormalization(trainable=False)(y)
    y = layers.Concatenate()([layers.Conv2D(3, 1)(y), layers.Conv2D(3, 3, padding="same")(y)])
    base, z = k2.Model(x, y, name="base"), layers.Input((16, 16, 3))
    pooled = layers.GlobalAveragePooling2D()(base(z, training=False))
    return k2.Model(z, layers.Dense(3)(pooled))


def operators(k2):
    import tensorflow as tf

    layers, x = k2.layers, k2.layers.Input((16, 16, 3))
    y = x / 127.5 - [0.5, 0.4, 0.3]
    a, b = layers.Conv2D(4, 1)(y), layers.Conv2D(4, 1)(y)
    y = tf.nn.relu6((2.0 - a) * b + a) - b * 0.5
    return k2.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def mobilenet(k2):
    return k2.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=5)


@pytest.mark.parametrize("make", [sequential, nested, operators, mobilenet])
def test_a_model_of_keras_2_is_taken_over_with_its_answers(k2, tmp_path, make):
    source = make(k2)
    generator = np.random.default_rng(0)
    source.set_weights([np.abs(generator.normal(0.3, 0.1, one.shape))
                        for one in source.get_weights()])
    source.save(tmp_path / "old.h5")
    x = generator.uniform(0, 255, (2, *source.input_shape[1:])).astype("float32")
    expected = source.predict(x, verbose=0)
    model = load_user_model(tmp_path / "old.h5")
    assert {type(one).__module__.split(".")[0] for one in model.layers} == {"keras"}
    found = np.asarray(model(x, training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert build_model(tmp_path / "old.h5", 2).output_shape == (None, 2)
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def test_a_lambda_is_refused_by_name_and_never_run(k2, tmp_path):
    place = str(tmp_path / "it_ran")
    model = k2.Sequential([k2.layers.InputLayer((8, 8, 3)), k2.layers.Lambda(
        lambda x: (open(place, "w").close(), x)[1], name="mine")])
    Path(place).unlink()
    model.save(tmp_path / "old.h5")
    with pytest.raises(ModelError, match=r"Keras 2.*'mine' is a Lambda"):
        load_user_model(tmp_path / "old.h5")
    assert not Path(place).exists()


def test_what_cannot_be_taken_over_says_why(k2, tmp_path):
    model = sequential(k2)
    model.save_weights(tmp_path / "weights.h5")
    with pytest.raises(ModelError, match=r"weights of Keras 2.*load_weights"):
        load_user_model(tmp_path / "weights.h5")
    model.save(tmp_path / "old.keras")
    with pytest.raises(ModelError, match=r"saved by Keras 2.*\.h5"):
        load_user_model(tmp_path / "old.keras")
    odd = k2.Model(model.input, k2.backend.reverse(model.output, 1))
    odd.save(tmp_path / "odd.h5")
    with pytest.raises(ModelError, match=r"tf\.reverse"):
        load_user_model(tmp_path / "odd.h5")


def test_a_file_of_keras_3_is_read_as_ever(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
    model.save(tmp_path / "new.h5")
    assert load_user_model(tmp_path / "new.h5").count_params() == 8
