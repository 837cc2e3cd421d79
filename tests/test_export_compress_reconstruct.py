"""Pruned layers answer as before, as nearly as the weights that stay allow."""

from __future__ import annotations

import numpy as np
import pytest
from training_models import small_model, splits

from export.compress.graph import fold_trainable
from export.compress.reconstruct import TWO_OF_FOUR, prune_and_reconstruct, solve_kept
from export.convert.layer_matrix import LayerMatrix
from tl_keras.features.extract import Arrays
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()


def test_each_column_is_solved_on_the_weights_that_it_keeps():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, 40, 9))
    gram = parts.transpose(0, 2, 1) @ parts
    wanted, kept = rng.normal(size=(2, 9, 5)), rng.random((2, 9, 5)) > 0.4
    found = solve_kept(gram, wanted, rng.normal(size=wanted.shape), kept, 30)
    for group in range(2):
        for column in range(5):
            at = np.flatnonzero(kept[group, :, column])
            exact = np.zeros(9)
            exact[at] = np.linalg.solve(gram[group][np.ix_(at, at)], wanted[group, at, column])
            np.testing.assert_allclose(found[group, :, column], exact, atol=1e-9)


LAYERS = {
    "convolution": lambda k: k.Conv2D(6, 3),
    "strided, padded": lambda k: k.Conv2D(6, (3, 2), strides=2, padding="same"),
    "dilated": lambda k: k.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "grouped": lambda k: k.Conv2D(6, 3, groups=2),
    "depthwise": lambda k: k.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
    "dense on maps": lambda k: k.Dense(5),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_rows_times_weights_are_the_layers_own_outputs(build):
    import keras

    layer = build(keras.layers)
    keras.Sequential([keras.Input((9, 8, 4)), layer])
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=one.shape) for one in layer.get_weights()])
    maps = rng.normal(size=(3, 9, 8, 4)).astype("float32")
    outputs = np.asarray(layer(maps))
    places = int(np.prod(outputs.shape[1:3]))
    # Every place once, in order.
    chosen = np.tile((np.arange(places) + 0.5) / places, (3, 1))
    matrix = LayerMatrix(layer)
    weights, bias = matrix.get()
    found = matrix.rows(maps, chosen) @ weights + bias[:, None]
    found = found.transpose(1, 0, 2).reshape(outputs.shape)
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-4)
    before = layer.get_weights()
    matrix.set(weights, bias)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.fixture(scope="module")
def folded():
    return fold_trainable(small_model())


@pytest.fixture(scope="module")
def samples():
    return Arrays({"image": splits(160, 4).train.items})


def answers(model, samples):
    import keras

    logits = keras.Model(model.inputs, model.get_layer("head_logits").output)
    return logits.predict(samples.inputs["image"].astype("float32"), verbose=0)


def drop_smallest(model, names, share):
    import keras

    made = keras.models.clone_model(model)
    made.set_weights(model.get_weights())
    for name in names:
        kernel, bias = made.get_layer(name).get_weights()
        kernel[np.abs(kernel) < np.quantile(np.abs(kernel), share)] = 0
        made.get_layer(name).set_weights([kernel, bias])
    return made


def test_half_the_weights_go_and_most_of_the_error_that_this_makes_with_them(folded, samples):
    before = folded.get_weights()
    told = []
    shares = {"block1_conv": 0.5, "block2_conv": 0.5, "head_logits": 0.5}
    made = prune_and_reconstruct(folded, samples, shares, lambda *words: told.append(words))
    for old, new in zip(before, folded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for name in shares:
        kernel = made.get_layer(name).get_weights()[0]
        assert np.sum(kernel == 0) == round(0.5 * kernel.size)
    wanted = answers(folded, samples)
    errors = [
        ((answers(model, samples) - wanted) ** 2).mean()
        for model in (drop_smallest(folded, shares, 0.5), made)
    ]
    assert errors[1] < 0.25 * errors[0], errors
    assert told[-1] == ("pruning", 3, 3)


def test_where_nothing_goes_nothing_changes(folded, samples):
    made = prune_and_reconstruct(folded, samples, {})
    np.testing.assert_allclose(answers(made, samples), answers(folded, samples), atol=1e-3)


def test_the_last_layer_is_the_ridge_solution_of_what_the_pruned_ones_before_give(folded, samples):
    """Against scikit-learn's ridge regression on the features of the pruned network."""
    import keras
    from sklearn.linear_model import LinearRegression

    made = prune_and_reconstruct(folded, samples, {"block1_conv": 0.6, "block2_conv": 0.6})
    head = made.get_layer("head_logits")
    inputs = keras.Model(made.inputs, head.input).predict(
        samples.inputs["image"].astype("float32"), verbose=0
    )
    wanted = answers(folded, samples)
    best = LinearRegression().fit(inputs, wanted).predict(inputs)
    floor = ((best - wanted) ** 2).mean()
    error = ((answers(made, samples) - wanted) ** 2).mean()
    assert floor <= error <= 1.2 * floor + 1e-6


def test_the_branch_of_a_sum_makes_up_for_what_its_shortcut_lost(samples):
    """Against scikit-learn's regression of what the sum still lacks on the branch's inputs."""
    import keras
    from sklearn.linear_model import LinearRegression

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", name="stem")(image)
    branch = keras.layers.Conv2D(8, 1, name="branch")(x)
    x = keras.layers.Add(name="sum")([x, branch])
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    made = prune_and_reconstruct(fold_trainable(model), samples, {"stem": 0.3})

    def at(one, name):
        part = keras.Model(one.inputs, one.get_layer(name).output)
        return part.predict(samples.inputs["image"].astype("float32"), verbose=0).reshape(-1, 8)

    wanted, stem = at(model, "sum"), at(made, "stem")
    best = stem + LinearRegression().fit(stem, wanted - stem).predict(stem)
    floor, error = (((one - wanted) ** 2).mean() for one in (best, at(made, "sum")))
    assert 0.1 < floor <= error <= 1.01 * floor


def test_two_of_each_four_input_channels_go(folded, samples):
    made = prune_and_reconstruct(folded, samples, {"block2_conv": TWO_OF_FOUR})
    kernel = made.get_layer("block2_conv").get_weights()[0]
    groups = (kernel != 0).transpose(0, 1, 3, 2).reshape(-1, 4).sum(axis=1)
    assert (groups == 2).all()
