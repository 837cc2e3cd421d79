"""What a model is shown: images. Each modality is one object that reads, checks and describes.

A new modality is a subclass of :class:`tl_keras.modalities.base.Modality` in a folder of its own
and a name in `_BUILTIN`, or :func:`register` from anywhere.
"""

from __future__ import annotations

import importlib

from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality

__all__ = ["Modality", "get", "names", "register"]

_BUILTIN = {"image": "tl_keras.modalities.image.modality:ImageModality"}
_REGISTERED: dict[str, Modality] = {}


def names() -> list[str]:
    """Return the names of all modalities, those of the package first."""
    return [*_BUILTIN, *(name for name in _REGISTERED if name not in _BUILTIN)]


def get(name: str) -> Modality:
    """Return a modality by its name.

    Raises:
        DataError: There is none of that name.
    """
    if name not in _REGISTERED:
        if name not in _BUILTIN:
            raise DataError(f"unknown modality {name!r}; expected one of {', '.join(names())}")
        module, _, kind = _BUILTIN[name].partition(":")
        _REGISTERED[name] = getattr(importlib.import_module(module), kind)()
    return _REGISTERED[name]


def register(modality: Modality) -> Modality:
    """Add a modality under its own name, and return it."""
    _REGISTERED[modality.name] = modality
    return modality
