"""What a saved model needs besides Keras: the packages that its layers come from.

Bases are made of Keras' own layers wherever they can be. Where one cannot, run.json names the
package, and so does the error of whoever opens the model without it.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.errors import ModelError
from tl_keras.models.graph import is_functional, steps

if TYPE_CHECKING:
    import keras

__all__ = ["prepare_to_load", "required_packages"]

_PACKAGES = {"keras_hub": "keras-hub"}
_LARGEST_CONFIG = 2**28


def required_packages(model: keras.Model) -> list[str]:
    """Return the packages, other than Keras, whose layers a model holds, as pip names them."""
    found = set()
    for step in steps(model):
        if is_functional(step.operation):
            found |= set(required_packages(step.operation))
        found.add(type(step.operation).__module__.split(".")[0])
    return sorted(_PACKAGES.get(name, name) for name in found - {"keras"})


def prepare_to_load(path: Path) -> None:
    """Make the layers of a .keras file known to Keras.

    Raises:
        ModelError: They come from a package that is not installed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                return
            config = archive.read("config.json")
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError):
        return  # what is wrong with it is told by who loads it
    if b'"tl_keras>' in config:
        from tl_keras.models.backbones.opaque import register

        register()
    for package, name in _PACKAGES.items():
        if f'"{package}.'.encode() in config and importlib.util.find_spec(package) is None:
            raise ModelError(f"{path} holds layers of {name}, which is not installed: pip install "
                             f"{name}, or tl_keras with the extra [hub]")
