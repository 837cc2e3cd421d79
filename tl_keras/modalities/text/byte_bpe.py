"""Byte-level BPE: the words of a text as numbers, exactly as GPT-2's own tokenizer gives them.

What cuts a text stands in `byte_bpe_core`, which runs wherever a model does; this reads it from
the folders of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.modalities.text import byte_bpe_core
from tl_keras.utils.files import read_small

__all__ = ["ByteBPE"]

_END = "<|endoftext|>"
_MOST_BYTES = 64_000_000


class ByteBPE(byte_bpe_core.Tokenizer):
    """A tokenizer by merges of bytes.

    Attributes:
        settings: Fit for JSON, see :class:`tl_keras.modalities.text.byte_bpe_core.Tokenizer`.
        files: vocab.json and merges.txt, by name.
    """

    kind = "byte_bpe"

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes, merges: bytes) -> None:
        self.files = {"vocab.json": vocabulary, "merges.txt": merges}
        try:
            super().__init__(settings, vocabulary, merges)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(" ".join(map(str, error.args))) from error

    @classmethod
    def from_folder(cls, folder: str | Path) -> ByteBPE:
        """Read vocab.json and merges.txt of a model folder, and tokenizer.json if it is there.

        Raises:
            ModelError: A file is missing or is not of a byte-level BPE.
        """
        folder = Path(folder)
        full = _read(folder / "tokenizer.json", needed=False)
        try:
            if full is None:
                vocabulary, merges = (_read(folder / name) for name in ("vocab.json", "merges.txt"))
                known = byte_bpe_core.read_vocabulary(vocabulary or b"")
                special = [_END] if _END in known else []
                end = _END if special else next(iter(known))
                settings = {"special": special, "space": False, "end": end}
            else:
                settings, vocabulary, merges = _settings_of(json.loads(full))
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            if isinstance(error, ValueError):
                raise ModelError(f"'{folder}': {error}") from None
            raise ModelError(
                f"the tokenizer in '{folder}' cannot be read ({type(error).__name__}: {error}); "
                "expected the files of a GPT-2 tokenizer") from error
        return cls(settings, vocabulary or b"", merges or b"")

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], vocabulary: bytes, merges: bytes
    ) -> ByteBPE:
        """Return the tokenizer that has these `settings` and these `files`."""
        return cls(settings, vocabulary, merges)

    def __len__(self) -> int:
        """Return the number of ids, that of padding among them."""
        return max(self._tokens) + 1 + self.shift

    def encode(self, text: str, length: int) -> list[int]:
        """Return the ids of a text, cut to a length of 1 or more."""
        if length < 1:
            raise ModelError(f"got a length of {length} tokens; expected 1 or more")
        return super().encode(text, length)

    def encode_batch(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Return the ids of texts, int32 (n, length), padded with 0 on the right."""
        rows = [self.encode(text, length) for text in texts]
        batch: np.ndarray = np.zeros((len(rows), length), np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch


def _read(path: Path, *, needed: bool = True) -> bytes | None:
    if not needed and not path.exists():
        return None
    try:
        return read_small(path, _MOST_BYTES)
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error}; expected a folder with vocab.json "
                         "and merges.txt") from error


def _settings_of(full: Mapping[str, Any]) -> tuple[dict[str, Any], bytes, bytes]:
    """Return the settings, the vocabulary and the merges that a tokenizer.json states."""
    model, cutter = full["model"], full.get("pre_tokenizer") or {}
    kinds = (model.get("type", "BPE"), cutter.get("type"), full.get("normalizer"))
    if kinds != ("BPE", "ByteLevel", None) or not cutter.get("use_regex", True):
        raise ModelError(
            f"tokenizer.json has {', '.join(map(str, kinds))}; expected BPE, ByteLevel, no "
            "normalizer, as GPT-2 has them")
    added = full.get("added_tokens") or []
    for token in added:
        odd = [key for key in ("single_word", "lstrip", "rstrip") if token.get(key)]
        if odd:
            raise ModelError(
                f"tokenizer.json adds {token['content']!r} with {odd[0]}, which is not known; "
                "expected tokens that are matched as they stand")
    special = [str(token["content"]) for token in added]
    numbers = {**model["vocab"], **{str(token["content"]): token["id"] for token in added}}
    end = _END if _END in numbers else (special or list(numbers))[0]
    settings = {"special": special, "space": bool(cutter.get("add_prefix_space")), "end": end}
    pairs: Sequence[Any] = model["merges"]
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
    merges = "".join(f"{line}\n" for line in ("#version: 0.2", *lines))
    return settings, json.dumps(numbers, ensure_ascii=False).encode(), merges.encode()
