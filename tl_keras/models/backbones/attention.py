"""Self-attention of stock layers, in which each weight is a Dense layer's.

`keras.layers.MultiHeadAttention` is one layer with einsum kernels inside: LoRA and quantization
reach a Dense layer, and do not reach those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["MASKED", "self_attention"]

MASKED = -30.0
"""What is added to the scores of positions that are not looked at.

exp(-30) is 1e-13; the usual -1e4 would take the whole range of an int8 tensor.
"""


def self_attention(
    x: keras.KerasTensor, heads: int, name: str, *, bias: keras.KerasTensor | None = None,
    dropout: float = 0.0, **dense: Any,
) -> keras.KerasTensor:  # fmt: skip
    """Let each position of a sequence gather from the others (Vaswani et al., arXiv 1706.03762).

    softmax(q k' / sqrt(width / heads) + bias) v for each head, and a projection of what they give
    together: the layers `NAME_query`, `NAME_key`, `NAME_value` and `NAME_project`.

    Args:
        x: A sequence (n, t, width).
        heads: Number of heads; it divides the width.
        name: What the layers' names begin with.
        bias: Added to the scores (n, heads, t, t), in a shape that broadcasts; None for nothing.
        dropout: Share of the attention weights that are dropped in training.
        dense: Of every Dense layer, such as `kernel_initializer`.

    Returns:
        (n, t, width).
    """
    from keras import layers, ops

    width = x.shape[-1]
    parts = []
    for role, axes in (("query", (2, 1, 3)), ("key", (2, 3, 1)), ("value", (2, 1, 3))):
        part = layers.Dense(width, name=f"{name}_{role}", **dense)(x)
        part = layers.Reshape((-1, heads, width // heads), name=f"{name}_{role}_heads")(part)
        parts.append(layers.Permute(axes, name=f"{name}_{role}_permuted")(part))
    query, key, value = parts
    scores = layers.Rescaling((width // heads) ** -0.5, name=f"{name}_scale")(
        ops.matmul(query, key))
    if bias is not None:
        scores = layers.Add(name=f"{name}_masked")([scores, bias])
    weights = layers.Softmax(name=f"{name}_softmax")(scores)
    if dropout:
        weights = layers.Dropout(dropout, name=f"{name}_drop")(weights)
    found = layers.Permute((2, 1, 3), name=f"{name}_found")(ops.matmul(weights, value))
    found = layers.Reshape((-1, width), name=f"{name}_joined")(found)
    return layers.Dense(width, name=f"{name}_project", **dense)(found)
