"""Where bases come from other than the registry: a word, a colon and a place.

`hub:FOLDER` is a SavedModel or a handle of TF-Hub, `bert:FOLDER` a folder with a text encoder. A
source is a module with two functions:

    describe(name, place) -> BackboneInfo                 without TensorFlow, at once
    build(info, place, size, weights) -> keras.Model      flat, raw input, its features as output

and, where its bases are shown something else than images, `read_tokenizer(place)`.

A word alone ("minilm") stands for what is installed.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, replace
from types import ModuleType

from tl_keras.errors import ModelError

__all__ = ["SOURCES", "BackboneSource", "find_source", "modality_of"]

_HERE = "tl_keras.models.backbones."


@dataclass(frozen=True)
class BackboneSource:
    """One source of bases.

    Attributes:
        word: What stands before the colon.
        modality: What its bases are shown.
        module: Name of the module that knows it.
        place: What stands behind the colon, for messages.
        alone: Whether the word alone names a base.
        decides: Whether its module says by the place what a base is shown, `modality(place)`; ""
            where that cannot be known.
    """

    word: str
    modality: str
    module: str
    place: str
    alone: bool = False
    decides: bool = False

    def load(self) -> ModuleType:
        """Return its module."""
        return importlib.import_module(self.module)


SOURCES: dict[str, BackboneSource] = {
    source.word: source
    for source in (
        BackboneSource("bert", "text", f"{_HERE}bert", "FOLDER"),
        BackboneSource("distilbert", "text", f"{_HERE}bert", "FOLDER"),
        BackboneSource("gpt2", "text", f"{_HERE}gpt2", "FOLDER"),
        BackboneSource("hub", "image", f"{_HERE}saved_model", "FOLDER_OR_HANDLE"),
        BackboneSource("keras_hub", "image", f"{_HERE}keras_hub", "FOLDER_OR_PRESET",
                       decides=True),
        BackboneSource("minilm", "text", f"{_HERE}bert", "FOLDER", alone=True),
    )
}


def find_source(name: str) -> tuple[BackboneSource, str] | None:
    """Return the source that a base's name asks for, and the place in it; None for other names.

    Args:
        name: Such as "hub:/models/net"; the place may itself hold colons, as an address does.

    Raises:
        ModelError: The word is no source, or nothing stands behind it.
    """
    word, colon, place = str(name).partition(":")
    source = SOURCES.get(word.lower())
    if source is None:
        # One letter before a colon is a drive, a slash before it a path.
        if colon and re.fullmatch(r"[A-Za-z]\w+", word):
            raise ModelError(
                f"got base {str(name)!r}, whose source {word!r} is unknown; known are: "
                + ", ".join(f"{one.word}:{one.place}" for one in SOURCES.values())
            )
        return None
    if not place and (colon or not source.alone):
        raise ModelError(f"got base {str(name)!r}; expected {source.word}:{source.place}")
    if source.decides:
        source = replace(source, modality=source.load().modality(place))
    return source, place


def modality_of(name: str) -> str:
    """Return what a base by this name is shown; images where nothing else is said."""
    found = find_source(name)
    return (found[0].modality if found else "") or "image"
