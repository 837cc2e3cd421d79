"""What a model is shown: images, texts. Each modality is one object that reads and checks.

A new modality is a subclass of :class:`tl_keras.modalities.base.Modality` in a folder of its own
and a name in `MODALITIES`, or :func:`register` from anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tl_keras import tasks
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality
from tl_keras.utils.registry import Registry
from tl_keras.utils.suggest import nearest

__all__ = ["MODALITIES", "Modality", "get", "names", "parse_task", "register"]

MODALITIES: Registry[Modality] = Registry(
    "modality",
    {
        "image": "tl_keras.modalities.image.modality:ImageModality",
        "text": "tl_keras.modalities.text.modality:TextModality",
    },
)
names, register = MODALITIES.names, MODALITIES.register


def get(
    name: str | Modality,
    settings: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Modality:
    """Return a modality by its name.

    Args:
        name: Its name, or itself.
        settings: As :attr:`Modality.settings` of a data set that others are read like.
        folder: Where its :attr:`Modality.files` lie.

    Raises:
        DataError: There is none of that name.
    """
    found = name if isinstance(name, Modality) else MODALITIES.get(name)
    return found.with_settings(settings, folder) if settings else found


def parse_task(word: str) -> tuple[str, str]:
    """Return the modality and the task that a user's word asks for.

    Args:
        word: A task ("tags"), which is of images; a modality ("text"), which is classified; or
            both ("text-tags").

    Raises:
        DataError: Neither is known.
    """
    modality, _, task = word.partition("-")
    if modality not in MODALITIES.names() or modality == "image":
        modality, task = "image", word.removeprefix("image-")
    task = task or "classes"
    if task not in tasks.names():
        others = [name for name in MODALITIES.names() if name != "image"]
        known = [*tasks.names(), *others, *(f"{one}-{name}" for one in others
                                            for name in tasks.names() if name != "classes")]
        near = nearest(word, known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"unknown task {word!r}; expected one of {', '.join(known)}.{hint}")
    return modality, task
