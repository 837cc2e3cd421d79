"""Gives a Keras base the tensors that torch saved for the same network.

The tables of `torch_names` say which tensors belong to which layer; here they are turned into
Keras' order of axes. Every tensor must have its place and every place its tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.torch_names import ORIGINS, TorchNames

if TYPE_CHECKING:
    import keras

    from tl_keras.models.backbones.registry import BackboneInfo

__all__ = ["fill_from_torch"]

_NORMALIZATION = {
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    "LayerNormalization": ("weight", "bias"),
}


def fill_from_torch(
    plain: keras.Model, tensors: Mapping[str, np.ndarray], info: BackboneInfo, path: Path
) -> TorchNames:
    """Set all weights of a base from tensors by the names of a program of torch.

    Args:
        plain: The base as its constructor built it.
        tensors: Name to array, in torch's order of axes.
        info: The base's entry.
        path: Where the tensors come from, for messages.

    Returns:
        Whose names they were.

    Raises:
        ModelError: They are of another network: a tensor is missing, left over or of another
            shape, or the names are of no program that is known.
    """
    names = _origin(tensors, info, path)
    left = {name for name in tensors
            if not any(re.fullmatch(one, name) for one in names.ignores())}
    layers = [layer for layer in plain.layers if layer.weights]
    for layer, prefix in zip(layers, _prefixes(layers, names), strict=True):
        arrays = {}
        for name, array in _arrays(layer, prefix, tensors):
            if array is None:
                raise _mismatch(path, info, f"it has no {name!r}, which is {layer.name!r} here")
            arrays[name] = array
            left.discard(name)
        wanted = [tuple(weight.shape) for weight in layer.weights]
        shapes = [array.shape for array in arrays.values()]
        if shapes != wanted:
            raise _mismatch(
                path, info, f"{prefix!r} gives {layer.name!r} {shapes}, expected {wanted}")
        layer.set_weights(list(arrays.values()))
    if left:
        raise _mismatch(
            path, info, f"{len(left)} of its tensors have no place, such as {min(left)!r}")
    return names


def _origin(
    tensors: Mapping[str, np.ndarray], info: BackboneInfo, path: Path
) -> TorchNames:
    known = [names for names in ORIGINS if names.module == info.module]
    for names in known:
        if names.sign in tensors:
            return names
    if not known:
        raise ModelError(
            f"weights that torch saved are not known how to take for {info.name}; give a file of "
            "Keras (.weights.h5, .h5 or .keras)")
    signs = " or ".join(f"{names.sign!r} ({names.origin})" for names in known)
    raise _mismatch(path, info, f"it has no {signs}; its first tensor is {next(iter(tensors))!r}")


def _mismatch(path: Path, info: BackboneInfo, why: str) -> ModelError:
    return ModelError(
        f"{path} does not hold weights of {info.name}: {why}; give the file of this base, or "
        "choose the base it was made for")


def _prefixes(layers: list[Any], names: TorchNames) -> list[str]:
    """What each layer is called there."""
    found: list[tuple[str, dict[str, str]]] = []
    blocks: dict[tuple[str, str], int] = {}
    for layer in layers:
        for pattern, template in names.rules:
            match = re.fullmatch(pattern, layer.name)
            if match:
                groups = match.groupdict()
                found.append((template, groups))
                if "block" in groups:
                    blocks.setdefault((groups.get("stage", ""), groups["block"]), len(blocks))
                break
        else:
            raise ModelError(f"layer {layer.name!r} has no place in files of {names.origin}")
    return [template.format(**_fields(groups, blocks)) for template, groups in found]


def _fields(groups: dict[str, str], blocks: dict[tuple[str, str], int]) -> dict[str, Any]:
    """What stands for the groups of a pattern in a prefix."""
    key = (groups.get("stage", ""), groups.get("block", ""))
    fields: dict[str, Any] = {"flat": blocks.get(key), **groups}
    for name, text in groups.items():
        fields[f"{name}0"] = int(text) - 1 if text.isdigit() else ord(text[0]) - ord("a")
    return fields


def _arrays(
    layer: Any, prefix: str, tensors: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray | None]]:
    """The tensors of a layer by name, in Keras' order of weights and axes; None where missing."""
    kind = type(layer).__name__
    if kind in _NORMALIZATION:
        for part in _NORMALIZATION[kind]:
            yield f"{prefix}.{part}", tensors.get(f"{prefix}.{part}")
        return
    kernel = tensors.get(f"{prefix}.weight")
    yield f"{prefix}.weight", None if kernel is None else _kernel(kind, kernel)
    if layer.use_bias:
        yield f"{prefix}.bias", tensors.get(f"{prefix}.bias")


def _kernel(kind: str, kernel: np.ndarray) -> np.ndarray:
    """Torch's (out, in, height, width) or (out, in) in Keras' order."""
    if kind == "Conv2D" and kernel.ndim == 4:
        return kernel.transpose(2, 3, 1, 0)
    if kind == "DepthwiseConv2D" and kernel.ndim == 4:
        return kernel.transpose(2, 3, 0, 1)
    if kind == "Dense" and kernel.ndim == 4 and kernel.shape[2:] == (1, 1):
        kernel = kernel[:, :, 0, 0]
    return kernel.T if kind == "Dense" else kernel
