"""KerasHub's ViT and DeiT backbones as this project's vision transformer of stock layers.

KerasHub has each block in a layer of its own, which cannot be cut, adapted, or loaded by Keras
alone; the network is the same, so that its weights only have to be laid out anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.models.backbones.vit import VitConfig, build_vit

if TYPE_CHECKING:
    import keras

__all__ = ["KINDS", "rewrite_vit"]

KINDS = ("ViTBackbone", "DeiTBackbone")
"""Classes that are understood."""

_BLOCK = "{0}_encoder/transformer_block_{1}"
# Layer of ours behind "blockN_" -> KerasHub's, of ViT and of DeiT.
_LAYERS = {
    "attention_norm": ("ln_1", "ln_1"),
    "query": ("mha/query", "mha/query"),
    "key": ("mha/key", "mha/key"),
    "value": ("mha/value", "mha/value"),
    "project": ("mha/attention_output", "mha/attention_output"),
    "norm": ("ln_2", "ln_2"),
    "up": ("mlp/dense_1", "mlp/dense"),
    "down": ("mlp/dense_2", "output_layer/output"),
}


def rewrite_vit(backbone: Any) -> keras.Model:
    """Build a ViT or DeiT of stock layers with the weights of KerasHub's.

    Args:
        backbone: One of `KINDS`.

    Returns:
        From what the backbone takes, float32 (None, size, size, 3), to its sequence.
    """
    config = backbone.get_config()
    is_deit = type(backbone).__name__ == "DeiTBackbone"
    family = "deit" if is_deit else "vit"
    tensors = {variable.path: np.asarray(variable) for variable in backbone.variables}
    start = f"{family}_patching_and_embedding"
    tokens = [tensors[f"{start}/{name}"].reshape(-1)
              for name in ("class_token", "distillation_token") if f"{start}/{name}" in tensors]
    patch = config["patch_size"]
    shape = VitConfig(
        config["hidden_dim"], config["num_heads"],
        config["intermediate_dim" if is_deit else "mlp_dim"], config["num_layers"],
        patch if isinstance(patch, int) else patch[0], len(tokens), config["layer_norm_epsilon"])
    model = build_vit(shape, config["image_shape"][0], backbone.name)
    place = tensors[f"{start}/position_embedding" + ("" if is_deit else "/embeddings")]
    model.get_layer("embedding").set_weights(_embedding(tensors, start, tokens, place, shape.width))
    for number in range(shape.blocks):
        for name, sources in _LAYERS.items():
            source = f"{_BLOCK.format(family, number + 1)}/{sources[is_deit]}"
            _fill(model.get_layer(f"block{number}_{name}"), tensors, source)
    _fill(model.get_layer("norm"), tensors, f"{family}_encoder/ln")
    return model


def _embedding(tensors: dict[str, np.ndarray], start: str, tokens: list[np.ndarray],
               place: np.ndarray, width: int) -> list[np.ndarray]:
    """Patches' projection, tokens and position table as one kernel and a bias by position."""
    bias = place.reshape(-1, width).copy()
    for number, token in enumerate(tokens):
        bias[number] += token
    bias[len(tokens):] += tensors.get(f"{start}/patch_embedding/bias", 0.0)
    return [tensors[f"{start}/patch_embedding/kernel"].reshape(-1, width), bias]


def _fill(layer: Any, tensors: dict[str, np.ndarray], source: str) -> None:
    """Give a layer KerasHub's weights, heads joined; a bias that it leaves out is zero."""
    weights = []
    for weight in layer.weights:
        value = tensors.get(f"{source}/{weight.name}", np.zeros(weight.shape))
        weights.append(value.reshape(weight.shape))
    layer.set_weights(weights)
