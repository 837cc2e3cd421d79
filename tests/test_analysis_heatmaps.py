"""A heatmap lies where the class is, for every backbone that ends in a map."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tl_keras.analysis.heatmaps import add_heatmaps, grad_cam, lay_over
from tl_keras.data.samples import from_arrays
from tl_keras.evaluation.mistakes import collect_mistakes


def toy(softmax=True):
    """Class 0 is red anywhere, class 1 green: two channels of a 4 x 4 map, pooled."""
    import keras

    image = keras.Input((16, 16, 3))
    x = keras.layers.AveragePooling2D(4)(image)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="base")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    last = keras.layers.Dense(2, activation="softmax" if softmax else None, name="head_dense")
    model = keras.Model(image, last(x))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 1, 1] = 0.05
    model.get_layer("base").set_weights([kernel])
    model.get_layer("head_dense").set_weights([np.eye(2, dtype=np.float32), np.zeros(2)])
    return model


def images():
    made = np.zeros((2, 16, 16, 3), np.uint8)
    made[:, :4, 4:8, 0] = 250  # red at (0, 1) of the map
    made[:, 8:12, 12:, 1] = 120  # green at (2, 3)
    return made


@pytest.mark.parametrize("softmax", [True, False])
def test_the_heat_lies_where_the_class_is_shown(softmax):
    heats = grad_cam(toy(softmax), [images().astype("float32")], [0, 1])
    expected = np.zeros((2, 4, 4))
    expected[0, 0, 1] = expected[1, 2, 3] = 1
    np.testing.assert_allclose(heats, expected, atol=1e-5)


def test_it_is_the_gradient_times_the_map_computed_by_differences():
    import keras

    model = toy()
    model.get_layer("base").set_weights(
        [np.random.default_rng(0).normal(size=(1, 1, 3, 2)).astype(np.float32) / 50]
    )
    pixels = np.random.default_rng(1).integers(0, 255, (1, 16, 16, 3)).astype("float32")
    maps = keras.Model(model.inputs, model.get_layer("base").output)(pixels).numpy()
    # The logit of class 1 is the mean of channel 1: its gradient is 1 / 16 at each place.
    heat = np.maximum(maps[0, :, :, 1] / 16, 0)
    np.testing.assert_allclose(
        grad_cam(model, [pixels], [1])[0], heat / max(heat.max(), 1e-12), atol=1e-4
    )


@pytest.mark.parametrize("base", [
    "small_resnet", "mobilenet_v2", pytest.param("densenet121", marks=pytest.mark.slow),
    pytest.param("convnext_tiny", marks=pytest.mark.slow),
    pytest.param("vgg16", marks=pytest.mark.slow),
    pytest.param("efficientnet_v2b0", marks=pytest.mark.slow),
])
def test_every_family_that_ends_in_a_map_has_heatmaps(base):
    from tl_keras.models.build import build_model

    model = build_model(base, 3, size=64, weights=None)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype("float32")
    heats = grad_cam(model, [pixels], [0, 2])
    assert heats.ndim == 3 and len(heats) == 2 and np.isfinite(heats).all()
    assert heats.min() >= 0 and heats.max() <= 1


def test_a_base_without_a_map_has_none():
    import keras

    tokens = keras.Input((8, 4))
    x = keras.layers.Dense(4, name="base")(tokens)
    x = keras.layers.GlobalAveragePooling1D(name="head_pool")(x)
    model = keras.Model(tokens, keras.layers.Dense(2, "softmax", name="head_dense")(x))
    assert grad_cam(model, [np.zeros((1, 8, 4), np.float32)], [0]) is None


def test_mistakes_get_their_heatmaps_at_the_size_of_their_previews():
    samples = from_arrays(images(), ["green", "red"])
    answers = np.array([[0.1, 0.9], [0.8, 0.2]])
    show = samples.modality.thumbnail
    found = collect_mistakes(samples.items, show, answers, samples.labels, ("green", "red"))
    assert [one.index for one in found] == [0, 1]
    shown = add_heatmaps(toy(), samples, found)
    assert all(one.heatmap.size == one.preview.size for one in shown)
    first = np.asarray(shown[0].heatmap, int)  # said red, output 1: the toy's green
    assert first[10, 14].sum() > first[2, 6].sum()


def test_laying_over_leaves_cold_places_gray_and_makes_hot_ones_yellow():
    gray = Image.new("RGB", (40, 40), (100, 100, 100))
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    laid = np.asarray(lay_over(gray, heat), int)
    assert (laid[30:, 30:] == 100).all()
    assert laid[3, 3, 0] > 180 and laid[3, 3, 2] < 60
