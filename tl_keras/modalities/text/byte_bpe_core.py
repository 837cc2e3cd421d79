"""Byte-level BPE with nothing but the standard library: bundles carry this file as tokenizer.py.

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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["Tokenizer", "read_vocabulary"]

_REMEMBERED = 100_000
# GPT-2's own pattern, on a text in which each character stands for its class: L letter, N number,
# S white space other than " ", O another; the letters of 's, 't, 're, 've, 'm, 'll, 'd stay.
_WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[Lstmdrevl]+| ?N+| ?[O']+|[S ]+(?![^S ])|[S ]+")


class Tokenizer:
    """A tokenizer by merges of bytes.

    Args:
        settings: `special` (tokens that are taken whole from a text), `space` (whether a space is
            put before a text) and `end` (the token that stands for an empty text).
        vocabulary: the contents of vocab.json.
        merges: the contents of merges.txt.

    Raises:
        ValueError: they do not belong together.
    """

    shift = 1
    """What is added to the ids of vocab.json."""

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes, merges: bytes) -> None:
        self.settings = dict(settings)
        self._ids = read_vocabulary(vocabulary)
        self._tokens = {number: token for token, number in self._ids.items()}
        self._ranks = _read_merges(merges, self._ids)
        self._letters = _byte_letters()
        missing = [letter for letter in self._letters if letter not in self._ids]
        special = sorted(self.settings["special"], key=len, reverse=True)
        missing += [token for token in (*special, self.settings["end"]) if token not in self._ids]
        if missing:
            raise ValueError(
                f"vocab.json lacks {missing[0]!r}; expected GPT-2's layout, in which each byte and "
                "each special token has an id")
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self._classes = _Classes()
        self._remembered: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, length: int) -> list[int]:
        """Return the ids of a text, cut to a length; an empty one has one, which ends texts.

        Args:
            text: Any text.
            length: Most ids, at least 1.

        Returns:
            1 to `length` ids, each at least 1.
        """
        found: list[int] = []
        for ids in self._words(text):
            found.extend(ids)
            if len(found) >= length:
                break
        found = found or [self._ids[self.settings["end"]]]
        return [number + self.shift for number in found[:length]]

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


def read_vocabulary(contents: bytes) -> dict[str, int]:
    """Return the ids of a vocab.json by their tokens."""
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"vocab.json cannot be read as JSON: {error}") from error
    wrong = not isinstance(found, dict) or not found or not all(
        type(number) is int and 0 <= number < 2**24 for number in found.values())
    if wrong or len(set(found.values())) != len(found):
        raise ValueError("vocab.json does not give each token an id of its own; expected "
                         '{"token": 0, ...}')
    return found


def _read_merges(contents: bytes, ids: Mapping[str, int]) -> dict[tuple[str, str], int]:
    try:
        lines = contents.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"merges.txt is no UTF-8 ({error})") from error
    ranks: dict[tuple[str, str], int] = {}
    for line in lines:
        pair = tuple(line.rstrip("\r").split(" "))
        if line.startswith("#version") or pair == ("",):
            continue
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids or "".join(pair) not in ids:
            raise ValueError(f"merges.txt has {line[:60]!r}; expected two tokens of vocab.json "
                             "whose joining is one too")
        ranks[pair[0], pair[1]] = len(ranks)
    return ranks
