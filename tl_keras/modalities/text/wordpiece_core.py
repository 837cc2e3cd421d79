"""WordPiece with nothing but the standard library: bundles carry this file as tokenizer.py.

Clean, pad Chinese characters, take accents off, lower, cut at spaces and punctuation, and cut each
word greedily into the longest pieces that the vocabulary has (Schuster and Nakajima 2012; Devlin
et al. 2018, arXiv 1810.04805).

The reference, the package `tokenizers` (0.23), asks tables of Unicode 8 which characters are
removed, are marks or punctuation, and newer ones how letters are made lower. Python's own tables
grow from version to version, so these stand here: ranges of code points, hexadecimal, both ends
included. A test compares every character with the package.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = ["SPACES", "TABLES", "Tokenizer", "read_ranges", "read_vocabulary"]

_REMEMBERED = 200_000

REMOVED = (
    "0-8 b-c e-1f 7f-9f ad 600-605 61c 6dd 70f 180e 200b-200f 202a-202e 2060-2064 2066-206f "
    "d800-f8ff feff fff9-fffb fffd 110bd 1bca0-1bca3 1d173-1d17a e0001 e0020-e007f f0000-ffffd "
    "100000-10fffd "
)
"""Control, format, private and surrogate characters, and U+FFFD."""

MARKS = (
    "300-36f 483-487 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 610-61a 64b-65f 670 6d6-6dc 6df-6e4 "
    "6e7-6e8 6ea-6ed 711 730-74a 7a6-7b0 7eb-7f3 816-819 81b-823 825-827 829-82d 859-85b "
    "8e3-902 93a 93c 941-948 94d 951-957 962-963 981 9bc 9c1-9c4 9cd 9e2-9e3 a01-a02 a3c "
    "a41-a42 a47-a48 a4b-a4d a51 a70-a71 a75 a81-a82 abc ac1-ac5 ac7-ac8 acd ae2-ae3 b01 b3c "
    "b3f b41-b44 b4d b56 b62-b63 b82 bc0 bcd c00 c3e-c40 c46-c48 c4a-c4d c55-c56 c62-c63 c81 "
    "cbc cbf cc6 ccc-ccd ce2-ce3 d01 d41-d44 d4d d62-d63 dca dd2-dd4 dd6 e31 e34-e3a e47-e4e "
    "eb1 eb4-eb9 ebb-ebc ec8-ecd f18-f19 f35 f37 f39 f71-f7e f80-f84 f86-f87 f8d-f97 f99-fbc "
    "fc6 102d-1030 1032-1037 1039-103a 103d-103e 1058-1059 105e-1060 1071-1074 1082 1085-1086 "
    "108d 109d 135d-135f 1712-1714 1732-1734 1752-1753 1772-1773 17b4-17b5 17b7-17bd 17c6 "
    "17c9-17d3 17dd 180b-180d 18a9 1920-1922 1927-1928 1932 1939-193b 1a17-1a18 1a1b 1a56 "
    "1a58-1a5e 1a60 1a62 1a65-1a6c 1a73-1a7c 1a7f 1ab0-1abd 1b00-1b03 1b34 1b36-1b3a 1b3c 1b42 "
    "1b6b-1b73 1b80-1b81 1ba2-1ba5 1ba8-1ba9 1bab-1bad 1be6 1be8-1be9 1bed 1bef-1bf1 1c2c-1c33 "
    "1c36-1c37 1cd0-1cd2 1cd4-1ce0 1ce2-1ce8 1ced 1cf4 1cf8-1cf9 1dc0-1df5 1dfc-1dff 20d0-20dc "
    "20e1 20e5-20f0 2cef-2cf1 2d7f 2de0-2dff 302a-302d 3099-309a a66f a674-a67d a69e-a69f "
    "a6f0-a6f1 a802 a806 a80b a825-a826 a8c4 a8e0-a8f1 a926-a92d a947-a951 a980-a982 a9b3 "
    "a9b6-a9b9 a9bc a9e5 aa29-aa2e aa31-aa32 aa35-aa36 aa43 aa4c aa7c aab0 aab2-aab4 aab7-aab8 "
    "aabe-aabf aac1 aaec-aaed aaf6 abe5 abe8 abed fb1e fe00-fe0f fe20-fe2f 101fd 102e0 "
    "10376-1037a 10a01-10a03 10a05-10a06 10a0c-10a0f 10a38-10a3a 10a3f 10ae5-10ae6 11001 "
    "11038-11046 1107f-11081 110b3-110b6 110b9-110ba 11100-11102 11127-1112b 1112d-11134 11173 "
    "11180-11181 111b6-111be 111ca-111cc 1122f-11231 11234 11236-11237 112df 112e3-112ea "
    "11300-11301 1133c 11340 11366-1136c 11370-11374 114b3-114b8 114ba 114bf-114c0 114c2-114c3 "
    "115b2-115b5 115bc-115bd 115bf-115c0 115dc-115dd 11633-1163a 1163d 1163f-11640 116ab 116ad "
    "116b0-116b5 116b7 1171d-1171f 11722-11725 11727-1172b 16af0-16af4 16b30-16b36 16f8f-16f92 "
    "1bc9d-1bc9e 1d167-1d169 1d17b-1d182 1d185-1d18b 1d1aa-1d1ad 1d242-1d244 1da00-1da36 "
    "1da3b-1da6c 1da75 1da84 1da9b-1da9f 1daa1-1daaf 1e8d0-1e8d6 e0100-e01ef "
)
"""Nonspacing marks, which are taken off letters."""

PUNCTUATION = (
    "21-2f 3a-40 5b-60 7b-7e a1 a7 ab b6-b7 bb bf 37e 387 55a-55f 589-58a 5be 5c0 5c3 5c6 "
    "5f3-5f4 609-60a 60c-60d 61b 61e-61f 66a-66d 6d4 700-70d 7f7-7f9 830-83e 85e 964-965 970 "
    "af0 df4 e4f e5a-e5b f04-f12 f14 f3a-f3d f85 fd0-fd4 fd9-fda 104a-104f 10fb 1360-1368 1400 "
    "166d-166e 169b-169c 16eb-16ed 1735-1736 17d4-17d6 17d8-17da 1800-180a 1944-1945 1a1e-1a1f "
    "1aa0-1aa6 1aa8-1aad 1b5a-1b60 1bfc-1bff 1c3b-1c3f 1c7e-1c7f 1cc0-1cc7 1cd3 2010-2027 "
    "2030-2043 2045-2051 2053-205e 207d-207e 208d-208e 2308-230b 2329-232a 2768-2775 27c5-27c6 "
    "27e6-27ef 2983-2998 29d8-29db 29fc-29fd 2cf9-2cfc 2cfe-2cff 2d70 2e00-2e2e 2e30-2e42 "
    "3001-3003 3008-3011 3014-301f 3030 303d 30a0 30fb a4fe-a4ff a60d-a60f a673 a67e a6f2-a6f7 "
    "a874-a877 a8ce-a8cf a8f8-a8fa a8fc a92e-a92f a95f a9c1-a9cd a9de-a9df aa5c-aa5f aade-aadf "
    "aaf0-aaf1 abeb fd3e-fd3f fe10-fe19 fe30-fe52 fe54-fe61 fe63 fe68 fe6a-fe6b ff01-ff03 "
    "ff05-ff0a ff0c-ff0f ff1a-ff1b ff1f-ff20 ff3b-ff3d ff3f ff5b ff5d ff5f-ff65 10100-10102 "
    "1039f 103d0 1056f 10857 1091f 1093f 10a50-10a58 10a7f 10af0-10af6 10b39-10b3f 10b99-10b9c "
    "11047-1104d 110bb-110bc 110be-110c1 11140-11143 11174-11175 111c5-111c9 111cd 111db "
    "111dd-111df 11238-1123d 112a9 114c6 115c1-115d7 11641-11643 1173c-1173e 12470-12474 "
    "16a6e-16a6f 16af5 16b37-16b3b 16b44 1bc9f 1da87-1da8b "
)
"""Characters that are words of their own, those of ASCII among them."""

SPACES = "9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"
"""White space."""

IDEOGRAPHS = "3400-4dbf 4e00-9fff f900-faff 20000-2a6df 2a700-2b81f 2b920-2ceaf 2f800-2fa1f"
"""Chinese characters, which are words of their own."""

LOWERED = {
    range(0x1C89, 0x1C8A): 1, range(0x2C2F, 0x2C30): 48, range(0xA7C0, 0xA7C1): 1,
    range(0xA7CB, 0xA7CC): -42343, range(0xA7CC, 0xA7CD): 1, range(0xA7CE, 0xA7CF): 1,
    range(0xA7D0, 0xA7DB, 2): 1, range(0xA7DC, 0xA7DD): -42561, range(0x10570, 0x1057B): 39,
    range(0x1057C, 0x1058B): 39, range(0x1058C, 0x10593): 39, range(0x10594, 0x10596): 39,
    range(0x10D50, 0x10D66): 32, range(0x16EA0, 0x16EB9): 27,
}  # fmt: skip
"""Capitals newer than Unicode 13, and how far their small letters are from them."""

TABLES = {
    "removed": REMOVED, "marks": MARKS, "punctuation": PUNCTUATION, "spaces": SPACES,
    "ideographs": IDEOGRAPHS,
    "lowered": [[one.start, one.stop, one.step, far] for one, far in LOWERED.items()],
}  # fmt: skip
"""All of them, for programs in other languages; `lowered`: start, end, step, distance."""


def read_ranges(text: str) -> frozenset[int]:
    """Return the code points of a list of ranges such as "9-d 20"."""
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


class Tokenizer:
    """A tokenizer by a vocabulary of word pieces.

    Args:
        settings: `lowercase`, `strip_accents`, `chinese` and `clean` (bool), `unk`, `cls`, `sep`,
            `pad` (tokens), `special` (the tokens that are taken whole from a text), `prefix` (of a
            piece that goes on a word) and `longest_word` (characters; a longer word is unknown).
        vocabulary: the contents of vocab.txt, UTF-8, one piece a line; its line is its id.

    Raises:
        ValueError: they do not belong together.
    """

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes) -> None:
        self.settings = dict(settings)
        self.tokens = read_vocabulary(vocabulary)
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._unknown, self._first, self._last = (
            self._id_of(self.settings[role]) for role in ("unk", "cls", "sep"))
        if self._id_of(self.settings["pad"]) != 0:
            raise ValueError(
                f"got a vocabulary whose padding {self.settings['pad']!r} has the id "
                f"{self._ids[self.settings['pad']]}; expected it on the first line of vocab.txt")
        # The longest of several that begin at one place.
        special = sorted(self.settings["special"], key=len, reverse=True)
        for token in special:
            self._id_of(token)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self._clean = _CharacterMap(_cleaner(self.settings["clean"], self.settings["chinese"]))
        self._fold = _CharacterMap(
            _folder(self.settings["lowercase"], self.settings["strip_accents"]))
        self._longest_piece = max(map(len, self.tokens))
        self._remembered: dict[str, tuple[int, ...]] = {}

    def _id_of(self, token: str) -> int:
        if token not in self._ids:
            raise ValueError(
                f"got a vocabulary of {len(self.tokens)} pieces without {token!r}; expected the "
                "vocab.txt that belongs to the tokenizer's settings")
        return self._ids[token]

    def encode(self, text: str, length: int) -> list[int]:
        """Return the ids of a text, its beginning and end marked, cut to a length.

        Args:
            text: Any text.
            length: Most ids, at least 3, the two marks among them.

        Returns:
            2 to `length` ids.
        """
        found: list[int] = []
        for ids in self._words(text):
            found.extend(ids)
            if len(found) >= length - 2:
                break
        return [self._first, *found[: length - 2], self._last]

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a text, without marks of its beginning and end."""
        return [self.tokens[number] for ids in self._words(text) for number in ids]

    def count(self, text: str) -> int:
        """Return how many ids a text has when it is not cut, its two marks among them."""
        return 2 + sum(map(len, self._words(text)))

    def unknown(self, text: str) -> int:
        """Return how many words of a text the vocabulary has no pieces for."""
        return sum(ids == (self._unknown,) for ids in self._words(text))

    def _words(self, text: str) -> Iterator[tuple[int, ...]]:
        """Return the ids of each word and special token."""
        start = 0
        for match in self._special.finditer(text):
            yield from map(self._pieces_of, self._split(text[start : match.start()]))
            yield (self._ids[match[0]],)
            start = match.end()
        yield from map(self._pieces_of, self._split(text[start:]))

    def _split(self, text: str) -> Iterable[str]:
        text = text.translate(self._clean)
        if self.settings["strip_accents"] and not text.isascii():
            text = unicodedata.normalize("NFD", text)
        return filter(None, text.translate(self._fold).split(" "))

    def _pieces_of(self, word: str) -> tuple[int, ...]:
        known = self._remembered.get(word)
        if known is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = self._remembered[word] = self._cut(word)
        return known

    def _cut(self, word: str) -> tuple[int, ...]:
        if len(word) > self.settings["longest_word"]:
            return (self._unknown,)
        found: list[int] = []
        start, prefix = 0, ""
        while start < len(word):
            for end in range(min(len(word), start + self._longest_piece), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return (self._unknown,)
            found.append(number)
            start, prefix = end, self.settings["prefix"]
        return tuple(found)


class _CharacterMap(dict[int, str]):
    """What `str.translate` makes of each character, worked out when it is first seen."""

    def __init__(self, rule: Callable[[int], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, character: int) -> str:
        found = self[character] = self._rule(character)
        return found


def _cleaner(clean: bool, chinese: bool) -> Callable[[int], str]:
    nothing = read_ranges(REMOVED) if clean else frozenset()
    spaces = read_ranges(SPACES) if clean else frozenset()
    alone = read_ranges(IDEOGRAPHS) if chinese else frozenset()

    def rule(character: int) -> str:
        if character in nothing:
            return ""
        if character in spaces:
            return " "
        return f" {chr(character)} " if character in alone else chr(character)

    return rule


def _folder(lowercase: bool, strip_accents: bool) -> Callable[[int], str]:
    """Return what takes accents off, lowers, and puts spaces around punctuation."""
    marks = read_ranges(MARKS) if strip_accents else frozenset()
    alone = read_ranges(PUNCTUATION)
    spaces = read_ranges(SPACES)

    def rule(character: int) -> str:
        if character in marks:
            return ""
        letters = _lower(character) if lowercase else chr(character)
        return "".join(" " if ord(x) in spaces else f" {x} " if ord(x) in alone else x
                       for x in letters)

    return rule


def _lower(character: int) -> str:
    """Lower one character by itself: a sigma at a word's end stays a sigma, as in the reference."""
    for capitals, distance in LOWERED.items():
        if character in capitals:
            return chr(character + distance)
    return chr(character).lower()


def read_vocabulary(vocabulary: bytes) -> list[str]:
    """Return the pieces of a vocab.txt by their ids."""
    try:
        text = vocabulary.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the vocabulary is no UTF-8 ({error}); expected vocab.txt") from error
    spaces = "".join(map(chr, sorted(read_ranges(SPACES))))
    lines = [line.rstrip(spaces) for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError("the vocabulary is empty; expected vocab.txt with one piece a line")
    return lines
