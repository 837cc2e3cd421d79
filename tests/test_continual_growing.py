from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import small_model

from tl_keras.continual.growing import feature_model, grow, output_layer, set_output
from tl_keras.errors import ModelError
from tl_keras.models.build import build_model
from tl_keras.models.heads import Head


def pictures(count=6, size=16):
    return np.random.default_rng(0).integers(0, 255, (count, size, size, 3)).astype(np.float32)


def test_old_columns_and_all_other_weights_are_unchanged():
    model = small_model(3)
    grown = grow(model, 5)
    for layer in model.layers:
        for old, new in zip(layer.get_weights(), grown.get_layer(layer.name).get_weights()):
            np.testing.assert_array_equal(new[..., : old.shape[-1]], old)
    assert grown.output_shape == (None, 5)
    assert model.output_shape == (None, 3)


def test_a_grown_model_first_says_what_the_old_one_says():
    model = small_model(3)
    x = pictures(40)
    before, after = np.asarray(model(x)), np.asarray(grow(model, 7)(x))
    np.testing.assert_array_equal(after.argmax(1), before.argmax(1))
    shares = after[:, :3] / after[:, :3].sum(1, keepdims=True)
    np.testing.assert_allclose(shares, before, atol=1e-6)


def test_growing_shares_nothing_with_the_old_model():
    model = small_model(3)
    grown = grow(model, 3)
    grown.set_weights([weight + 1 for weight in grown.get_weights()])
    x = pictures()
    assert not np.allclose(np.asarray(grown(x)), np.asarray(model(x)))
    assert not {id(v) for v in grown.variables} & {id(v) for v in model.variables}


@pytest.mark.parametrize("head", [Head("gem", (8,), 0.2), Head("flatten")])
def test_every_head_grows_and_is_saved_as_stock_layers(head, tmp_path):
    model = build_model("small_resnet", 2, head=head, size=16)
    grown = grow(model, 4)
    grown.save(tmp_path / "grown.keras")
    again = keras.saving.load_model(tmp_path / "grown.keras")
    x = pictures()
    np.testing.assert_allclose(np.asarray(again(x)), np.asarray(grown(x)), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(grown(x)).argmax(1), np.asarray(model(x)).argmax(1))


def test_the_features_are_what_the_output_layer_sees():
    model, x = small_model(3), pictures()
    features = np.asarray(feature_model(model)(x))
    kernel, bias = output_layer(model).get_weights()
    logits = features @ kernel + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, np.asarray(model(x)), atol=1e-5)


def test_an_output_layer_takes_weights_that_fit_alone():
    model = small_model(3)
    set_output(model, np.zeros((8, 3), np.float32), np.array([5.0, 0, 0], np.float32))
    assert (np.asarray(model(pictures())).argmax(1) == 0).all()
    with pytest.raises(ModelError, match="expected"):
        set_output(model, np.zeros((8, 2), np.float32), np.zeros(2, np.float32))


def test_a_model_that_cannot_grow_is_refused():
    inputs = keras.Input((8, 8, 3))
    ends = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    with pytest.raises(ModelError, match="Conv2D"):
        grow(keras.Model(inputs, ends), 4)
    with pytest.raises(ModelError, match="at most 2"):
        grow(small_model(3), 2)
