"""KerasHub's BERT and DistilBERT backbones as this project's encoder of stock layers.

KerasHub has each block in a layer of its own and takes the mask as an input; the network is the
same, so that its weights only have to be laid out anew. Its BERT's GELU is the approximate one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.modalities.text.wordpiece import WordPiece
from tl_keras.models.backbones.bert import BertConfig, bert
from tl_keras.utils.files import read_small

if TYPE_CHECKING:
    import keras

__all__ = ["KINDS", "encoder_config", "read_wordpiece", "rewrite_bert", "sequence_of"]

KINDS = {"BertBackbone": "bert", "DistilBertBackbone": "distilbert"}
"""Classes that are understood -> their family in this project."""

_GELU = {"bert": "gelu_tanh", "distilbert": "gelu"}
_USUAL_LENGTH = 128
_VOCABULARY = "assets/tokenizer/vocabulary.txt"
# Layer of ours -> KerasHub's, in all blocks.
_LAYERS = {
    "query": "self_attention_layer/query",
    "key": "self_attention_layer/key",
    "value": "self_attention_layer/value",
    "project": "self_attention_layer/attention_output",
    "attention_norm": "self_attention_layer_norm",
    "up": "feedforward_intermediate_dense",
    "down": "feedforward_output_dense",
    "norm": "feedforward_layer_norm",
}


def encoder_config(where: str, config: dict[str, Any]) -> BertConfig:
    """Return the shape of an encoder from its config.json.

    Args:
        where: The folder, for messages.
        config: What the file holds.

    Raises:
        ModelError: A number is missing or none.
    """
    values = config.get("config", {})
    names = ("hidden_dim", "num_layers", "num_heads", "intermediate_dim", "vocabulary_size",
             "max_sequence_length")
    for name in names:
        if type(values.get(name)) is not int or not 1 <= values[name] <= 2**22:
            raise ModelError(f"'{where}': config.json has {name} = {values.get(name)!r}; expected "
                             "a whole number above 0")
    width, blocks, heads, inner, vocabulary, positions = (values[name] for name in names)
    dropout = values.get("dropout", 0.0)
    family = KINDS[config["class_name"]]
    return BertConfig(
        family, width, blocks, heads, inner, vocabulary, positions,
        values.get("num_segments", 0) or 0, _GELU[family], dropout, dropout,
        usual=min(positions, _USUAL_LENGTH))


def read_wordpiece(folder: Path, tokenizer: dict[str, Any]) -> WordPiece:
    """Read the tokenizer that was saved with a backbone: words as BERT's own program cuts them.

    Args:
        folder: The preset's.
        tokenizer: What its tokenizer.json holds.

    Raises:
        ModelError: There is none.
    """
    try:
        vocabulary = read_small(folder / _VOCABULARY)
    except OSError as error:
        raise ModelError(f"'{folder}' has no {_VOCABULARY}; save the tokenizer there too: "
                         "tokenizer.save_to_preset(FOLDER)") from error
    lowercase = bool(tokenizer.get("config", {}).get("lowercase", False))
    known = set(vocabulary.decode("utf-8", "replace").splitlines())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return WordPiece.from_settings({
        "lowercase": lowercase, "strip_accents": lowercase, "chinese": True, "clean": True,
        "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]",
        "special": [one for one in special if one in known], "prefix": "##", "longest_word": 100,
    }, vocabulary)  # fmt: skip


def rewrite_bert(backbone: Any, config: BertConfig, length: int) -> keras.Model:
    """Build an encoder of stock layers with the weights of KerasHub's.

    Args:
        backbone: One of `KINDS`.
        config: Its shape.
        length: Tokens of a text.
    """
    tensors = {variable.path: np.asarray(variable) for variable in backbone.variables
               if variable.dtype == "float32"}
    joined = {path.removeprefix("token_and_position_embedding/"): value
              for path, value in tensors.items()}
    model = bert(config, length)
    model.get_layer("word").set_weights([joined["token_embedding/embeddings"]])
    # There is one text, never a pair: its segment is always the first.
    segment = joined["segment_embedding/embeddings"][0] if config.types else 0.0
    model.get_layer("position").set_weights(
        [joined["position_embedding/embeddings"][:length] + segment])
    _fill(model.get_layer("embed_norm"), joined, "embeddings_layer_norm")
    for number in range(config.blocks):
        for name, source in _LAYERS.items():
            _fill(model.get_layer(f"block{number}_{name}"), joined,
                  f"transformer_layer_{number}/{source}")
    return model


def _fill(layer: Any, tensors: dict[str, np.ndarray], source: str) -> None:
    layer.set_weights([tensors[f"{source}/{weight.name}"].reshape(weight.shape)
                       for weight in layer.weights])


def sequence_of(backbone: Any, ids: np.ndarray) -> np.ndarray:
    """Return what KerasHub's own encoder gives for token ids padded with 0, zeros where padded."""
    mask = (ids != 0).astype(np.int32)
    inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    taken = {tensor.name: inputs[tensor.name] for tensor in backbone.inputs}
    found = backbone(taken, training=False)
    found = found["sequence_output"] if isinstance(found, dict) else found
    return np.asarray(found) * mask[..., None]
