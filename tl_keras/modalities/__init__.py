"""What a model is shown: images. Each modality is one object that reads, checks and describes.

A new modality is a subclass of :class:`tl_keras.modalities.base.Modality` in a folder of its own
and a name in `MODALITIES`, or :func:`register` from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_keras.modalities.base import Modality
from tl_keras.utils.registry import Registry

__all__ = ["MODALITIES", "Modality", "get", "names", "register"]

MODALITIES: Registry[Modality] = Registry(
    "modality", {"image": "tl_keras.modalities.image.modality:ImageModality"}
)
names, register = MODALITIES.names, MODALITIES.register


def get(name: str | Modality, settings: Mapping[str, Any] | None = None) -> Modality:
    """Return a modality by its name.

    Args:
        name: Its name, or itself.
        settings: As :attr:`Modality.settings` of a data set that others are read like.

    Raises:
        DataError: There is none of that name.
    """
    found = name if isinstance(name, Modality) else MODALITIES.get(name)
    return found.with_settings(settings) if settings else found
