"""GPT-2 one token at a time: what earlier tokens left goes in, and comes out with the new one's.

What a device generates by: the work for a token does not grow with those before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["INPUTS", "OUTPUTS", "build_step", "empty_cache"]

INPUTS = ("token_ids", "place", "keys", "values")
OUTPUTS = ("scores", "new_keys", "new_values")


def build_step(model: keras.Model) -> keras.Model:
    """Build the decoder's step, which shares its layers with a decoder.

    Args:
        model: A decoder of a fixed length, as `gpt2.build` makes it, trained further or not,
            perhaps with a head behind `last`; without LoRA, which is merged first.

    Returns:
        A model from `token_ids` and `place`, int32 (n, 1): a token, and how many came before it;
        `keys` and `values`, float32 (n, blocks, length, width): what those left, see
        :func:`empty_cache`; to how well each token goes on, logits float32 (n, vocabulary + 1), and
        the two with the token's own.

    Raises:
        ModelError: It is no such decoder.
    """
    import keras
    from keras import layers, ops

    blocks = _count_blocks(model)
    length, width = model.inputs[0].shape[1], model.get_layer("word").output_dim
    if not blocks or length is None:
        raise ModelError(
            f"got '{model.name}', which is no decoder of a fixed length; expected what "
            "gpt2:FOLDER builds")
    ids = keras.Input((1,), dtype="int32", name=INPUTS[0])
    place = keras.Input((1,), dtype="int32", name=INPUTS[1])
    cached = [keras.Input((blocks, length, width), name=name) for name in INPUTS[2:]]
    here = ops.expand_dims(ops.one_hot(place[:, 0], length), -1)
    # 1 for the token's own place and those before it.
    seen = ops.flip(ops.cumsum(ops.flip(here, axis=1), axis=1), axis=1)
    bias = ops.transpose((seen - 1.0) * 30.0, (0, 2, 1))
    x = model.get_layer("word")(ids) + model.get_layer("position")(place)
    kept: tuple[list[Any], list[Any]] = ([], [])
    for number in range(blocks):
        before = [one[:, number] for one in cached]
        x, keys, values = _step_block(model, f"block{number}", x, before, here, bias)
        kept[0].append(keys)
        kept[1].append(values)
    x = model.get_layer("final_norm")(x)[:, 0]
    table = np.asarray(model.get_layer("word").embeddings)
    output = layers.Dense(len(table), use_bias=False, name="word_scores")
    scores = output(x)
    output.set_weights([table.T])
    return keras.Model([ids, place, *cached], [scores, *(ops.stack(one, axis=1) for one in kept)],
                       name=f"{model.name}_step")  # fmt: skip


def _count_blocks(model: keras.Model) -> int:
    names = {layer.name for layer in model.layers}
    needed = {"word", "position", "final_norm"} <= names
    return sum(f"block{n}_query" in names for n in range(len(names))) if needed else 0


def _step_block(
    model: keras.Model, name: str, x: Any, before: list[Any], here: Any, bias: Any
) -> tuple[Any, Any, Any]:
    """Run the layers of a block on one token, its key and value put among the earlier ones."""
    from keras import ops

    def layer(role: str) -> Any:
        return model.get_layer(f"{name}_{role}")

    norm = layer("attention_norm")(x)
    keys, values = (old * (1.0 - here) + layer(role)(norm) * here
                    for old, role in zip(before, ("key", "value"), strict=True))
    heads = layer("query_heads").target_shape[1]

    def split(part: Any) -> Any:
        shape = (-1, part.shape[1], heads, part.shape[2] // heads)
        return ops.transpose(ops.reshape(part, shape), (0, 2, 1, 3))

    query = split(layer("query")(norm))
    scores = ops.matmul(query, ops.transpose(split(keys), (0, 1, 3, 2)))
    scores = scores * query.shape[-1] ** -0.5 + ops.expand_dims(bias, 1)
    found = ops.transpose(ops.matmul(ops.softmax(scores), split(values)), (0, 2, 1, 3))
    x = x + layer("project")(ops.reshape(found, (-1, 1, x.shape[-1])))
    way = layer("up")(layer("norm")(x))
    activation = [one for one in model.layers if one.name == f"{name}_activation"]
    way = activation[0](way) if activation else ops.gelu(way, approximate=True)
    return x + layer("down")(way), keys, values


def empty_cache(step: keras.Model, count: int = 1) -> dict[str, np.ndarray]:
    """Return `keys` and `values` as they are before the first token of `count` texts: zeros."""
    shape = (count, *step.inputs[2].shape[1:])
    return {name: np.zeros(shape, np.float32) for name in INPUTS[2:]}
