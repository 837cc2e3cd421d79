from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from export_models import settle, small_model

from export.compress.keras2.convert import from_keras2, to_keras2
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()


def answers(model, *inputs):
    return np.asarray(model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))


def assert_twins(model, *inputs):
    """There and back again, equal both times; returns both."""
    twin = to_keras2(model)
    again = from_keras2(twin)
    expected = answers(model, *inputs)
    scale = max(1.0, float(np.abs(expected).max()))
    assert float(expected.std()) > 1e-3, "an output without variety proves nothing"
    np.testing.assert_allclose(answers(twin, *inputs), expected, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(answers(again, *inputs), expected, rtol=0, atol=1e-6 * scale)
    return twin, again


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def unfamiliar(model, seed=3):
    """Give every weight a value that no initializer gives, variances positive."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ != "Normalization":
            layer.set_weights([np.abs(rng.normal(0.3, 0.3, w.shape)) + 0.01
                               if "variance" in w.name else rng.normal(0.1, 0.3, w.shape)
                               for w in layer.weights])  # fmt: skip
    return model


def of_layers(*layers, shape=(6, 6, 3)):
    import keras

    return unfamiliar(keras.Sequential([keras.Input(shape), *layers]))


def test_a_small_model_has_an_equal_counterpart_of_the_same_layers():
    model, pictures = small_model(), np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3))
    settle(model, pictures)
    twin, again = assert_twins(model, pictures.astype("float32"))
    assert {type(layer).__module__.split(".")[0] for layer in twin.layers} == {"tf_keras"}
    assert {type(layer).__module__.split(".")[0] for layer in again.layers} == {"keras"}
    names = [layer.name for layer in model.layers]
    assert sorted(layer.name for layer in twin.layers) == sorted(names)
    assert sorted(layer.name for layer in again.layers) == sorted(names)


def test_the_source_is_left_as_it_was():
    model = small_model()
    before = [weight.numpy().copy() for weight in model.weights]
    twin = to_keras2(model)
    twin.set_weights([weight + 1 for weight in twin.get_weights()])
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


LAYERS = {
    "convolution": lambda k: [k.Conv2D(4, 3, padding="same", dilation_rate=2, activation="relu")],
    "groups": lambda k: [k.Conv2D(6, 3, groups=3)],
    "depthwise": lambda k: [k.DepthwiseConv2D(3, depth_multiplier=2, activation="swish")],
    "separable": lambda k: [k.SeparableConv2D(5, 3, activation="elu")],
    "transposed": lambda k: [k.Conv2DTranspose(5, 3, strides=2, output_padding=1)],
    "batch normalisation": lambda k: [k.BatchNormalization(epsilon=0.02, scale=False)],
    "layer normalisation": lambda k: [k.LayerNormalization(epsilon=0.01)],
    "group normalisation": lambda k: [k.GroupNormalization(3)],
    "dense": lambda k: [k.Dense(5, "gelu"), k.Dense(4, "mish")],
    "slopes": lambda k: [k.LeakyReLU(0.2), k.PReLU(shared_axes=[1, 2]), k.ELU(0.5)],
    "relu": lambda k: [k.ReLU(1.0, negative_slope=0.1, threshold=0.2)],
    "softmax": lambda k: [k.Softmax(axis=1)],
    "hard sigmoid": lambda k: [k.Activation("hard_sigmoid"), k.Dense(3, "hard_sigmoid")],
    "hard swish": lambda k: [k.Activation("hard_swish"), k.Conv2D(3, 2, activation="hard_silu")],
    "pooling": lambda k: [k.MaxPooling2D(2, 1), k.AveragePooling2D(2), k.GlobalMaxPooling2D()],
    "shapes": lambda k: [k.ZeroPadding2D(((1, 0), (0, 2))), k.Cropping2D(1), k.Permute((2, 1, 3)),
                         k.Reshape((-1, 3)), k.Flatten()],
    "scaling": lambda k: [k.Rescaling([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])],
    "normalisation": lambda k: [k.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6])],
    "chance": lambda k: [k.Dropout(0.5, noise_shape=(None, 1, 1, 1)), k.SpatialDropout2D(0.2),
                         k.GaussianNoise(0.3)],
    "upsampling": lambda k: [k.UpSampling2D(2, interpolation="bilinear"), k.Resizing(9, 7)],
    "recurrent": lambda k: [k.Reshape((12, 9)), k.Bidirectional(k.LSTM(4)), k.Dense(2)],
    "gru": lambda k: [k.Reshape((12, 9)), k.GRU(4, return_sequences=True)],
    "time distributed": lambda k: [k.TimeDistributed(k.Dense(3, "tanh"))],
}  # fmt: skip


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_each_kind_of_layer_has_an_equal_counterpart(build):
    import keras

    assert_twins(of_layers(*build(keras.layers)), random(2, 6, 6, 3))


def test_an_adapted_normalisation_keeps_what_it_learned():
    import keras

    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(random(8, 6, 6, 3) * 4 + 2)
    inputs = keras.Input((6, 6, 3))
    assert_twins(keras.Model(inputs, layer(inputs)), random(2, 6, 6, 3))


def test_a_layer_that_is_called_twice_stays_one_layer():
    import keras

    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    dense = keras.layers.Dense(4, "hard_silu", name="shared")
    joined = keras.layers.Concatenate()([dense(left), dense(right), dense(right)])
    total = keras.layers.Subtract()([dense(left), keras.layers.Average()([dense(right)] * 2)])
    out = keras.layers.Concatenate()([joined, total])
    model = unfamiliar(keras.Model([left, right], out))
    twin, again = assert_twins(model, random(2, 5), random(3, 5)[:2])
    for made in (twin, again):
        assert sum(layer.name == "shared" for layer in made.layers) == 1
        assert len(made.get_layer("shared").weights) == 2


def test_several_outputs_stay_in_order():
    import keras

    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)])
    twin = to_keras2(model)
    batch = random(2, 4)
    for old, new in zip(model(batch), twin(batch), strict=True):
        np.testing.assert_allclose(new.numpy(), np.asarray(old), atol=1e-6)


def test_a_nested_model_is_inlined():
    import keras

    inner = of_layers(keras.layers.Conv2D(3, 2, name="inside"), shape=(6, 6, 3))
    inputs = keras.Input((6, 6, 3))
    twin, _ = assert_twins(keras.Model(inputs, keras.layers.ReLU()(inner(inputs))),
                           random(2, 6, 6, 3))  # fmt: skip
    assert "inside" in [layer.name for layer in twin.layers]


def test_attention_has_an_equal_counterpart():
    import keras

    inputs = keras.Input((5, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    model = unfamiliar(keras.Model(inputs, attention(inputs, inputs)))
    assert_twins(model, random(2, 5, 8))


OPERATIONS = {
    "sum with a number": lambda o, x: x + 3.0,
    "a number less": lambda o, x: 2.0 - x,
    "product": lambda o, x: x * x,
    "quotient": lambda o, x: x / 4.0,
    "power": lambda o, x: o.power(o.relu(x) + 0.1, 1 / 3),
    "hard swish": lambda o, x: x * o.relu6(x + 3.0) * (1.0 / 6.0),
    "activations": lambda o, x: o.silu(o.gelu(x, approximate=False)) + o.hard_sigmoid(x),
    "mean": lambda o, x: o.mean(x, axis=(1, 2), keepdims=True) + o.max(x, axis=1, keepdims=True),
    "shapes": lambda o, x: o.concatenate([o.transpose(x, (0, 2, 1, 3)), x], axis=-1),
    "reshape": lambda o, x: o.squeeze(o.expand_dims(o.reshape(x, (-1, 36, 3)), 1), 1),
    "extremes": lambda o, x: o.maximum(o.minimum(x, 0.5), -0.5),
    "functions": lambda o, x: o.exp(o.abs(x)) + o.sqrt(o.square(x) + 1.0) - o.log(o.abs(x) + 1),
}


@pytest.mark.parametrize("build", OPERATIONS.values(), ids=OPERATIONS)
def test_each_operation_that_is_no_layer_has_an_equal_counterpart(build):
    import keras

    inputs = keras.Input((6, 6, 3))
    assert_twins(keras.Model(inputs, build(keras.ops, inputs)), random(2, 6, 6, 3))


def test_what_is_trainable_stays_so():
    model = small_model()
    model.layers[3].trainable = False
    twin, again = assert_twins(model, random(2, 16, 16, 3) * 50)
    name = model.layers[3].name
    assert not twin.get_layer(name).trainable
    assert not again.get_layer(name).trainable
    assert twin.get_layer("head_logits").trainable


def _subclassed():
    import keras

    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    return Own(name="my_own")


REFUSED = {
    "a layer of one's own": (lambda k: _subclassed(), "my_own.*Own.*no such layer"),
    "a layer of Keras 3 alone": (lambda k: k.RMSNormalization(name="rms"), "rms.*RMSNorm"),
    "an activation of Keras 3 alone": (lambda k: k.Dense(2, "celu", name="d"), "'d'.*celu"),
    "an argument of Keras 3 alone": (
        lambda k: k.Resizing(4, 4, pad_to_aspect_ratio=True, name="fit"), "fit.*pad_to_aspect"),
    "a lambda": (lambda k: k.Lambda(lambda x: x, name="mine"), "mine.*Lambda"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_named(build, message):
    import keras

    with pytest.raises(ExportError, match=message):
        to_keras2(keras.Sequential([keras.Input((6, 6, 3)), build(keras.layers)]))


def test_an_operation_without_counterpart_is_named():
    import keras

    inputs = keras.Input((6,))
    with pytest.raises(ExportError, match="Cumsum"):
        to_keras2(keras.Model(inputs, keras.ops.cumsum(inputs, axis=1)))


def test_a_model_without_a_graph_is_refused():
    import keras

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ExportError, match="Subclassed.*functional"):
        to_keras2(Subclassed())


CLEAN = """
import json, os, subprocess, sys
import export.compress.keras2.convert, export.compress.keras2.load, export.compress.methods
early = [name for name in ("tf_keras", "tensorflow_model_optimization") if name in sys.modules]
from export.compress.keras2.load import load_tfmot
load_tfmot()
import tensorflow, keras
child = subprocess.run([sys.executable, "-c", "import os; print('TF_USE_LEGACY_KERAS' in os.environ)"],
                       capture_output=True, text=True).stdout.strip()
print(json.dumps({"early": early, "here": os.environ.get("TF_USE_LEGACY_KERAS"), "child": child,
                  "tf.keras": tensorflow.keras.version()[0], "keras": keras.version()[0]}))
"""  # noqa: E501


@pytest.mark.slow
def test_importing_tfmot_leaves_the_environment_and_keras_as_they_were():
    done = subprocess.run([sys.executable, "-c", CLEAN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "early": [], "here": None, "child": "False", "tf.keras": "3", "keras": "3"}  # fmt: skip


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    from export.compress.keras2.load import load_tfmot

    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    with pytest.raises(ExportError, match="pip install tensorflow-model-optimization"):
        load_tfmot()
