"""Selectors name layers, and flags follow them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from training_models import small_model

from tl_keras.errors import PlanError
from tl_keras.training.batchnorm import reestimate
from tl_keras.training.freezing import freeze, last_frozen_cut, select


@pytest.fixture(scope="module")
def model():
    return small_model(dropout=0.3)


@pytest.mark.parametrize(
    ("selector", "learning"),
    [
        ("head", {"head_logits"}),
        ("block2*", {"block2_conv"}),
        ("blocks:1", {"block2_conv"}),
        ("top:1", None),
        ("top:2", {"block2_conv"}),
        ("all", {"block1_conv", "block2_conv", "head_logits"}),
    ],
)
def test_a_selector_trains_what_it_names(model, selector: str, learning: set | None) -> None:
    if learning is None:  # the topmost base layer with weights is a BatchNorm, which stays put
        with pytest.raises(PlanError, match="nothing"):
            freeze(model, [selector])
        return
    assert set(freeze(model, [selector])) == learning


def test_batchnorm_learns_only_when_asked(model) -> None:
    assert "block1_bn" not in freeze(model, ["all"])
    assert "block1_bn" in freeze(model, ["all"], batchnorm="train")


def test_batchnorm_within_a_custom_layer_stays_put_and_is_measured_anew() -> None:
    class Block(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.conv = keras.layers.Conv2D(4, 3)
            self.norm = keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(self.conv(x))

    x = keras.Input((8, 8, 3))
    block = Block()
    y = keras.layers.GlobalAveragePooling2D()(block(x))
    model = keras.Model(x, keras.layers.Dense(2, name="out")(y))
    assert freeze(model, ["all"]) == ["block", "out"]
    assert not block.norm.trainable
    assert block.conv.trainable
    freeze(model, ["all"], batchnorm="train")
    assert block.norm.trainable
    freeze(model, ["head", "batchnorm"])
    assert {w.path.split("/")[-1] for w in block.trainable_weights} <= {"gamma", "beta"}
    images = np.full((32, 8, 8, 3), 100.0, np.float32)
    assert reestimate(model, [images], prior=0) == 1
    np.testing.assert_allclose(block.norm.moving_mean, block.conv(images)[0, 0, 0], rtol=1e-4)


@pytest.mark.parametrize("selector", ["blok2*", "top:0", "blocks:x", "conv"])
def test_a_selector_without_a_match_is_an_error_that_names_layers(model, selector: str) -> None:
    with pytest.raises(PlanError, match="matches no layer.*_"):
        select(model, [selector])


def test_the_cut_is_the_last_before_what_learns(model) -> None:
    freeze(model, ["head"])
    # Dropout must run in every step: the cut lies before it.
    assert last_frozen_cut(model) == "head_avg_pool"
    freeze(model, ["head", "block2*"])
    assert last_frozen_cut(model) == "block1_relu"
    freeze(model, ["all"])
    assert last_frozen_cut(model) is None
