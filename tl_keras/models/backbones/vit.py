"""Vision transformers of stock layers: ViT and DeiT, tiny and small, patches of 16 pixels.

Dosovitskiy et al. 2020 (arXiv 2010.11929); Steiner et al. 2021 (arXiv 2106.10270), whose sizes
tiny and small are; Touvron et al. 2020 (arXiv 2012.12877) for DeiT, which is the same network,
with one more token where it was distilled.

The patches' projection, the class token and the position embeddings are one layer: an EinsumDense
with a bias for each position. In front of the patches stands a row of zeros for each token, so
that what the layer gives there is its bias alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.attention import self_attention

if TYPE_CHECKING:
    import keras

__all__ = ["PATCH", "VARIANTS", "VitConfig", "build_vit", "distilled_vit_small16",
           "distilled_vit_tiny16", "embedding",
           "vit", "vit_small16", "vit_tiny16"]  # fmt: skip

PATCH = 16
"""Side of a patch in pixels."""

VARIANTS = {"tiny": (192, 3), "small": (384, 6)}
"""Width and attention heads; a head has 64 channels."""

_BLOCKS, _EXPANSION, _EPSILON = 12, 4, 1e-6


@dataclass(frozen=True)
class VitConfig:
    """The shape of a vision transformer.

    Attributes:
        width: Channels of a token.
        heads: Attention heads; they divide the width.
        inner: Units between the two dense layers of a block.
        blocks: Number of transformer blocks.
        patch: Side of a patch in pixels.
        tokens: Tokens before the patches: 1 for the class, 2 for a distilled one.
        epsilon: Of the layer normalizations.
    """

    width: int
    heads: int
    inner: int
    blocks: int = _BLOCKS
    patch: int = PATCH
    tokens: int = 1
    epsilon: float = _EPSILON


def vit(variant: str, size: int = 224, *, tokens: int = 1) -> keras.Model:
    """Build a vision transformer, without weights and without a head.

    Args:
        variant: "tiny" or "small".
        size: Side of the square image, pixels, a multiple of 16.
        tokens: 1 for the class token, 2 for a distilled DeiT, which has one for its teacher.

    Returns:
        A model from float32 (n, size, size, 3), scaled, to `norm`, float32
        (n, tokens + (size / 16)², width): the tokens first, then the patches row by row.

    Raises:
        ModelError: There is no such variant, or `size` is no multiple of 16.
    """
    if variant not in VARIANTS:
        raise ModelError(f"got ViT {variant!r}; expected one of {', '.join(VARIANTS)}")
    width, heads = VARIANTS[variant]
    config = VitConfig(width, heads, _EXPANSION * width, tokens=tokens)
    return build_vit(config, size, f"vit_{variant}16")


def build_vit(config: VitConfig, size: int, name: str) -> keras.Model:
    """Build a vision transformer of any shape; see :func:`vit`.

    Raises:
        ModelError: `size` is no multiple of a patch's side.
    """
    import keras
    from keras import layers

    patch, tokens = config.patch, config.tokens
    if size < patch or size % patch:
        low = max(patch, size // patch * patch)
        raise ModelError(
            f"got size {size} for a vision transformer; expected a multiple of {patch}: {low} or "
            f"{low + patch}")
    side = size // patch
    images = keras.Input((size, size, 3), name="images")
    x = layers.Reshape((side, patch, side, patch * 3), name="rows_of_patches")(images)
    x = layers.Permute((1, 3, 2, 4), name="patches_of_rows")(x)
    x = layers.Reshape((side * side, patch * patch * 3), name="patches")(x)
    x = layers.ZeroPadding1D((tokens, 0), name="tokens")(x)
    x = layers.EinsumDense(
        "npi,io->npo", (tokens + side * side, config.width), bias_axes="po",
        kernel_initializer=_initializer(), bias_initializer=_initializer(), name="embedding")(x)
    for number in range(config.blocks):
        x = _block(x, config, f"block{number}")
    x = layers.LayerNormalization(epsilon=config.epsilon, name="norm")(x)
    return keras.Model(images, x, name=name)


vit_tiny16 = functools.partial(vit, "tiny")
vit_small16 = functools.partial(vit, "small")
distilled_vit_tiny16 = functools.partial(vit, "tiny", tokens=2)
distilled_vit_small16 = functools.partial(vit, "small", tokens=2)


def _initializer() -> keras.initializers.Initializer:
    import keras

    return keras.initializers.TruncatedNormal(stddev=0.02)


def _block(x: keras.KerasTensor, config: VitConfig, name: str) -> keras.KerasTensor:
    """Attention, then two dense layers, each behind a normalization and beside the identity."""
    from keras import layers

    way = layers.LayerNormalization(epsilon=config.epsilon, name=f"{name}_attention_norm")(x)
    way = self_attention(way, config.heads, name, kernel_initializer=_initializer())
    x = layers.Add(name=f"{name}_attention_add")([x, way])
    way = layers.LayerNormalization(epsilon=config.epsilon, name=f"{name}_norm")(x)
    way = layers.Dense(config.inner, kernel_initializer=_initializer(), name=f"{name}_up")(way)
    way = layers.Activation("gelu", name=f"{name}_activation")(way)
    way = layers.Dense(
        config.width, kernel_initializer=_initializer(), name=f"{name}_down")(way)
    return layers.Add(name=f"{name}_add")([x, way])


def embedding(
    tensors: Mapping[str, np.ndarray], names: Mapping[str, str], positions: int
) -> dict[str, np.ndarray]:
    """Join the tensors that a ViT's file has for its patches, tokens and positions.

    Args:
        tensors: Name to array, in torch's order of axes.
        names: What is called there "kernel" (width, 3, 16, 16), "bias" (width,), "positions"
            (1, tokens + n², width), "class" and "distilled" (1, 1, width).
        positions: What the base has: tokens and patches together.

    Returns:
        Of the layer `embedding`: "kernel" (768, width) and "bias" (positions, width). Position
        embeddings of another size are resized as timm does it: bicubic, antialiased.

    Raises:
        KeyError: One is missing.
        ValueError: They do not fit each other.
    """
    kernel = np.asarray(tensors[names["kernel"]], np.float32)
    if kernel.shape[1:] != (3, PATCH, PATCH):
        raise ValueError(f"patches of {kernel.shape[2:]} pixels; expected {PATCH} x {PATCH}")
    width = kernel.shape[0]
    tokens = [np.asarray(tensors[names[role]], np.float32).reshape(-1)
              for role in ("class", "distilled") if names.get(role) in tensors]
    place = np.asarray(tensors[names["positions"]], np.float32)
    if place.ndim != 3 or place.shape[::2] != (1, width) or place.shape[1] <= len(tokens):
        raise ValueError(f"position embeddings of shape {place.shape}")
    place = place[0]
    bias = np.asarray(tensors[names["bias"]], np.float32)
    grid = _resized(place[len(tokens) :], positions - len(tokens))
    first = place[: len(tokens)] + np.stack(tokens) if tokens else place[:0]
    return {"kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, width),
            "bias": np.concatenate([first, grid + bias])}  # fmt: skip


def _resized(grid: np.ndarray, patches: int) -> np.ndarray:
    """Square position embeddings (n², width) for another number of patches."""
    from PIL import Image

    old, new = math.isqrt(len(grid)), math.isqrt(patches)
    if old * old != len(grid) or new * new != patches:
        raise ValueError(f"position embeddings of {len(grid)} patches for {patches}")
    if old == new:
        return grid
    # Pillow's filter is the one that torch's antialiased bicubic interpolation follows.
    channels = [np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(
        (new, new), Image.Resampling.BICUBIC)) for plane in grid.reshape(old, old, -1).T]
    return np.stack(channels).T.reshape(patches, -1)
