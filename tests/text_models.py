"""Small folders of text models with random weights, as Hugging Face's packages lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = [
    "the", "a", "an", "it", "is", "was", "good", "bad", "great", "awful", "movie", "film",
    "plot", "actor", "who", "what", "where", "when", "how", "many", "city", "man", "year",
    "name", "of", "in", "and", "not", "very", ".", ",", "?", "!",
]  # fmt: skip
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS,
              *"abcdefghijklmnopqrstuvwxyz", *(f"##{x}" for x in "abcdefghijklmnopqrstuvwxyz")]
"""Every text of ASCII letters has its pieces in it."""

BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "hidden_act": "gelu", "max_position_embeddings": 40,
        "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}  # fmt: skip
DISTILBERT = {"model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24,
              "activation": "gelu", "max_position_embeddings": 40, "pad_token_id": 0,
              "dropout": 0.1, "attention_dropout": 0.1}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 32,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}  # fmt: skip
MERGES = ["t h", "th e", "\u0120 the", "\u0120 a", "i n", "o n", "m o", "v i", "mo vi"]

LENGTH = 16
NAMES = ("bad", "good", "neither")
TEXTS = ["What a great movie!", "an awful film", "Who was the actor in it?", "not very good.",
         "Ça va où naïve?", "a" * 300, "the plot was bad, the actor great", "where when how",
         "good " * 40, "1,000 words?"]  # fmt: skip


def save_bert_folder(
    folder: Path, *, seed: int = 0, deviation: float = 0.3, dtype: type = np.float32,
    tensors: dict[str, np.ndarray] | None = None, **config: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Save a random BERT or DistilBERT with its vocabulary; return its tensors.

    Args:
        folder: Where; made if need be.
        seed: Of the weights.
        deviation: Of the weights.
        dtype: Of the weights in the file.
        tensors: What to save in place of random ones.
        config: What differs from `BERT` (or `DISTILBERT`, by `model_type`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    distil = config.get("model_type") == "distilbert"
    full = {"vocab_size": len(VOCABULARY), **(DISTILBERT if distil else BERT), **config}
    if tensors is None:
        made = (_distilbert if distil else _bert)(full, np.random.default_rng(seed), deviation)
        tensors = {name: value.astype(dtype) for name, value in made.items()}
    (folder / "config.json").write_text(json.dumps(full))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    save_file(tensors, str(folder / "model.safetensors"))
    return tensors


def _bert(config: dict, draw: np.random.Generator, deviation: float) -> dict[str, np.ndarray]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
    }
    norms, dense = ["embeddings.LayerNorm"], {"pooler.dense": (width, width)}
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        dense |= {f"{at}attention.self.{x}": (width, width) for x in ("query", "key", "value")}
        dense |= {f"{at}attention.output.dense": (width, width),
                  f"{at}intermediate.dense": (inner, width), f"{at}output.dense": (width, inner)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    return _random(shapes, norms, dense, draw, deviation)


def _distilbert(config: dict, draw: np.random.Generator, deviation: float) -> dict[str, np.ndarray]:
    width, inner = config["dim"], config["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "distilbert.embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "distilbert.embeddings.position_embeddings.weight":
            (config["max_position_embeddings"], width),
    }
    norms, dense = ["distilbert.embeddings.LayerNorm"], {"pre_classifier": (width, width)}
    for i in range(config["n_layers"]):
        at = f"distilbert.transformer.layer.{i}."
        dense |= {f"{at}attention.{x}": (width, width)
                  for x in ("q_lin", "k_lin", "v_lin", "out_lin")}
        dense |= {f"{at}ffn.lin1": (inner, width), f"{at}ffn.lin2": (width, inner)}
        norms += [f"{at}sa_layer_norm", f"{at}output_layer_norm"]
    return _random(shapes, norms, dense, draw, deviation)


def _random(shapes: dict, norms: list, dense: dict, draw: np.random.Generator, deviation: float):
    made = {name: draw.normal(0, deviation, shape) for name, shape in shapes.items()}
    for name, shape in dense.items():
        made[f"{name}.weight"] = draw.normal(0, deviation, shape)
        made[f"{name}.bias"] = draw.normal(0, deviation, shape[0])
    width = next(iter(shapes.values()))[1]
    for name in norms:
        made[f"{name}.weight"] = draw.normal(1, 0.1, width)
        made[f"{name}.bias"] = draw.normal(0, 0.1, width)
    return made


def save_gpt2_folder(
    folder: Path, *, seed: int = 0, deviation: float = 0.3,
    tensors: dict[str, np.ndarray] | None = None, **config: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Save a random GPT-2 with a tokenizer of a few merges; return its tensors."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*sorted(ByteLevel.alphabet()), *(line.replace(" ", "") for line in MERGES)]
    tokens.append("<|endoftext|>")
    full = {"vocab_size": len(tokens), **GPT2, **config}
    (folder / "config.json").write_text(json.dumps(full))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    if tensors is None:
        made = _gpt2(full, np.random.default_rng(seed), deviation)
        tensors = {name: value.astype(np.float32) for name, value in made.items()}
    save_file(tensors, str(folder / "model.safetensors"))
    return tensors


def _gpt2(config: dict, draw: np.random.Generator, deviation: float) -> dict[str, np.ndarray]:
    width, norms = config["n_embd"], ["ln_f"]
    made = {"wte.weight": draw.normal(0, deviation, (config["vocab_size"], width)),
            "wpe.weight": draw.normal(0, deviation, (config["n_positions"], width))}
    for i in range(config["n_layer"]):
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        for name, ins, outs in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4),
                                ("mlp.c_proj", 4, 1)):
            made[f"h.{i}.{name}.weight"] = draw.normal(0, deviation, (ins * width, outs * width))
            made[f"h.{i}.{name}.bias"] = draw.normal(0, deviation, outs * width)
    for name in norms:
        made[f"{name}.weight"] = draw.normal(1, 0.1, width)
        made[f"{name}.bias"] = draw.normal(0, 0.1, width)
    return made


def text_source(name: str, folder: Path) -> Any:
    """A source of an export: an untrained classifier of `TEXTS` on a base of a folder."""
    from export.source import Source
    from tl_keras.data.samples import Samples
    from tl_keras.modalities.text.modality import TextModality
    from tl_keras.modalities.text.reader import Text
    from tl_keras.models.backbones.load import reading_of
    from tl_keras.models.build import build_model

    base = f"{name}:{folder}"
    model = build_model(base, len(NAMES), size=LENGTH)
    modality = TextModality(reading_of(base)[0], LENGTH)
    items = [Text(text) for text in TEXTS]
    keys = tuple(f"text {n}" for n in range(len(items)))
    samples = Samples(items, np.arange(len(items)) % 3, NAMES, keys, modality)
    read = samples.reader(model).read(range(len(items)))
    return Source(model, NAMES, read, keys, name="reviews", labels=samples.labels,
                  modality=modality, files=tuple(items))  # fmt: skip
