"""GPT-2 from a folder: a causal decoder as one flat graph of stock layers.

A folder as Hugging Face's packages lay it out: config.json, model.safetensors, vocab.json,
merges.txt. Each token sees those before it; the features are what the last token of a text comes
to. Radford et al. 2019, 'Language models are unsupervised multitask learners'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.modalities.text.byte_bpe import ByteBPE
from tl_keras.models.backbones.attention import MASKED, self_attention
from tl_keras.models.backbones.model_folder import (
    ACTIVATIONS,
    activate,
    check_tensors,
    model_folder,
    read_config,
    weights_file,
    whole_number,
)
from tl_keras.models.backbones.registry import OWN, BackboneInfo
from tl_keras.models.backbones.safetensors_file import read_safetensors

if TYPE_CHECKING:
    import keras

__all__ = ["GPT2Config", "build", "describe", "generate", "gpt2", "read_gpt2_config",
           "read_tokenizer", "score_next"]

_USUAL_LENGTH = 128
# Masks that old files hold; the output layer, whose weights are those of the word table.
_BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias$")
_OUTPUT = "lm_head.weight"
# Layer of a block -> what its tensors' names end in; query, key and value lie in one tensor.
_LAYERS = {"attention_norm": "ln_1", "norm": "ln_2", "project": "attn.c_proj", "up": "mlp.c_fc",
           "down": "mlp.c_proj"}  # fmt: skip


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a decoder.

    Attributes:
        width: Channels of a token.
        blocks: Number of transformer blocks.
        heads: Attention heads of each; they divide the width.
        inner: Units between the two dense layers of a block.
        vocabulary: Tokens of vocab.json; the word table has one row more, for padding.
        positions: Most tokens of a text.
        activation: A value of `ACTIVATIONS`.
        dropout: Share of outputs that are dropped in training.
        attention_dropout: Share of attention weights that are dropped in training.
        epsilon: Of the layer normalisations.
        deviation: Of random weights.
    """

    width: int
    blocks: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    activation: str
    dropout: float = 0.1
    attention_dropout: float = 0.1
    epsilon: float = 1e-5
    deviation: float = 0.02


def read_gpt2_config(place: str | Path) -> GPT2Config:
    """Read config.json of a folder.

    Raises:
        ModelError: There is none, it is of another architecture, or asks for what is not built.
    """
    folder = model_folder(place)
    config = read_config(folder)
    if config.get("model_type") != "gpt2":
        raise ModelError(
            f"'{folder}' holds a model of type {config.get('model_type')!r}; expected 'gpt2' "
            "(encoders are bert:FOLDER)")
    activation = str(config.get("activation_function", "gelu_new"))
    if activation not in ACTIVATIONS:
        raise ModelError(f"'{folder}': config.json asks for the activation {activation!r}; "
                         f"expected one of {', '.join(ACTIVATIONS)}")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.get(key):
            raise ModelError(f"'{folder}': config.json asks for {key}; expected plain GPT-2")
    width = whole_number(folder, config, "n_embd", 2**14)
    heads = whole_number(folder, config, "n_head", 2**10)
    if width % heads:
        raise ModelError(f"'{folder}': {heads} heads do not divide a width of {width}; expected "
                         "the config.json of a trained model")
    inner = config.get("n_inner") or 4 * width
    return GPT2Config(
        width=width,
        blocks=whole_number(folder, config, "n_layer", 2**8),
        heads=heads,
        inner=whole_number(folder, {"n_inner": inner}, "n_inner", 2**16),
        vocabulary=whole_number(folder, config, "vocab_size", 2**22),
        positions=whole_number(folder, config, "n_positions", 2**16),
        activation=ACTIVATIONS[activation],
        dropout=float(config.get("resid_pdrop") or 0.0),
        attention_dropout=float(config.get("attn_pdrop") or 0.0),
        epsilon=float(config.get("layer_norm_epsilon") or 1e-5),
        deviation=float(config.get("initializer_range") or 0.02),
    )


def describe(name: str, place: str) -> BackboneInfo:
    """Return what is known about a decoder, without building it.

    Args:
        name: As the user named it.
        place: Its folder.

    Raises:
        ModelError: See `read_gpt2_config`.
    """
    config = read_gpt2_config(place)
    return BackboneInfo(
        name, "gpt2", f"{OWN}gpt2", "last", "included", min(_USUAL_LENGTH, config.positions), 3,
        "as its folder states", "Radford et al. 2019", default_weights="folder",
        maximum_size=config.positions, unit="tokens", modality="text")


def read_tokenizer(place: str | Path) -> ByteBPE:
    """Read the tokenizer of a folder, and compare it with the model's word table.

    Raises:
        ModelError: There is none, or it has ids that the model has not.
    """
    folder = model_folder(place)
    return _checked_tokenizer(folder, read_gpt2_config(folder))


def _checked_tokenizer(folder: Path, config: GPT2Config) -> ByteBPE:
    tokenizer = ByteBPE.from_folder(folder)
    count = len(tokenizer) - tokenizer.shift
    if count > config.vocabulary:
        raise ModelError(f"'{folder}': the vocabulary has {count} tokens and the model "
                         f"{config.vocabulary}; expected files of one model")
    return tokenizer


def build(
    info: BackboneInfo | None, place: str, size: int | None = None,
    weights: str | Path | None = "default",
) -> keras.Model:  # fmt: skip
    """Build a decoder with its weights.

    Args:
        info: As `describe` gave it.
        place: Its folder.
        size: Tokens of a text; None for any number up to what the model has positions for.
        weights: "default" for those of the folder, a .safetensors file, or None for random ones.

    Returns:
        A flat model from `token_ids`, int32 (None, size), each id one more than in vocab.json and
        0 for padding on the right, to the last token's vector, float32 (None, width).

    Raises:
        ModelError: The files are missing, damaged, of another model, or do not fit each other.
    """
    folder = model_folder(place)
    config = read_gpt2_config(folder)
    _checked_tokenizer(folder, config)
    if weights is None:
        return gpt2(config, size)
    path = weights_file(folder) if weights in ("default", "folder") else Path(weights)
    tensors = _tensors(path, config)
    model = gpt2(config, size)
    _fill(model, tensors, config)
    return model


def gpt2(config: GPT2Config, length: int | None = None) -> keras.Model:
    """Build a decoder with random weights.

    Args:
        config: Its shape.
        length: Tokens of a text; None for any number up to `config.positions`.

    Returns:
        As `build`. Layers are named `word`, `position`, `block0_query`, ..., `final_norm`; each
        block ends in `block0_out` (None, length, width + 1), whose last channel is 1 for tokens
        and 0 for padding; `last` is the output.
    """
    import keras
    from keras import layers, ops

    random = keras.initializers.TruncatedNormal(stddev=config.deviation)
    ids = keras.Input((length,), dtype="int32", name="token_ids")
    mask = ops.expand_dims(ops.cast(ops.not_equal(ids, 0), "float32"), -1)
    places = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    word = layers.Embedding(config.vocabulary + 1, config.width, name="word",
                            embeddings_initializer=random)(ids)  # fmt: skip
    position = layers.Embedding(length or config.positions, config.width, name="position",
                                embeddings_initializer=random)(places)  # fmt: skip
    x = layers.Add(name="embed_add")([word, position])
    x = layers.Dropout(config.dropout, name="embed_drop")(x)
    x = layers.Concatenate(name="embed_out")([x, mask])
    for number in range(config.blocks):
        x = _block(x, config, f"block{number}", {"kernel_initializer": random})
    x, mask = x[..., : config.width], x[..., config.width :]
    x = layers.LayerNormalization(epsilon=config.epsilon, name="final_norm")(x)
    # 1 at the last token: it is there, and the next is not.
    following = layers.ZeroPadding1D((0, 1), name="following")(mask)[:, 1:]
    last = layers.Activation("linear", name="last")(ops.sum(x * (mask - following), axis=1))
    return keras.Model(ids, last, name="gpt2")


def _block(
    x: keras.KerasTensor, config: GPT2Config, name: str, dense: dict[str, Any]
) -> keras.KerasTensor:
    """Attention and two dense layers, each on what was normalised, and added (pre-norm)."""
    from keras import layers

    x, mask = x[..., : config.width], x[..., config.width :]
    norm = layers.LayerNormalization(epsilon=config.epsilon, name=f"{name}_attention_norm")(x)
    way = self_attention(norm, config.heads, name, bias=_look_back(mask, name),
                         dropout=config.attention_dropout, **dense)  # fmt: skip
    way = layers.Dropout(config.dropout, name=f"{name}_attention_drop")(way)
    x = layers.Add(name=f"{name}_attention_add")([x, way])
    way = layers.LayerNormalization(epsilon=config.epsilon, name=f"{name}_norm")(x)
    way = layers.Dense(config.inner, name=f"{name}_up", **dense)(way)
    way = activate(way, config.activation, f"{name}_activation")
    way = layers.Dense(config.width, name=f"{name}_down", **dense)(way)
    way = layers.Dropout(config.dropout, name=f"{name}_down_drop")(way)
    x = layers.Add(name=f"{name}_add")([x, way])
    return layers.Concatenate(name=f"{name}_out")([x, mask])


def _look_back(mask: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """What is added to scores (n, 1, t, t) so that no token sees a later one.

    Padding stands on the right, so that this keeps it from every token, too.
    """
    from keras import layers, ops

    places = ops.cumsum(ops.ones_like(mask), axis=1)
    seen = ops.cast(ops.less_equal(ops.transpose(places, (0, 2, 1)), places), "float32")
    bias = layers.Rescaling(-MASKED, offset=MASKED, name=f"{name}_bias")(seen)
    return ops.expand_dims(bias, 1)


def _expected(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    width, inner = config.width, config.inner
    kernels = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width),
               "mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}  # fmt: skip
    found: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocabulary, width), "wpe.weight": (config.positions, width)}
    norms = ["ln_f"]
    for number in range(config.blocks):
        norms += [f"h.{number}.ln_1", f"h.{number}.ln_2"]
        for stem, shape in kernels.items():
            found[f"h.{number}.{stem}.weight"] = shape
            found[f"h.{number}.{stem}.bias"] = shape[1:]
    for stem in norms:
        found[f"{stem}.weight"] = found[f"{stem}.bias"] = (width,)
    return found


def _tensors(path: Path, config: GPT2Config) -> dict[str, np.ndarray]:
    """Read the decoder's tensors, each of which must be known and of the right shape."""
    found = {}
    for name, values in read_safetensors(path).items():
        name = name.removeprefix("transformer.")
        if not _BUFFERS.match(name):
            found[name] = values
    output = found.pop(_OUTPUT, None)
    check_tensors(path, found, _expected(config))
    if output is not None and not np.array_equal(output, found["wte.weight"]):
        raise ModelError(f"'{path}': lm_head is not the word table; expected GPT-2, whose output "
                         "layer has the word table's weights")
    return found


def _fill(model: keras.Model, tensors: Mapping[str, np.ndarray], config: GPT2Config) -> None:
    def of(stem: str) -> list[np.ndarray]:
        return [np.asarray(tensors[f"{stem}.{kind}"], np.float32) for kind in ("weight", "bias")]

    table = np.asarray(tensors["wte.weight"], np.float32)
    model.get_layer("word").set_weights([np.concatenate([np.zeros_like(table[:1]), table])])
    position = model.get_layer("position")
    position.set_weights([np.asarray(tensors["wpe.weight"][: position.input_dim], np.float32)])
    model.get_layer("final_norm").set_weights(of("ln_f"))
    for number in range(config.blocks):
        for role, stem in _LAYERS.items():
            model.get_layer(f"block{number}_{role}").set_weights(of(f"h.{number}.{stem}"))
        kernels, biases = (np.split(part, 3, axis=-1) for part in of(f"h.{number}.attn.c_attn"))
        for role, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True):
            model.get_layer(f"block{number}_{role}").set_weights([kernel, bias])


def score_next(model: keras.Model, ids: np.ndarray) -> np.ndarray:
    """Return how well each token goes on with texts.

    Args:
        model: A decoder, trained further or not, perhaps with a head behind `last`.
        ids: int32 (n, length), padded with 0 on the right.

    Returns:
        Logits, float32 (n, vocabulary + 1), by id; that of padding is -inf.
    """
    import keras

    base = keras.Model(model.inputs[0], model.get_layer("last").output)
    table = np.asarray(model.get_layer("word").embeddings)
    scores = np.asarray(base.predict(ids, verbose=0)) @ table.T
    scores[:, 0] = -np.inf
    return scores


def generate(model: keras.Model, tokenizer: ByteBPE, text: str, count: int = 20) -> str:
    """Go on with a text, each time by the likeliest token: a look at what a model has learned.

    Nothing is kept from one token to the next, so this is for a few.

    Args:
        model: A decoder, trained further or not, perhaps with a head behind `last`.
        tokenizer: Its own.
        text: The beginning.
        count: Most tokens; it ends sooner where the text does, or the model has no room.

    Returns:
        What comes behind the text.
    """
    length = model.inputs[0].shape[1] or model.get_layer("position").input_dim
    ids = tokenizer.encode(text, length)
    start, end = len(ids), tokenizer.encode(tokenizer.settings["end"], 1)[0]
    for _ in range(min(count, length - start)):
        batch: np.ndarray = np.zeros((1, length), np.int32)
        batch[0, : len(ids)] = ids
        best = int(score_next(model, batch)[0].argmax())
        if best == end:
            break
        ids.append(best)
    return tokenizer.decode(ids[start:])
