from __future__ import annotations

import os

import numpy as np
import pytest

from tl_keras.errors import ModelError
from tl_keras.models.backbones.small_resnet import SMALL_RESNET_WEIGHTS, small_resnet

MOST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def base():
    return small_resnet()


def test_the_graph_is_flat_and_of_stock_layers(base):
    import keras

    assert all(not isinstance(layer, keras.Model) for layer in base.layers)
    assert all(type(layer).__module__.startswith("keras.") for layer in base.layers)
    names = [layer.name for layer in base.layers]
    assert "stage1_block1_conv1" in names and "stage3_block2_conv2" in names


def test_raw_pixels_are_scaled_in_the_graph(base):
    import keras

    inner = keras.Model(base.input, base.get_layer("rescaling").output)
    pixels = np.array([0.0, 127.5, 255.0], np.float32) * np.ones((1, 32, 32, 3), np.float32)
    assert np.allclose(inner(pixels)[0, 0, 0], [-1, 0, 1])


@pytest.mark.parametrize(("size", "side"), [(16, 2), (32, 4), (45, 6), (96, 12)])
def test_it_works_at_other_sizes(size, side):
    assert small_resnet(size).output_shape == (None, side, side, 64)


def test_a_size_too_small_is_refused():
    with pytest.raises(ModelError, match="16"):
        small_resnet(8)


def test_the_weights_fit_in_a_megabyte(base, tmp_path):
    path = tmp_path / "small.weights.h5"
    base.save_weights(path)
    assert path.stat().st_size <= MOST_BYTES


def test_the_shipped_weights_load_at_another_size_and_are_float32():
    assert os.path.getsize(SMALL_RESNET_WEIGHTS) <= MOST_BYTES
    base = small_resnet(48)
    before = base.get_layer("stage3_block1_conv1").get_weights()[0]
    base.load_weights(SMALL_RESNET_WEIGHTS)
    after = base.get_layer("stage3_block1_conv1").get_weights()[0]
    assert not np.allclose(before, after)
    assert {str(weight.dtype) for weight in base.weights} == {"float32"}
    assert all(np.isfinite(weight).all() for weight in base.get_weights())


def test_the_shipped_weights_help_on_digits_they_have_never_seen():
    """Nearest class mean on pooled features, ten pictures a class: no training at all."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import NearestCentroid

    data = load_digits()
    pictures = np.kron(data.images * (255 / 16), np.ones((4, 4)))[..., None].repeat(3, -1)
    order = np.argsort(data.target[:600], kind="stable")
    train = np.concatenate([order[data.target[order] == label][:10] for label in range(10)])
    test = np.arange(600, 1200)

    def score(base):
        features = base.predict(pictures[:1200].astype(np.float32), verbose=0, batch_size=256)
        pooled = features.mean((1, 2))
        nearest = NearestCentroid().fit(pooled[train], data.target[train])
        return nearest.score(pooled[test], data.target[test])

    untrained, trained = small_resnet(), small_resnet()
    trained.load_weights(SMALL_RESNET_WEIGHTS)
    assert score(trained) > score(untrained) + 0.1
    assert score(trained) > 0.8
