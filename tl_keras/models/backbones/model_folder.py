"""Folders of models as Hugging Face's packages lay them out: config.json and model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.utils.files import read_small

if TYPE_CHECKING:
    import keras

__all__ = ["ACTIVATIONS", "activate", "check_tensors", "model_folder", "read_config",
           "weights_file", "whole_number"]

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
"""Name in config.json -> what `activate` calls it: "gelu" is by erf, "gelu_tanh" approximate."""

_LARGEST_CONFIG = 2**24


def model_folder(place: str | Path) -> Path:
    """Return the folder of a model.

    Raises:
        ModelError: It is none.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"got {str(place)!r}, which is no folder; expected one with config.json and "
            "model.safetensors")
    return folder


def read_config(folder: Path, name: str = "config.json", *, needed: bool = True) -> dict[str, Any]:
    """Read a JSON object of a folder.

    Args:
        folder: The folder.
        name: Of the file.
        needed: Whether it is an error that it is not there, instead of an empty answer.

    Raises:
        ModelError: It is missing or no JSON object.
    """
    path = folder / name
    if not needed and not path.exists():
        return {}
    try:
        found = json.loads(read_small(path, _LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' cannot be read: {error}; expected the folder of a model with "
                         "config.json and model.safetensors") from error
    if not isinstance(found, dict):
        raise ModelError(f"'{path}' holds {type(found).__name__}; expected a JSON object")
    return found


def whole_number(folder: Path, config: Mapping[str, Any], key: str, most: int) -> int:
    """Return a number of a config.json that must be from 1 to `most`.

    Raises:
        ModelError: It is not.
    """
    found = config.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= most:
        raise ModelError(
            f"'{folder}': config.json has {key} = {found!r}; expected a whole number from 1 to "
            f"{most:,}")
    return found


def weights_file(folder: Path) -> Path:
    """Return the file with a folder's weights.

    Raises:
        ModelError: It has none that is read; what it has is named.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    names = sorted(one.name for one in folder.iterdir()
                   if one.suffix in (".bin", ".safetensors", ".h5", ".msgpack", ".pt", ".pth")
                   or one.name.endswith(".index.json"))
    there = f"; it has {', '.join(names[:4])}" if names else ""
    raise ModelError(
        f"'{folder}' has no model.safetensors{there}; save the model whole as that: "
        "model.save_pretrained(FOLDER, safe_serialization=True, max_shard_size='4GB')")


def check_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare what a file holds with what a model needs: each tensor, its shape and kind.

    Args:
        path: The file, for messages.
        tensors: What it holds.
        expected: Name -> shape of all that must be there, and nothing else.

    Raises:
        ModelError: One is missing, too many or of another shape; the first are named.
    """
    def told(names: list[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    missing = [name for name in expected if name not in tensors]
    others = [name for name in tensors if name not in expected]
    if missing or others:
        parts = [f"lacks {told(missing)}"] * bool(missing)
        parts += [f"holds {told(others)} besides"] * bool(others)
        raise ModelError(f"'{path}' {' and '.join(parts)}; expected the {len(expected)} tensors of "
                         "the model that its config.json describes")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelError(
                f"'{path}': {name} has the shape {tensors[name].shape}; expected {shape} after "
                "config.json")
        if not np.issubdtype(tensors[name].dtype, np.floating):
            raise ModelError(f"'{path}': {name} is {tensors[name].dtype}; expected floats "
                             "(quantized weights are not read)")


def activate(x: keras.KerasTensor, activation: str, name: str) -> keras.KerasTensor:
    """Apply an activation by a value of `ACTIVATIONS`; what Keras has as a layer is named."""
    import keras

    if activation == "gelu_tanh":
        return keras.ops.gelu(x, approximate=True)
    return keras.layers.Activation(activation, name=name)(x)
