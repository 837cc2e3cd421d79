"""Adapters change nothing at the start, and survive as stock layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_peft_lora import PIXELS, answers, odd_model
from training_models import small_model, splits, weights_of

from tl_keras.errors import PlanError
from tl_keras.models import graph
from tl_keras.peft.adapters import default_adapter_layers, insert_adapters
from tl_keras.peft.branches import remove_branches
from tl_keras.training.plan import Plan, named_plan
from tl_keras.training.trainer import fit

ODD = {
    "serial": ["strided", "depthwise", "sum", "head_dense_1"],
    "parallel": ["inner", "strided", "wide", "depthwise", "head_dense_1"],
}


@pytest.mark.parametrize("kind", ODD)
def test_nothing_changes_at_the_start(kind):
    model = odd_model()
    adapted = insert_adapters(model, ODD[kind], 2, kind)
    assert np.array_equal(answers(adapted), answers(model))
    assert np.array_equal(answers(remove_branches(adapted)), answers(model))


@pytest.mark.parametrize("kind", ODD)
def test_they_load_as_stock_layers(kind, tmp_path):
    import keras

    adapted = insert_adapters(odd_model(), ODD[kind], 2, kind)
    generator = np.random.default_rng(3)
    adapted.set_weights([generator.normal(0, 0.3, w.shape) for w in adapted.get_weights()])
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    np.testing.assert_allclose(answers(loaded), answers(adapted), rtol=1e-6)


def test_a_serial_adapter_is_the_formula():
    adapted = insert_adapters(odd_model(), ["head_dense_1"], 2)
    generator = np.random.default_rng(3)
    names = [f"head_dense_1_serial_adapter_{role}" for role in ("down", "up")]
    for name in names:
        layer = adapted.get_layer(name)
        layer.set_weights([generator.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    import keras

    model = keras.Model(adapted.inputs[0], [
        adapted.get_layer("head_dense_1").output,
        adapted.get_layer("head_dense_1_serial_adapter_add").output,
    ])  # fmt: skip
    y, got = (np.asarray(value) for value in model(PIXELS))
    (down, a), (up, b) = (adapted.get_layer(name).get_weights() for name in names)
    assert down.shape == (8, 4)
    np.testing.assert_allclose(got, y + np.maximum(y @ down + a, 0) @ up + b, atol=1e-6)


@pytest.mark.parametrize("kind", ["serial", "parallel"])
def test_training_moves_adapters_and_head_alone(kind):
    model = insert_adapters(small_model(), ["block2_conv"], 2, kind)
    before = weights_of(model)
    stage = dataclasses.replace(named_plan("adapters").stages[1], epochs=2)
    result = fit(model, splits(), Plan("adapters", (stage,), ema=False), seed=1)
    after = weights_of(model)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert all(path.startswith(("head_", f"block2_conv_{kind}_adapter_")) for path in moved)
    # What lies before the adapter is computed once.
    expected = {"serial": "block2_conv", "parallel": "block1_relu"}[kind]
    assert result.stages[-1]["cut"] == expected


def test_blocks_are_those_of_the_plain_model():
    model = small_model()
    adapted = insert_adapters(model, ["block*_bn"], 2)
    assert len(graph.blocks(adapted)) == len(graph.blocks(model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["blok1*"],), "matches no layer.*block1_"),
        ((["block1_bn"], 4, "parallel"), "block1_bn is a BatchNormalization, no convolution"),
        ((["block1_conv"], 0), "reduction is 0"),
        ((["block1_conv"], 4, "sideways"), "expected 'serial' or 'parallel'"),
        ((["scaling"],), "scaling has no weights"),
        ((["head_predictions"],), "head without weights"),
    ],
)
def test_what_cannot_be_adapted_is_named(arguments, message):
    with pytest.raises(PlanError, match=message):
        insert_adapters(small_model(), *arguments)


def test_without_patterns_narrow_convolutions_get_theirs_behind_batchnorm():
    import keras
    from keras import layers

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="block1_conv")(inputs)
    x = layers.Conv2D(64, 3, strides=2, padding="same", name="block2_wide")(x)
    x = layers.Conv2D(8, 3, padding="same", name="block2_narrow")(x)
    x = layers.BatchNormalization(name="block2_bn")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="head_avg_pool")(x))
    assert default_adapter_layers(model, 8) == ["block2_bn"]
