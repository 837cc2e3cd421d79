"""WordPiece: the words of a text as numbers, exactly as BERT's own tokenizer gives them.

Clean, pad Chinese characters, take accents off, lower, cut at spaces and punctuation, and cut each
word greedily into the longest pieces that the vocabulary has (Schuster and Nakajima 2012; Devlin
et al. 2018, arXiv 1810.04805). The ids are those of the `tokenizers` package; this is pure Python,
so that it runs wherever a model does.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.modalities.text import unicode_tables as tables

__all__ = ["WordPiece"]

_SPECIAL = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_REMEMBERED = 200_000
_SHORTEST = 3
_SPACES = "".join(map(chr, sorted(tables.read_ranges(tables.SPACES))))


class WordPiece:
    """A tokenizer by a vocabulary of word pieces.

    Attributes:
        settings: Everything but the vocabulary, fit for JSON: `lowercase`, `strip_accents`,
            `chinese` and `clean` (bool), `unk`, `cls`, `sep`, `pad` (tokens), `special` (the
            tokens that are taken whole from a text), `prefix` (of a piece that goes on a word)
            and `longest_word` (characters; a longer word is unknown).
        vocabulary: The contents of vocab.txt, UTF-8, one piece a line; its line is its id.
        tokens: The pieces by their ids.
    """

    kind = "wordpiece"

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes) -> None:
        self.settings = dict(settings)
        self.vocabulary = vocabulary
        self.tokens = _read_vocabulary(vocabulary)
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._unknown, self._first, self._last = (
            self._id_of(self.settings[role]) for role in ("unk", "cls", "sep"))
        if self._id_of(self.settings["pad"]) != 0:
            raise ModelError(
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

    @classmethod
    def from_folder(cls, folder: str | Path) -> WordPiece:
        """Read the tokenizer of a model folder as Hugging Face's packages lay it out.

        Args:
            folder: With vocab.txt or tokenizer.json; tokenizer.json says how text is treated, else
                tokenizer_config.json, else it is treated as BERT uncased does.

        Raises:
            ModelError: Neither is there, they contradict each other, or the tokenizer is another.
        """
        folder = Path(folder)
        full, config = (_read_json(folder / name)
                        for name in ("tokenizer.json", "tokenizer_config.json"))
        path = folder / "vocab.txt"
        if not path.is_file() and full is None:
            raise ModelError(f"'{folder}' holds no tokenizer; expected vocab.txt in it")
        try:
            settings = (_plain_settings(config or {}) if full is None
                        else _settings_of(full, config or {}))
            vocabulary = path.read_bytes() if path.is_file() else None
            if full is not None:
                vocabulary = _joined(full, vocabulary)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the tokenizer in '{folder}' cannot be read ({type(error).__name__}: {error}); "
                "expected the files of a BERT tokenizer") from error
        except OSError as error:
            raise ModelError(f"'{path}' cannot be read: {error}") from error
        except ModelError as error:
            raise ModelError(f"'{folder}': {error}") from None
        if full is None:
            known = set(_read_vocabulary(vocabulary or b""))
            settings["special"] = [token for token in settings["special"] if token in known]
        return cls(settings, vocabulary or b"")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], vocabulary: bytes) -> WordPiece:
        """Return the tokenizer that has these `settings` and this `vocabulary`."""
        return cls(settings, vocabulary)

    @property
    def files(self) -> dict[str, bytes]:
        """The vocabulary as a file by its name."""
        return {"vocab.txt": self.vocabulary}

    def __len__(self) -> int:
        """Return the number of pieces in the vocabulary."""
        return len(self.tokens)

    def _id_of(self, token: str) -> int:
        if token not in self._ids:
            raise ModelError(
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
        if length < _SHORTEST:
            raise ModelError(f"got a length of {length} tokens; expected {_SHORTEST} or more")
        found: list[int] = []
        for ids in self._words(text):
            found.extend(ids)
            if len(found) >= length - 2:
                break
        return [self._first, *found[: length - 2], self._last]

    def encode_batch(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Return the ids of texts, int32 (n, length), padded with 0 on the right."""
        rows = [self.encode(text, length) for text in texts]
        batch: np.ndarray = np.zeros((len(rows), length), np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch

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
    nothing = tables.read_ranges(tables.REMOVED) if clean else frozenset()
    spaces = tables.read_ranges(tables.SPACES) if clean else frozenset()
    alone = tables.read_ranges(tables.IDEOGRAPHS) if chinese else frozenset()

    def rule(character: int) -> str:
        if character in nothing:
            return ""
        if character in spaces:
            return " "
        return f" {chr(character)} " if character in alone else chr(character)

    return rule


def _folder(lowercase: bool, strip_accents: bool) -> Callable[[int], str]:
    """Return what takes accents off, lowers, and puts spaces around punctuation."""
    marks = tables.read_ranges(tables.MARKS) if strip_accents else frozenset()
    alone = tables.read_ranges(tables.PUNCTUATION)
    spaces = tables.read_ranges(tables.SPACES)

    def rule(character: int) -> str:
        if character in marks:
            return ""
        letters = _lower(character) if lowercase else chr(character)
        return "".join(" " if ord(x) in spaces else f" {x} " if ord(x) in alone else x
                       for x in letters)

    return rule


def _lower(character: int) -> str:
    """Lower one character by itself: a sigma at a word's end stays a sigma, as in the reference."""
    for capitals, distance in tables.LOWERED.items():
        if character in capitals:
            return chr(character + distance)
    return chr(character).lower()


def _read_vocabulary(vocabulary: bytes) -> list[str]:
    try:
        text = vocabulary.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"the vocabulary is no UTF-8 ({error}); expected vocab.txt") from error
    lines = [line.rstrip(_SPACES) for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ModelError("the vocabulary is empty; expected vocab.txt with one piece a line")
    return lines


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"'{path}' holds {type(found).__name__}; expected a JSON object")
    return found


def _plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a folder that has vocab.txt and perhaps tokenizer_config.json."""
    kind = str(config.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast")
    if kind not in ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer",
                    "PreTrainedTokenizer"):
        raise ModelError(
            f"got the tokenizer {kind}; expected BERT's WordPiece (or a tokenizer.json of it)")
    named = {role: _content(config.get(f"{role}_token") or token)
             for role, token in _SPECIAL.items()}
    added = [_content(one) for one in (config.get("added_tokens_decoder") or {}).values()]
    lowercase = bool(config.get("do_lower_case", True))
    strip = config.get("strip_accents")
    return {
        "lowercase": lowercase,
        "strip_accents": lowercase if strip is None else bool(strip),
        "chinese": bool(config.get("tokenize_chinese_chars", True)),
        "clean": True,
        **{role: named[role] for role in ("unk", "cls", "sep", "pad")},
        "special": list(dict.fromkeys([*named.values(), *added])),
        "prefix": "##",
        "longest_word": 100,
    }


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _settings_of(full: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a tokenizer.json states; its config names the padding."""
    model = full["model"]
    normalizer, cutter = full.get("normalizer") or {}, full.get("pre_tokenizer") or {}
    kinds = (model.get("type", "WordPiece"), normalizer.get("type"), cutter.get("type"))
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        raise ModelError(
            f"tokenizer.json has {', '.join(map(str, kinds))}; expected WordPiece, "
            "BertNormalizer, BertPreTokenizer")
    added = full.get("added_tokens") or []
    for token in added:
        odd = [key for key in ("single_word", "lstrip", "rstrip", "normalized") if token.get(key)]
        if odd:
            raise ModelError(
                f"tokenizer.json adds {token['content']!r} with {odd[0]}, which is not known; "
                "expected tokens that are matched as they stand")
    lowercase, strip = bool(normalizer["lowercase"]), normalizer.get("strip_accents")
    first, last = _marks(full.get("post_processor") or {})
    return {
        "lowercase": lowercase,
        "strip_accents": lowercase if strip is None else bool(strip),
        "chinese": bool(normalizer["handle_chinese_chars"]),
        "clean": bool(normalizer["clean_text"]),
        "unk": str(model["unk_token"]),
        "cls": first,
        "sep": last,
        "pad": _content(config.get("pad_token") or _SPECIAL["pad"]),
        "special": [str(token["content"]) for token in added],
        "prefix": str(model["continuing_subword_prefix"]),
        "longest_word": int(model["max_input_chars_per_word"]),
    }


def _marks(processor: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tokens that a text begins and ends with."""
    if processor.get("type") == "BertProcessing":
        return str(processor["cls"][0]), str(processor["sep"][0])
    parts = processor.get("single") or []
    if [next(iter(part)) for part in parts] != ["SpecialToken", "Sequence", "SpecialToken"]:
        raise ModelError("tokenizer.json does not put one token before and one behind a text; "
                         "expected [CLS] text [SEP]")
    return str(parts[0]["SpecialToken"]["id"]), str(parts[2]["SpecialToken"]["id"])


def _joined(full: Mapping[str, Any], vocabulary: bytes | None) -> bytes:
    """Return the vocabulary of tokenizer.json with its added tokens, checked against vocab.txt."""
    numbers = {str(token): int(number) for token, number in full["model"]["vocab"].items()}
    numbers |= {str(token["content"]): int(token["id"]) for token in full.get("added_tokens") or []}
    tokens = sorted(numbers, key=numbers.__getitem__)
    if sorted(numbers.values()) != list(range(len(tokens))):
        raise ModelError("the ids of tokenizer.json have gaps; expected 0, 1, 2, ...")
    if vocabulary is None:
        return "".join(f"{token}\n" for token in tokens).encode()
    known = _read_vocabulary(vocabulary)
    same = [token.rstrip(_SPACES) == line for token, line in zip(tokens, known, strict=False)]
    if not all(same) or len(known) > len(tokens):
        wrong = (*same, False).index(False)
        raise ModelError(
            f"vocab.txt and tokenizer.json differ at id {wrong}; expected files of one tokenizer")
    more = "".join(f"{token}\n" for token in tokens[len(known) :]).encode()
    return vocabulary + b"\n" * bool(more and not vocabulary.endswith(b"\n")) + more
