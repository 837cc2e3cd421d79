"""LoRA changes nothing at the start, trains alone, and folds into the plain model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from training_models import coloured, small_model, splits, weights_of

from tl_keras.errors import PlanError
from tl_keras.models import graph
from tl_keras.peft.branches import count_parameters
from tl_keras.peft.lora import apply_lora, default_lora_layers, merge_lora
from tl_keras.training.plan import Plan, named_plan
from tl_keras.training.trainer import fit

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.float32)


def odd_model():
    """Convolutions of every geometry, one called twice, activations inside the layers."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    inputs = keras.Input((16, 16, 3), name="pixels")
    x = layers.Conv2D(8, 3, padding="valid", activation="relu", name="inner")(inputs)
    x = layers.Conv2D(8, (3, 5), strides=(2, 1), padding="same", name="strided")(x)
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="tanh", name="wide")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    twice = layers.Conv2D(8, 1, activation="relu", name="twice")
    x = layers.Add(name="sum")([twice(x), twice(twice(x))])
    x = layers.GlobalAveragePooling2D(name="head_avg_pool")(x)
    x = layers.Dense(8, activation="gelu", name="head_dense_1")(x)
    return keras.Model(inputs, layers.Dense(5, name="head_logits")(x), name="odd")


def shaken(model, scale=0.05):
    """Give the branches weights as if they had been trained."""
    generator = np.random.default_rng(3)
    for layer in model.layers:
        if "_lora_" in layer.name:
            layer.set_weights([generator.normal(0, scale, w.shape) for w in layer.get_weights()])
    return model


def answers(model):
    return np.asarray(model(PIXELS))


def relative(left, right):
    return np.abs(left - right).max() / np.abs(left).max()


ODD = ["inner", "strided", "wide", "twice", "head"]


def test_nothing_changes_at_the_start_and_the_source_is_left_as_it_is():
    model = odd_model()
    before, names = weights_of(model), [layer.name for layer in model.layers]
    adapted = apply_lora(model, ODD, rank=3)
    assert np.array_equal(answers(adapted), answers(model))
    assert [layer.name for layer in model.layers] == names
    shaken(adapted)
    after = weights_of(model)
    assert all(np.array_equal(before[path], after[path]) for path in before)


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_merged_is_the_plain_model_and_equals_the_adapted_one(alpha):
    model = odd_model()
    adapted = shaken(apply_lora(model, ODD, rank=3, alpha=alpha), 0.1)
    merged = merge_lora(adapted)
    assert relative(answers(model), answers(adapted)) > 0.01
    assert relative(answers(adapted), answers(merged)) < 1e-6
    assert [layer.get_config() for layer in merged.layers] == [
        layer.get_config() for layer in model.layers
    ]
    assert [w.path for w in merged.weights] == [w.path for w in model.weights]


def test_alpha_scales_the_branch():
    once, twice = (shaken(apply_lora(odd_model(), ["strided"], 2, alpha)) for alpha in (None, 4.0))
    kernels = [merge_lora(one).get_layer("strided").get_weights()[0] for one in (once, twice)]
    start = odd_model().get_layer("strided").get_weights()[0]
    np.testing.assert_allclose(kernels[1] - start, 2 * (kernels[0] - start), atol=1e-6)


def test_a_saved_model_with_lora_loads_as_stock_keras_and_merges(tmp_path):
    import keras

    adapted = shaken(apply_lora(odd_model(), ODD, rank=2, alpha=1.0))
    adapted.save(tmp_path / "adapted.keras")
    loaded = keras.saving.load_model(tmp_path / "adapted.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    assert relative(answers(adapted), answers(merge_lora(loaded))) < 1e-6


def test_training_moves_the_branches_and_the_head_alone():
    model = apply_lora(small_model(), ["block*"], rank=2)
    before = weights_of(model)
    stage = dataclasses.replace(named_plan("lora").stages[1], epochs=2)
    result = fit(model, splits(), Plan("lora", (stage,), ema=False), seed=1)
    after, stage = weights_of(model), result.stages[-1]
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert {path.split("/")[0] for path in moved} == {
        "head_logits",
        *(f"block{n}_conv_lora_{role}" for n in (1, 2) for role in ("down", "up")),
    }
    assert stage["trainable_parameters"] == 2 * (27 + 4 + 36 + 8) + 8 * 3 + 3
    assert stage["cut"] is None


def test_a_branch_learns_what_the_frozen_layer_cannot():
    import keras

    adapted = apply_lora(small_model(), ["block2_conv"], rank=4)
    adapted.get_layer("head_logits").trainable = False
    data = coloured(60, 5)
    pictures = np.stack([np.asarray(item) for item in data.items]).astype(np.float32)
    adapted.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    before = adapted.evaluate(pictures, data.labels, verbose=0)
    adapted.fit(pictures, data.labels, epochs=8, verbose=0)
    after = merge_lora(adapted)
    after.compile(loss="sparse_categorical_crossentropy")
    assert after.evaluate(pictures, data.labels, verbose=0) < 0.7 * before


def test_blocks_and_head_are_those_of_the_plain_model():
    model = small_model()
    adapted = apply_lora(model, ["block*", "head"], rank=2)
    plain, with_lora = graph.blocks(model), graph.blocks(adapted)
    assert len(plain) == len(with_lora)
    assert all(set(a) <= set(b) for a, b in zip(plain, with_lora, strict=True))
    assert "head_logits_lora_up" in graph.head_layers(adapted)
    assert {layer.name for layer in adapted.layers if layer.trainable_weights} == {
        "head_logits",
        *(f"{name}_lora_{role}" for name in ("block1_conv", "block2_conv", "head_logits")
          for role in ("down", "up")),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "rank", "message"),
    [
        (["blok1*"], 4, "matches no layer.*block1_"),
        (["block1_bn"], 4, "block1_bn is a BatchNormalization; expected Conv2D or Dense"),
        (["block*"], 5, "rank 5 is larger than layer block1_conv allows.*at most 4"),
        (["head"], 4, "larger than layer head_logits"),
        (["block1_conv"], 0, "rank is 0"),
        ([], 4, "no pattern"),
    ],
)
def test_what_cannot_be_adapted_is_named(patterns, rank, message):
    with pytest.raises(PlanError, match=message):
        apply_lora(small_model(), patterns, rank)


def test_a_depthwise_convolution_is_left_out_or_refused():
    with pytest.raises(PlanError, match="depthwise is a depthwise convolution"):
        apply_lora(odd_model(), ["depthwise"])
    adapted = apply_lora(odd_model(), ["[dw]*"], rank=1)
    assert {layer.name for layer in adapted.layers if "_lora_down" in layer.name} == {
        "wide_lora_down"
    }


def test_lora_twice_and_merging_nothing_are_refused():
    adapted = apply_lora(small_model(), ["block1_conv"])
    with pytest.raises(PlanError, match="block1_conv has a branch already"):
        apply_lora(adapted, ["block1_conv"])
    with pytest.raises(PlanError, match="no LoRA to merge"):
        merge_lora(small_model())


def test_without_patterns_the_top_is_adapted_within_its_share():
    model = small_model()
    assert default_lora_layers(model, rank=1, share=0.2) == ["block2_conv"]
    adapted = apply_lora(model, ["block2_conv"], rank=1)
    assert count_parameters(adapted)["branches"] == 36 + 8
    with pytest.raises(PlanError, match="no branch of 'small' takes at most 1.0%"):
        default_lora_layers(model, rank=4, share=0.01)
