from __future__ import annotations

import numpy as np
import pytest
from export_models import pictures, small_model

from export.convert.graph import fold_batch_normalization
from export.quantize.rounding import _round, list_rounded, round_weights


def correlated(rows, width, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, 3)) @ generator.normal(size=(3, width)) + (
        0.1 * generator.normal(size=(rows, width))
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_by_what_inputs_have_in_common_errs_far_less_than_to_the_nearest(bits):
    rows, largest = correlated(500, 100), 2 ** (bits - 1) - 1
    weights = np.random.default_rng(1).normal(size=(1, 100, 7))
    made = _round(weights, (rows.T @ rows / 500)[None], bits)
    scale = np.abs(weights).max(axis=1, keepdims=True) / largest
    nearest = np.rint(weights / scale) * scale
    errors = [np.square(rows @ (one - weights)[0]).mean() for one in (made, nearest)]
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_left_lies_on_the_grid_that_quantizers_find_by_the_largest_weight(bits):
    rows, largest = correlated(300, 64), 2 ** (bits - 1) - 1
    weights = np.random.default_rng(2).normal(size=(1, 64, 5)) ** 3
    made = _round(weights, (rows.T @ rows / 300)[None], bits)
    scale = np.abs(made).max(axis=1, keepdims=True) / largest
    np.testing.assert_allclose(np.rint(made / scale) * scale, made, atol=1e-6)


def test_a_models_layers_answer_nearly_as_before_and_in_the_mean_the_same():
    import keras

    model, shown = fold_batch_normalization(small_model()), pictures(24)
    names = list_rounded(model)
    assert [type(model.get_layer(name)).__name__ for name in names] == [
        "Conv2D", "DepthwiseConv2D", "Dense",
    ]  # fmt: skip
    layer = model.get_layer(names[0])
    kernel, bias = layer.get_weights()
    taken = keras.Model(model.input, layer.input).predict(shown.astype("float32"), verbose=0)
    given = keras.Model(model.input, layer.output)
    before = given.predict(shown.astype("float32"), verbose=0)
    round_weights(model, {"image": shown}, {names[0]: 4})
    changed, moved = layer.get_weights()
    after = given.predict(shown.astype("float32"), verbose=0)
    assert taken.shape[1:] == (16, 16, 3)
    assert np.abs(changed - kernel).max() > 0
    assert np.abs(moved - bias).max() > 0
    # The mean is known from a part of the places.
    wrong = after - before
    assert (np.abs(wrong.mean(axis=(0, 1, 2))) < 0.1 * wrong.std(axis=(0, 1, 2))).all()
