from __future__ import annotations

import keras
import numpy as np
import pytest

from tl_keras.errors import ModelError
from tl_keras.models.build import build_model
from tl_keras.models.heads import Head


def base(size: int = 6, channels: int = 4) -> keras.Model:
    """A feature map that is the picture's own: a 1 x 1 convolution with fixed weights."""
    x = keras.Input((size, size, 3))
    return keras.Model(x, keras.layers.Conv2D(channels, 1, name="features")(x))


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False))


def features(model: keras.Model, x: np.ndarray) -> np.ndarray:
    kernel, bias = model.get_layer("features").get_weights()
    return x @ kernel[0, 0] + bias


def vector(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return run(keras.Model(model.inputs[0], model.get_layer("head_logits").input), x)


POOLED = {
    "avg": lambda f: f.mean(axis=(1, 2)),
    "max": lambda f: f.max(axis=(1, 2)),
    "avg+max": lambda f: np.concatenate([f.mean(axis=(1, 2)), f.max(axis=(1, 2))], axis=1),
    "gem": lambda f: np.cbrt((np.maximum(f, 0) ** 3).mean(axis=(1, 2)) + 1e-6),
    "flatten": lambda f: f.reshape(len(f), -1),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_pooling_gives_what_numpy_gives(pooling):
    model = build_model(base(), 3, head=Head(pooling=pooling))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    expected = POOLED[pooling](features(model, x))
    np.testing.assert_allclose(vector(model, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", [*POOLED, "first"])
def test_a_sequence_is_pooled_over_its_tokens(pooling):
    x = keras.Input((6, 6, 3))
    tokens = keras.layers.Reshape((-1, 4))(keras.layers.Conv2D(4, 1, name="features")(x))
    model = build_model(keras.Model(x, tokens), 3, head=Head(pooling=pooling))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    maps = features(model, images)
    expected = maps[:, 0, 0] if pooling == "first" else POOLED[pooling](maps)
    np.testing.assert_allclose(vector(model, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLED)
def test_every_layer_of_the_head_says_so_in_its_name(pooling):
    model = build_model(base(), 3, head=Head(pooling=pooling, dense=(5, 4), dropout=0.1))
    after = [op.name for op in model.operations[2:]]
    assert all(name.startswith("head_") for name in after)
    assert after[-6:] == ["head_dense_1", "head_dropout_1", "head_dense_2", "head_dropout_2",
                          "head_logits", "head_predictions"]


def test_two_models_of_a_process_have_the_same_names():
    names = [[op.name for op in build_model(
        "small_resnet", 2, weights=None, head=Head(pooling="gem")).operations]
        for _ in range(2)]
    assert names[0] == names[1]


def test_the_slope_of_gem_is_finite_where_nothing_is_positive():
    import tensorflow as tf

    model = build_model(base(), 2, head=Head(pooling="gem"))
    model.get_layer("features").set_weights([np.zeros((1, 1, 3, 4)), np.zeros(4)])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(np.zeros((1, 6, 6, 3), "float32"))[:, 0])
    for slope in tape.gradient(loss, model.trainable_variables):
        assert np.isfinite(slope.numpy()).all()


@pytest.mark.parametrize(("activation", "check"), [
    ("softmax", lambda y: np.allclose(y.sum(axis=1), 1, atol=1e-6)),
    ("sigmoid", lambda y: ((y > 0) & (y < 1)).all() and not np.allclose(y.sum(axis=1), 1)),
    ("linear", lambda y: (y < 0).any()),
])
def test_the_output_is_of_its_kind(activation, check):
    model = build_model(base(), 6, head=Head(activation=activation))
    x = np.random.default_rng(3).normal(size=(8, 6, 6, 3)).astype("float32") * 3
    assert check(run(model, x))


def test_predictions_are_float32_under_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model(base(), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("head_logits").compute_dtype == "bfloat16"
    assert run(model, np.zeros((1, 6, 6, 3))).dtype == np.float32


@pytest.mark.parametrize("options", [
    {"head": Head(pooling="none")}, {"features": "mine"}, {"features": "mine", "head": Head("max")},
])
def test_a_vector_is_taken_as_it_is(options):
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, keras.layers.GlobalMaxPooling2D(name="mine")(x))
    built = build_model(model, 2, **options)
    assert [layer.name for layer in built.layers[1:]] == [
        "mine", "head_logits", "head_predictions"]


@pytest.mark.parametrize(("values", "said"), [
    ({"pooling": "median"}, "avg"), ({"activation": "relu"}, "softmax"),
    ({"dropout": 1.0}, "below 1"), ({"dense": (0,)}, "1 or more"), ({"dense": (2.5,)}, "whole"),
])
def test_a_head_that_makes_no_sense_is_refused(values, said):
    with pytest.raises(ModelError, match=said):
        Head(**values)


@pytest.mark.parametrize(("outputs", "head", "said"), [
    (1, Head(), "2 or more"), (0, Head(activation="sigmoid"), "1 or more"),
    (2, Head(pooling="none"), "choose a pooling"), (2, Head(pooling="first"), "avg, max"),
])
def test_a_head_that_does_not_fit_is_refused(outputs, head, said):
    with pytest.raises(ModelError, match=said):
        build_model(base(), outputs, head=head)


def test_one_number_is_one_dense_layer():
    assert Head(dense=256).dense == (256,)
    assert Head(dense=[3, 2]).dense == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLED)
def test_every_pooling_converts_to_tflite(pooling):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = build_model(base(), 3, head=Head(pooling=pooling, dense=(4,), dropout=0.2))
    converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = Interpreter(model_content=converted)
    interpreter.allocate_tensors()
    x = np.random.default_rng(5).normal(size=(1, 6, 6, 3)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, run(model, x), atol=1e-5)
