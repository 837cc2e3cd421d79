"""WordPiece: the words of a text as numbers, exactly as BERT's own tokenizer gives them.

The ids are those of the `tokenizers` package. What cuts a text stands in `wordpiece_core`, which
runs wherever a model does; this reads it from the folders of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.modalities.text import wordpiece_core

__all__ = ["WordPiece"]

_SPECIAL = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
_SHORTEST = 3
_SPACES = "".join(map(chr, sorted(wordpiece_core.read_ranges(wordpiece_core.SPACES))))


class WordPiece(wordpiece_core.Tokenizer):
    """A tokenizer by a vocabulary of word pieces.

    Attributes:
        settings: Everything but the vocabulary, fit for JSON, see
            :class:`tl_keras.modalities.text.wordpiece_core.Tokenizer`.
        vocabulary: The contents of vocab.txt.
        tokens: The pieces by their ids.
    """

    kind = "wordpiece"

    def __init__(self, settings: Mapping[str, Any], vocabulary: bytes) -> None:
        self.vocabulary = vocabulary
        try:
            super().__init__(settings, vocabulary)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(" ".join(map(str, error.args))) from error

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
            else:
                known = set(wordpiece_core.read_vocabulary(vocabulary or b""))
                settings["special"] = [one for one in settings["special"] if one in known]
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the tokenizer in '{folder}' cannot be read ({type(error).__name__}: {error}); "
                "expected the files of a BERT tokenizer") from error
        except OSError as error:
            raise ModelError(f"'{path}' cannot be read: {error}") from error
        except ValueError as error:
            raise ModelError(f"'{folder}': {error}") from None
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

    def encode(self, text: str, length: int) -> list[int]:
        """Return the ids of a text, its beginning and end marked, cut to a length of 3 or more."""
        if length < _SHORTEST:
            raise ModelError(f"got a length of {length} tokens; expected {_SHORTEST} or more")
        return super().encode(text, length)

    def encode_batch(self, texts: Iterable[str], length: int) -> np.ndarray:
        """Return the ids of texts, int32 (n, length), padded with 0 on the right."""
        rows = [self.encode(text, length) for text in texts]
        batch: np.ndarray = np.zeros((len(rows), length), np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch

    def unknown(self, text: str) -> int:
        """Return how many words of a text the vocabulary has no pieces for."""
        return sum(ids == (self._unknown,) for ids in self._words(text))


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
    known = wordpiece_core.read_vocabulary(vocabulary)
    same = [token.rstrip(_SPACES) == line for token, line in zip(tokens, known, strict=False)]
    if not all(same) or len(known) > len(tokens):
        wrong = (*same, False).index(False)
        raise ModelError(
            f"vocab.txt and tokenizer.json differ at id {wrong}; expected files of one tokenizer")
    more = "".join(f"{token}\n" for token in tokens[len(known) :]).encode()
    return vocabulary + b"\n" * bool(more and not vocabulary.endswith(b"\n")) + more
