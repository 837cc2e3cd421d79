"""Vision transformers of stock layers: their shape, their cuts, their way to a device."""

from __future__ import annotations

import numpy as np
import pytest

from tl_keras import Head, build_model
from tl_keras.errors import ModelError
from tl_keras.models.backbones.load import build_backbone
from tl_keras.models.backbones.vit import VARIANTS, embedding, vit
from tl_keras.models.graph import blocks, cut_points, split
from tl_keras.peft.lora import apply_lora, merge_lora

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return build_model("vit_tiny16", 5, head=Head("first"), size=32, weights=None)


@pytest.mark.parametrize(("variant", "millions"), [("tiny", 5.5), ("small", 21.7)])
def test_parameters_are_those_of_the_published_sizes(variant, millions):
    # 5.5 and 21.7 million without the classifier: Steiner et al. 2021, table 2, less 1000 classes
    base = vit(variant, 224)
    width, _ = VARIANTS[variant]
    assert base.output.shape == (None, 1 + 14 * 14, width)
    assert base.count_params() / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_block_ends_at_a_cut_and_each_attention_opens_one(model):
    cuts = [cut.layer for cut in cut_points(model)]
    assert [f"block{number}_add" in cuts for number in range(12)] == [True] * 12
    assert [names[-1] for names in blocks(model)[1:-1]] == [f"block{n}_add" for n in range(11)]
    prefix, suffix = split(model, "block5_add")
    np.testing.assert_array_equal(suffix(prefix(IMAGES)), model(IMAGES))


@pytest.mark.parametrize(("pooling", "tokens"), [("first", [0]), ("avg", [0, 1, 2, 3, 4])])
def test_the_class_token_or_the_mean_of_all_is_pooled(pooling, tokens):
    import keras

    made = build_model("vit_tiny16", 5, head=Head(pooling), size=32, weights=None)
    norm, logits = made.get_layer("norm").output, made.get_layer("head_logits")
    vector = np.asarray(keras.Model(made.input, norm)(IMAGES))[:, tokens].mean(1)
    kernel, bias = logits.get_weights()
    scores = np.exp(vector @ kernel + bias)
    np.testing.assert_allclose(made(IMAGES), scores / scores.sum(1, keepdims=True), atol=1e-5)


def test_lora_on_queries_and_values_starts_as_the_model_and_merges_back(model):
    adapted = apply_lora(model, ["*_query", "*_value"], rank=2)
    np.testing.assert_array_equal(adapted(IMAGES), model(IMAGES))
    assert sum("lora_up" in layer.name for layer in adapted.layers) == 24
    np.testing.assert_allclose(merge_lora(adapted)(IMAGES), model(IMAGES), atol=1e-6)


def test_a_side_that_is_no_multiple_of_a_patch_is_refused():
    with pytest.raises(ModelError, match="multiple of 16: 96 or 112"):
        build_backbone("vit_tiny16", size=100, weights=None)
    with pytest.raises(ModelError, match="tiny, small"):
        vit("large")


# What resample_abs_pos_embed of timm 1.0.31 makes of sin(n²), n from 0.
RESIZED = {
    (3, 5): [
        -0.1034, 0.3823, 0.9267, -0.1540, -0.9345, 0.1872, 0.3488, 0.4752, -0.2011, -0.6649,
        0.4650, 0.1596, -0.2879, -0.2183, -0.1206, -0.4590, -0.6430, -0.7708, 0.0925, 0.6807,
        -1.1048, -1.1546, -1.0040, 0.3009, 1.1507,
    ],
    (4, 2): [0.0191, -0.4222, -0.1898, -0.0749],
}  # fmt: skip


@pytest.mark.parametrize("sides", RESIZED)
def test_position_embeddings_are_resized_as_timm_does_it_and_tokens_keep_theirs(sides):
    old, new = sides
    grid = np.sin(np.arange(old**2, dtype=np.float32) ** 2)
    tensors = {
        "k": np.zeros((2, 3, 16, 16), np.float32), "b": np.array([0, 1], np.float32),
        "p": np.repeat(np.concatenate([[7], grid])[None, :, None], 2, axis=2),
        "c": np.full((1, 1, 2), 10, np.float32),
    }  # fmt: skip
    names = {"kernel": "k", "bias": "b", "positions": "p", "class": "c", "distilled": "d"}
    bias = embedding(tensors, names, 1 + new * new)["bias"]
    np.testing.assert_array_equal(bias[0], [17, 17])
    np.testing.assert_allclose(bias[1:, 0], RESIZED[sides], atol=1e-4)
    np.testing.assert_allclose(bias[1:, 1] - bias[1:, 0], 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_a_vision_transformer_answers_as_in_keras_on_the_device(model, tmp_path, suffix):
    from export.convert import onnx, tflite
    from export.runtime.runtimes import load

    path = tmp_path / f"vit{suffix}"
    path.write_bytes((tflite if suffix == ".tflite" else onnx).convert(model))
    np.testing.assert_allclose(load(path).predict(IMAGES), model(IMAGES), atol=1e-5)
