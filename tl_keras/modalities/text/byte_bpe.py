"""Byte-level BPE: the words of a text as numbers, exactly as GPT-2's own tokenizer gives them.

A text is cut into words with the space before them, each is written in UTF-8, and its bytes are
merged pair by pair in the order in which training merged them (Sennrich et al. 2015, arXiv
1508.07909; Radford et al. 2019). Every text has ids: nothing is unknown.

The ids are those of the `tokenizers` package and 1 more, since GPT-2 has a real token with the id
0, which means padding here.
"""

from __future__ import annotations

import heapq
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.utils.files import read_small

__all__ = ["ByteBPE"]

_END = "<|endoftext|>"
_REMEMBERED = 100_000
_MOST_BYTES = 64_000_000
# GPT-2's own pattern, on a text in which each character stands for its class: L letter, N number,
# S white space other than " ", O another; the letters of 's, 't, 're, 've, 'm, 'll, 'd stay.
_WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[Lstmdrevl]+| ?N+| ?[O']+|[S ]+(?![^S ])|[S ]+")


class ByteBPE:
    """A tokenizer by merges of bytes.

    Attributes:
        settings: Fit for JSON: `special` (tokens that are taken whole from a text), `space`
            (whether a space is put before a text) and `end` (the token that stands for an empty
            text).
        files: vocab.json and merges.txt, by name.
    """

    kind = "byte_bpe"
    shift = 1
    """What is added to the ids of vocab.json."""

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes, merges: bytes) -> None:
        self.settings = dict(settings)
        self.files = {"vocab.json": vocabulary, "merges.txt": merges}
        self._ids = _read_vocabulary(vocabulary)
        self._tokens = {number: token for token, number in self._ids.items()}
        self._ranks = _read_merges(merges, self._ids)
        self._letters = _byte_letters()
        missing = [letter for letter in self._letters if letter not in self._ids]
        special = sorted(self.settings["special"], key=len, reverse=True)
        missing += [token for token in (*special, self.settings["end"]) if token not in self._ids]
        if missing:
            raise ModelError(
                f"vocab.json lacks {missing[0]!r}; expected GPT-2's layout, in which each byte and "
                "each special token has an id")
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self._classes = _Classes()
        self._remembered: dict[str, tuple[int, ...]] = {}

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
                known = _read_vocabulary(vocabulary or b"")
                special = [_END] if _END in known else []
                end = _END if special else next(iter(known))
                settings = {"special": special, "space": False, "end": end}
            else:
                settings, vocabulary, merges = _settings_of(json.loads(full))
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            if isinstance(error, ModelError):
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
        """Return the ids of a text, cut to a length; an empty one has one, which ends texts.

        Args:
            text: Any text.
            length: Most ids, at least 1.

        Returns:
            1 to `length` ids, each at least 1.
        """
        if length < 1:
            raise ModelError(f"got a length of {length} tokens; expected 1 or more")
        found: list[int] = []
        for ids in self._words(text):
            found.extend(ids)
            if len(found) >= length:
                break
        found = found or [self._ids[self.settings["end"]]]
        return [number + self.shift for number in found[:length]]

    def encode_batch(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Return the ids of texts, int32 (n, length), padded with 0 on the right."""
        rows = [self.encode(text, length) for text in texts]
        batch: np.ndarray = np.zeros((len(rows), length), np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; padding is left out, what is no UTF-8 becomes U+FFFD."""
        numbers = {letter: byte for byte, letter in enumerate(self._letters)}
        found = bytearray()
        for number in ids:
            token = self._tokens.get(int(number) - self.shift, "")
            if token in self.settings["special"]:
                found += token.encode()
            else:
                found += bytes(numbers[letter] for letter in token)
        return found.decode("utf-8", "replace")

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a text, bytes written as GPT-2 writes them (a space is \u0120)."""
        return [self._tokens[number] for ids in self._words(text) for number in ids]

    def count(self, text: str) -> int:
        """Return how many ids a text has when it is not cut."""
        return max(1, sum(map(len, self._words(text))))

    def unknown(self, text: str) -> int:
        """Return how many tokens of a text stand for what is not known: none."""
        return 0

    def _words(self, text: str) -> Iterator[tuple[int, ...]]:
        start = 0
        for match in self._special.finditer(text):
            yield from self._split(text[start : match.start()])
            yield (self._ids[match[0]],)
            start = match.end()
        yield from self._split(text[start:])

    def _split(self, text: str) -> Iterator[tuple[int, ...]]:
        if self.settings["space"] and text and not text.startswith(" "):
            text = f" {text}"
        for match in _WORD.finditer(text.translate(self._classes)):
            word = text[match.start() : match.end()]
            known = self._remembered.get(word)
            if known is None:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                known = self._remembered[word] = self._merge(word)
            yield known

    def _merge(self, word: str) -> tuple[int, ...]:
        """Merge the bytes of a word; the pair that training merged first goes first."""
        parts: list[str] = [self._letters[byte] for byte in word.encode("utf-8", "replace")]
        after = [*range(1, len(parts)), -1]
        before = list(range(-1, len(parts) - 1))
        waiting = [(self._ranks[pair], place, pair)
                   for place, pair in enumerate(zip(parts, parts[1:], strict=False))
                   if pair in self._ranks]
        heapq.heapify(waiting)
        while waiting:
            _, place, pair = heapq.heappop(waiting)
            follower = after[place]
            if follower < 0 or (parts[place], parts[follower]) != pair:
                continue  # one of the two was merged already
            parts[place], parts[follower] = pair[0] + pair[1], ""
            after[place] = after[follower]
            if after[place] >= 0:
                before[after[place]] = place
            for left, right in ((before[place], place), (place, after[place])):
                rank = self._ranks.get((parts[left], parts[right])) if min(left, right) >= 0 \
                    else None
                if rank is not None:
                    heapq.heappush(waiting, (rank, left, (parts[left], parts[right])))
        return tuple(self._ids[part] for part in parts if part)


class _Classes(dict[int, str]):
    """The class of each character, worked out when it is first seen."""

    def __missing__(self, character: int) -> str:
        letter = chr(character)
        kind = unicodedata.category(letter)[0]
        if letter in "'stmdrevl ":
            found = letter
        elif letter.isspace() and not 0x1C <= character <= 0x1F:
            found = "S"
        else:
            found = kind if kind in "LN" else "O"
        self[character] = found
        return found


def _byte_letters() -> list[str]:
    """Return the character that stands for each byte: itself where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters, more = [], 0
    for byte in range(256):
        letters.append(chr(byte if byte in seen else 256 + more))
        more += byte not in seen
    return letters


def _read(path: Path, *, needed: bool = True) -> bytes | None:
    if not needed and not path.exists():
        return None
    try:
        return read_small(path, _MOST_BYTES)
    except OSError as error:
        raise ModelError(f"'{path}' cannot be read: {error}; expected a folder with vocab.json "
                         "and merges.txt") from error


def _read_vocabulary(contents: bytes) -> dict[str, int]:
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"vocab.json cannot be read as JSON: {error}") from error
    wrong = not isinstance(found, dict) or not found or not all(
        type(number) is int and 0 <= number < 2**24 for number in found.values())
    if wrong or len(set(found.values())) != len(found):
        raise ModelError("vocab.json does not give each token an id of its own; expected "
                         '{"token": 0, ...}')
    return found


def _read_merges(contents: bytes, ids: Mapping[str, int]) -> dict[tuple[str, str], int]:
    try:
        lines = contents.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"merges.txt is no UTF-8 ({error})") from error
    ranks: dict[tuple[str, str], int] = {}
    for line in lines:
        pair = tuple(line.rstrip("\r").split(" "))
        if line.startswith("#version") or pair == ("",):
            continue
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids or "".join(pair) not in ids:
            raise ModelError(f"merges.txt has {line[:60]!r}; expected two tokens of vocab.json "
                             "whose joining is one too")
        ranks[pair[0], pair[1]] = len(ranks)
    return ranks


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
