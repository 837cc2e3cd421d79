"""Makes a tokenizer again from a run: what it does is in the record, its vocabulary in files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_keras.errors import ModelError
from tl_keras.modalities.text.reader import Tokenizer
from tl_keras.utils.files import read_small

__all__ = ["KINDS", "make_tokenizer"]

KINDS = {
    "wordpiece": ("tl_keras.modalities.text.wordpiece", "WordPiece", ("vocab.txt",)),
    "byte_bpe": ("tl_keras.modalities.text.byte_bpe", "ByteBPE", ("vocab.json", "merges.txt")),
}
"""By name: module, class, and the files of the vocabulary."""
_MOST_BYTES = 64_000_000


def make_tokenizer(settings: Mapping[str, Any], folder: Path) -> Tokenizer:
    """Make the tokenizer that `settings` describe, its vocabulary from files in a folder.

    Raises:
        ModelError: Its kind is unknown, or a file is missing or does not read.
    """
    name = settings.get("kind")
    if name not in KINDS:
        raise ModelError(f"got the tokenizer {name!r}; expected one of {', '.join(KINDS)}")
    module, kind, names = KINDS[name]
    try:
        contents = [read_small(folder / one, _MOST_BYTES) for one in names]
    except OSError as error:
        raise ModelError(f"the vocabulary in {folder} cannot be read: {error}") from error
    rules = {key: value for key, value in settings.items() if key != "kind"}
    return getattr(importlib.import_module(module), kind).from_settings(rules, *contents)
