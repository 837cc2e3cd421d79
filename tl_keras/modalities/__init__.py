"""What a model is shown: images. Each modality is one object that reads, checks and describes.

A new modality is a subclass of :class:`tl_keras.modalities.base.Modality` in a folder of its own
and a name in `MODALITIES`, or :func:`register` from anywhere.
"""

from __future__ import annotations

from tl_keras.modalities.base import Modality
from tl_keras.utils.registry import Registry

__all__ = ["MODALITIES", "Modality", "get", "names", "register"]

MODALITIES: Registry[Modality] = Registry(
    "modality", {"image": "tl_keras.modalities.image.modality:ImageModality"}
)
get, names, register = MODALITIES.get, MODALITIES.names, MODALITIES.register
