"""Reads texts as the token ids that a model sees."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tl_keras.errors import DataError
from tl_keras.modalities.base import InputSpec

__all__ = ["INPUT", "MOST", "Text", "TextReader", "Tokenizer", "drop_tokens", "read_text"]

INPUT = "token_ids"
"""Name of the input of text models."""
MOST = 100_000
"""Characters of a text; no model here sees more than the first thousands."""
_DROPPED = 0.1


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is a sample itself, where a plain string would be the path of a file.

    Attributes:
        value: The text.
    """

    value: str


class Tokenizer(Protocol):
    """What makes token ids of texts.

    Attributes:
        kind: Its name, see `tl_keras.modalities.text.tokenizers.KINDS`.
        settings: What it does, JSON-able; with :attr:`files` it is made again.
    """

    kind: str
    settings: dict[str, Any]

    @property
    def files(self) -> dict[str, bytes]:
        """Its vocabulary, as files by name."""

    def encode_batch(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Return ids, int32 (n, length), cut off or filled up with 0."""

    def count(self, text: str) -> int:
        """Return how many tokens a text has, with those that mark its ends."""

    def unknown(self, text: str) -> int:
        """Return how many of its tokens stand for what the vocabulary does not have."""


def read_text(item: Any) -> str:
    """Return the text of a sample: itself, or the contents of its file (UTF-8).

    Raises:
        DataError: The file cannot be read, is longer than `MOST` or no UTF-8.
    """
    if isinstance(item, Text):
        return item.value
    try:
        # Four bytes a character at most.
        if os.path.getsize(item) > 4 * MOST:
            raise DataError(_too_long(f"{os.path.getsize(item):,} bytes"))
        with open(item, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{item} cannot be read: {error.strerror}") from error


def _too_long(what: str) -> str:
    return f"has {what}; expected at most {MOST:,} characters: split it into parts"


class TextReader:
    """Reads texts as token ids; what was read is kept, 4 bytes a token.

    Args:
        samples: Where the texts are.
        tokenizer: What makes ids of them.
        length: Ids of each text, with those that mark its ends.
        augment: "none" or "drop": in views each word piece is left out with probability 0.1
            (EDA, Wei and Zou 2019, arXiv 1901.11196).
        seed: With the text's key and the view's number, decides each view.
    """

    def __init__(
        self, samples: Any, tokenizer: Tokenizer, length: int, augment: str = "none", seed: int = 0
    ) -> None:
        self.samples = samples
        self.specs = {INPUT: InputSpec((length,), "int32", "ids of tokens, 0 for none")}
        self.seed = seed
        self.varied = augment == "drop"
        self._tokenizer, self._length = tokenizer, length
        self._ids: np.ndarray = np.zeros((len(samples), length), np.int32)
        self._there: np.ndarray = np.zeros(len(samples), bool)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.samples)

    def read(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> dict[str, np.ndarray]:
        """Return {"token_ids": int32 (n, length)}.

        Args:
            indices: Which texts, n of them.
            views: The augmented view of each, or one number for all; 0 is the plain text.

        Raises:
            DataError: A text cannot be read.
        """
        rows = np.asarray(indices, np.int64)
        new = np.unique(rows[~self._there[rows]])
        if len(new):
            texts = [self.samples.modality.open(self.samples.items[index]) for index in new]
            self._ids[new] = self._tokenizer.encode_batch(texts, self._length)
            self._there[new] = True
        found = self._ids[rows]
        for place, view in enumerate(np.broadcast_to(views, len(rows))):
            if view and self.varied:
                key = f"{self.seed}/{self.samples.keys[rows[place]]}/{view}"
                digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8)
                found[place] = drop_tokens(found[place], int.from_bytes(digest.digest(), "big"))
        return {INPUT: found}


def drop_tokens(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return ids (length,) without some of those between the first and the last one of a text."""
    count = int((ids != 0).sum())
    if count < 4:
        return ids
    kept = np.random.default_rng(seed).random(count) >= _DROPPED
    kept[[0, count - 1]] = True
    if not kept[1:-1].any():
        return ids
    made = np.zeros_like(ids)
    made[: kept.sum()] = ids[:count][kept]
    return made
