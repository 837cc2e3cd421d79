"""GPT-2 from a folder against a forward pass in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_models_bert import gelu_tanh, predict
from text_models import save_gpt2_folder

from tl_keras.errors import ModelError
from tl_keras.models import graph
from tl_keras.models.backbones import gpt2
from tl_keras.models.backbones.load import build_backbone, describe

LENGTH = 12


def token_ids(count: int = 266) -> np.ndarray:
    draw = np.random.default_rng(1)
    ids = draw.integers(1, count + 1, (5, LENGTH)).astype(np.int32)
    for i in range(5):
        ids[i, LENGTH - 2 * i :] = 0
    return ids


def numpy_hidden(row, weights, heads=4):
    """The vectors behind the last norm of one text, float64 (tokens, width)."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def dense(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["wte.weight"][row - 1] + weights["wpe.weight"][: len(row)]
    for i in range(2):
        parts = np.split(dense(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1)
        found = []
        for q, k, v in zip(*(np.split(part, heads, -1) for part in parts), strict=True):
            scores = np.exp(q @ k.T / math.sqrt(q.shape[-1])) * np.tri(len(row))
            found.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = x + dense(np.concatenate(found, -1), f"h.{i}.attn.c_proj")
        inner = gelu_tanh(dense(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + dense(inner, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f")


def test_features_are_the_last_tokens_vector_of_a_forward_pass_in_numpy(tmp_path):
    weights = save_gpt2_folder(tmp_path)
    model = build_backbone(f"gpt2:{tmp_path}", size=LENGTH)
    ids = token_ids()
    expected = np.array([numpy_hidden(row[row > 0], weights)[-1] for row in ids])
    np.testing.assert_allclose(predict(model, ids), expected, rtol=1e-4, atol=2e-5)
    free = gpt2.build(None, str(tmp_path))
    padded = np.pad(ids, ((0, 0), (0, 7)))
    np.testing.assert_allclose(predict(free, padded), expected, rtol=1e-4, atol=2e-5)


def test_generation_takes_the_likeliest_token_each_time(tmp_path):
    weights = save_gpt2_folder(tmp_path, deviation=0.5)
    tokenizer = gpt2.read_tokenizer(tmp_path)
    model = build_backbone(f"gpt2:{tmp_path}", size=24)
    ids = tokenizer.encode("in the movi", 24)
    start = len(ids)
    for _ in range(6):
        scores = numpy_hidden(np.array(ids), weights)[-1] @ weights["wte.weight"].T
        ids.append(int(scores.argmax()) + 1)
    assert gpt2.generate(model, tokenizer, "in the movi", 6) == tokenizer.decode(ids[start:])
    assert gpt2.generate(model, tokenizer, "in the movi" * 30, 6) == ""  # no room


def test_there_is_a_cut_behind_each_block_and_each_block_is_one(tmp_path):
    save_gpt2_folder(tmp_path)
    model = build_backbone(f"gpt2:{tmp_path}", size=LENGTH)
    prefix, suffix = graph.split(model, "block0_out")
    np.testing.assert_array_equal(predict(suffix, prefix(token_ids())), predict(model, token_ids()))
    names = [[name for name in block if name.startswith("block")] for block in graph.blocks(model)]
    assert [{name.split("_")[0] for name in block} for block in names][-2:] == [
        {"block0"}, {"block1"}]


def test_masks_and_a_tied_output_layer_are_left_out(tmp_path):
    weights = save_gpt2_folder(tmp_path / "plain")
    whole = {f"transformer.{name}": value for name, value in weights.items()}
    whole["transformer.h.0.attn.bias"] = np.tri(32, dtype=np.float32)[None, None]
    whole["lm_head.weight"] = weights["wte.weight"]
    save_gpt2_folder(tmp_path / "whole", tensors=whole)
    plain, other = (predict(build_backbone(f"gpt2:{tmp_path / name}", size=LENGTH), token_ids())
                    for name in ("plain", "whole"))
    np.testing.assert_array_equal(plain, other)
    whole["lm_head.weight"] = 2 * weights["wte.weight"]
    save_gpt2_folder(tmp_path / "whole", tensors=whole)
    with pytest.raises(ModelError, match="lm_head"):
        build_backbone(f"gpt2:{tmp_path / 'whole'}", size=LENGTH)


def test_the_padding_id_is_no_token_of_the_model(tmp_path):
    save_gpt2_folder(tmp_path)
    tokenizer = gpt2.read_tokenizer(tmp_path)
    assert tokenizer.encode("!", 4) == [1]  # "!" has the id 0 in GPT-2's own vocabulary
    model = build_backbone(f"gpt2:{tmp_path}", size=LENGTH)
    assert model.get_layer("word").input_dim == len(tokenizer)
    assert describe(f"gpt2:{tmp_path}").maximum_size == 32


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "llama"}, "'llama'"),
    ({"activation_function": "mish"}, "'mish'"),
    ({"n_head": 5}, "5 heads"),
    ({"n_layer": 0}, "n_layer = 0"),
    ({"vocab_size": 200}, "266 tokens and the model 200"),
    ({"n_layer": 3}, "lacks h.2"),
    ({"n_inner": 60}, r"h.0.mlp.c_fc.weight has the shape \(16, 64\)"),
    ({"scale_attn_by_inverse_layer_idx": True}, "plain GPT-2"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, message):
    weights = save_gpt2_folder(tmp_path / "right")
    save_gpt2_folder(tmp_path / "wrong", tensors=weights, **change)
    with pytest.raises(ModelError, match=message) as error:
        build_backbone(f"gpt2:{tmp_path / 'wrong'}", size=LENGTH)
    assert "\n" not in str(error.value)
