"""BatchNorm-only and bias-only tuning: single weights learn, all else stays."""

from __future__ import annotations

import numpy as np
import pytest
from training_models import small_model, splits, weights_of

from tl_keras.training.freezing import freeze, last_frozen_cut, select
from tl_keras.training.plan import Plan, Stage
from tl_keras.training.trainer import fit

MOVES = {
    "batchnorm": {"block1_bn/gamma", "block1_bn/beta", "block2_bn/gamma", "block2_bn/beta"},
    "bias": {"block1_bn/beta", "block2_bn/beta", "block1_conv/bias", "block2_conv/bias"},
}
HEAD = {"head_logits/kernel", "head_logits/bias"}


@pytest.mark.parametrize("selector", MOVES)
def test_just_the_weights_of_its_kind_and_the_head_move(selector):
    model = small_model()
    before = weights_of(model)
    stage = Stage(selector, ("head", selector), epochs=2, learning_rate=1e-2)
    fit(model, splits(), Plan("some", (stage,), ema=False))
    after = weights_of(model)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    # A convolution's offset before a BatchNorm in inference mode does learn.
    assert moved == MOVES[selector] | HEAD


def test_statistics_stay_and_the_flags_do_not_outlive_the_stage():
    model = small_model()
    freeze(model, ["head", "batchnorm"])
    assert not model.get_layer("block1_bn").trainable
    assert {w.path for w in model.trainable_weights} == MOVES["batchnorm"] | HEAD
    freeze(model, ["head"])
    assert {w.path for w in model.trainable_weights} == HEAD


def test_batchnorm_with_moving_statistics_is_the_users_choice():
    model = small_model()
    freeze(model, ["batchnorm"], batchnorm="train")
    assert model.get_layer("block1_bn").trainable
    assert {w.path for w in model.trainable_weights} == MOVES["batchnorm"]


@pytest.mark.parametrize("selector", MOVES)
def test_one_convolution_before_the_first_weight_that_learns_is_not_worth_a_cut(selector):
    model = small_model()
    freeze(model, ["head", selector])
    assert last_frozen_cut(model) is None


def test_the_selectors_name_layers_of_the_base():
    model = small_model()
    assert select(model, ["batchnorm"]) == ["block1_bn", "block2_bn"]
    assert select(model, ["bias"]) == ["block1_conv", "block1_bn", "block2_conv", "block2_bn"]
