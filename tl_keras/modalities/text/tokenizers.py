"""Makes a tokenizer again from a run: what it does is in the record, its vocabulary in files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_keras.errors import ModelError
from tl_keras.modalities.text.reader import Tokenizer
from tl_keras.utils.files import read_small

__all__ = ["KINDS", "make_tokenizer", "read_programs"]

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


def read_programs(kind: str) -> dict[str, bytes]:
    """Return what cuts a text into tokens without this package, as files by name.

    Args:
        kind: Of a tokenizer.

    Returns:
        tokenizer.py, which needs nothing but Python; and characters.json, its tables, where it has
        some, for programs in other languages.
    """
    core = importlib.import_module(f"{KINDS[kind][0]}_core")
    found = {"tokenizer.py": Path(str(core.__file__)).read_bytes()}
    if tables := getattr(core, "TABLES", None):
        found["characters.json"] = (json.dumps(tables, indent=1) + "\n").encode()
    return found
