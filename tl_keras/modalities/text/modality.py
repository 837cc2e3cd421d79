"""Texts: sentences or short documents, as token ids of a fixed number."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import DataError, ModelError, PlanError
from tl_keras.modalities.base import BadSample, CheckReport, InputSpec, Modality, SampleLike
from tl_keras.modalities.text.probes import make_probes
from tl_keras.modalities.text.reader import INPUT, MOST, Text, TextReader, Tokenizer, read_text
from tl_keras.modalities.text.tokenizers import make_tokenizer, read_programs

if TYPE_CHECKING:
    import keras

__all__ = ["TextModality"]

_COVERED = 0.99
_LEAST, _STEP, _USUAL = 16, 8, 128
_LOOKED_AT = 10_000
_UNKNOWN = 0.05
_OTHER_SCRIPT = 0.01


class TextModality(Modality):
    """Texts, as files (UTF-8) or as :class:`tl_keras.modalities.text.reader.Text`.

    Args:
        tokenizer: What makes ids of texts; None before a base is chosen.
        length: Ids of each text; 0 before that.
    """

    name = "text"
    noun = "text"
    suffixes = frozenset({"txt"})
    elsewhere = "by other writers or on other topics"
    size_unit = "tokens"
    written = True
    repeats = True
    tuned_epochs = 4  # Devlin et al. 2018 (arXiv 1810.04805) take 2 to 4
    input_name = INPUT
    last_step = "tokenize"

    def __init__(self, tokenizer: Tokenizer | None = None, length: int = 0) -> None:
        self.tokenizer = tokenizer
        self.length = length

    @property
    def preparation(self) -> str:  # type: ignore[override]
        """What is done to a text."""
        return f"the ids of its first {self.length} tokens, with those that mark its ends"

    @property
    def settings(self) -> dict[str, Any]:
        """What the tokenizer does, and how many ids a text has."""
        if self.tokenizer is None:
            return {}
        rules = {"kind": self.tokenizer.kind, **self.tokenizer.settings}
        return {"tokenizer": rules, "length": self.length}

    @property
    def files(self) -> dict[str, bytes]:
        """The tokenizer's vocabulary."""
        return {} if self.tokenizer is None else self.tokenizer.files

    @property
    def word_pieces(self) -> bytes | None:
        """The vocabulary of a tokenizer like that of BERT uncased."""
        uncased = self.settings.get("tokenizer", {}).get("lowercase")
        return self.files.get("vocab.txt") if uncased else None

    @property
    def programs(self) -> dict[str, bytes]:
        """The tokenizer without this package, see :func:`tokenizers.read_programs`."""
        return {} if self.tokenizer is None else read_programs(self.tokenizer.kind)

    @property
    def input_size(self) -> int | None:
        """Ids of each text."""
        return self.length or None

    def with_settings(
        self, settings: Mapping[str, Any], folder: str | os.PathLike[str] | None = None
    ) -> TextModality:
        """Return a modality with this tokenizer, whose vocabulary lies in the folder."""
        made = copy.copy(self)
        if folder is not None and "tokenizer" in settings:
            made.tokenizer = make_tokenizer(settings["tokenizer"], Path(folder))
        made.length = int(settings.get("length", self.length))
        return made

    def fitted(
        self, reading: Any, size: int | None, most: int | None, samples: SampleLike
    ) -> TextModality:
        """Return a modality that reads as a base takes it.

        The length, where none is asked for, is that of 99 % of the texts (of 10,000 of them),
        from 16 to 128.

        Args:
            reading: The base's tokenizer.
            size: Ids of each text as asked for; None chooses.
            most: Ids that the base takes at most.
            samples: What will be read.

        Raises:
            ModelError: The base has no tokenizer.
        """
        if reading is None:
            raise ModelError(
                "the base has no tokenizer, so it cannot read texts; take a text encoder such as "
                "--base minilm:FOLDER (see: tl-keras bases)"
            )
        return TextModality(reading, size or self._choose_length(reading, samples, most))

    def _choose_length(
        self, tokenizer: Tokenizer, samples: SampleLike, most: int | None
    ) -> int:
        step = max(1, len(samples.keys) // _LOOKED_AT)
        counts = []
        for index in range(0, len(samples.keys), step):
            try:
                counts.append(tokenizer.count(read_text(samples.items[index])[:MOST]))
            except DataError:
                continue  # the check tells of it
        covered = int(np.ceil(np.quantile(counts, _COVERED))) if counts else _LEAST
        return min(max(_LEAST, -(-covered // _STEP) * _STEP), _USUAL, most or _USUAL)

    def specs(self, model: keras.Model) -> dict[str, InputSpec]:
        """Return the ids that a model takes.

        Raises:
            ModelError: It takes something else than whole numbers, one row a text.
        """
        shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
        whole = str(model.inputs[0].dtype) == "int32"
        if len(shapes) != 1 or len(shapes[0]) != 1 or not whole:
            raise ModelError(
                f"'{model.name}' takes {', '.join(map(str, shapes))}; expected ids of tokens, "
                "int32 (length,)"
            )
        length = shapes[0][0] or self.length
        return {self.input_name: InputSpec((length,), "int32", "ids of tokens, 0 for none")}

    def reader(
        self, samples: SampleLike, specs: dict[str, InputSpec], augment: str = "none", seed: int = 0
    ) -> TextReader:
        """Return what reads texts as ids.

        Raises:
            DataError: No base was chosen yet, so that there is no tokenizer.
        """
        if self.tokenizer is None:
            raise DataError("texts cannot be read before a base with a tokenizer is chosen")
        length = next(iter(specs.values())).shape[0]
        return TextReader(samples, self.tokenizer, length, augment, seed)

    def check_augment(self, text: str) -> None:
        """Check that it is "none" or "drop"."""
        if text not in ("", "none", "drop"):
            raise PlanError(f"got augmentation {text!r}; texts know 'none' and 'drop'")

    def check(
        self, samples: SampleLike, *, progress: Callable[[int, int], None] | None = None
    ) -> CheckReport:
        """Read every text; tell of words that the vocabulary lacks, of scripts, of cut texts."""
        bad, digests, found = [], [], _Findings()
        for index, item in enumerate(samples.items):
            try:
                text = self.open(item)
                digests.append(self.digest(item))
                found.add(text, self.tokenizer, self.length)
            except DataError as error:
                digests.append("")
                bad.append(BadSample(samples.keys[index], str(error), index))
            if progress and (index % 64 == 0 or index + 1 == len(samples.keys)):
                progress(index + 1, len(samples.keys))
        return CheckReport(
            tuple(bad), tuple(digests), samples.root, self.noun, notes=found.notes(self.length)
        )

    def open(self, item: Any, at_least: int | None = None) -> str:
        """Return an item's text.

        Raises:
            DataError: It is empty or too long, or its file cannot be read.
        """
        text = read_text(item)
        if len(text) > MOST:
            raise DataError(
                f"has {len(text):,} characters; expected at most {MOST:,}: split it into parts"
            )
        if not text.strip():
            raise DataError("is empty")
        return text

    def digest(self, item: Any) -> str:
        """Return a hash of a text, whatever its blanks and the form of its accents."""
        text = unicodedata.normalize("NFC", " ".join(self.open(item).split()))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def facts(self, specs: dict[str, InputSpec]) -> dict[str, Any]:
        """Return the number of ids too."""
        return {"size": next(iter(specs.values())).shape[0], **super().facts(specs)}

    def check_arrays(self, items: np.ndarray) -> np.ndarray:
        """Return texts as samples.

        Raises:
            DataError: They are no texts.
        """
        items = np.asarray(items)
        if items.ndim != 1 or not all(isinstance(item, (str, Text)) for item in items):
            raise DataError(
                f"Texts have the shape {items.shape} and dtype {items.dtype}; expected one text "
                "each, (n,)"
            )
        made: np.ndarray = np.empty(len(items), object)
        made[:] = [item if isinstance(item, Text) else Text(str(item)) for item in items]
        return made

    def thumbnail(self, item: Any, most: int = 320) -> str | None:
        """Return the beginning of a text; None if it cannot be read."""
        try:
            text = " ".join(self.open(item).split())
        except DataError:
            return None
        return text if len(text) <= most else f"{text[: most - 1]}\u2026"

    def describe_steps(self, specs: Mapping[str, InputSpec]) -> list[dict[str, Any]]:
        """Return what is done to a text, step by step."""
        (spec,) = specs.values()
        files = sorted(self.files)
        return [
            {"step": "decode", "rule": "UTF-8"},
            {"step": "tokenize", **self.settings.get("tokenizer", {}), "files": files},
            {"step": "pad", "length": spec.shape[0], "value": 0, "side": "right"},
        ]

    def encode(self, batch: dict[str, np.ndarray], index: int) -> dict[str, bytes]:
        """Return the ids of one text as JSON."""
        ids = {name: array[index].tolist() for name, array in batch.items()}
        return {"json": json.dumps(ids).encode()}

    def trace(self, item: Any, specs: Mapping[str, InputSpec]) -> dict[str, Any]:
        """Return the number of characters of a text, and a hash of it as UTF-8."""
        text = self.open(item)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return {"characters": len(text), "sha256": digest}

    def whole_file(self, item: Any) -> tuple[str, bytes] | None:
        """Return a text as a file of UTF-8; None where half a character is in it."""
        if not isinstance(item, Text):
            return super().whole_file(item)
        try:
            return "txt", item.value.encode()
        except UnicodeEncodeError:
            return None

    def sketch(self, item: Any) -> str:
        """Say whether a text is long, and in whose letters it is written."""
        text = self.open(item)
        return f"{script_of(text)}{' long' * (len(text) > 4 * max(1, self.length))}"

    def make_probes(self) -> dict[str, tuple[str, bytes]]:
        """See :func:`tl_keras.modalities.text.probes.make_probes`."""
        return make_probes()

    def compress(self, item: Any, specs: dict[str, InputSpec]) -> tuple[str, bytes]:
        """Return a text as UTF-8."""
        return "txt", self.open(item).encode("utf-8", "surrogatepass")


class _Findings:
    """What a look at every text adds up to."""

    def __init__(self) -> None:
        self.texts, self.cut, self.tokens, self.unknown = 0, 0, 0, 0
        self.scripts: Counter[str] = Counter()

    def add(self, text: str, tokenizer: Tokenizer | None, length: int) -> None:
        self.texts += 1
        self.scripts[script_of(text)] += 1
        if tokenizer is not None:
            count = tokenizer.count(text)
            self.cut += count > length
            self.tokens += count
            self.unknown += tokenizer.unknown(text)

    def notes(self, length: int) -> tuple[str, ...]:
        made = []
        if self.cut:
            made.append(
                f"{self.cut} of {self.texts} texts have more than {length} tokens and are cut off "
                "there (--size sets it)"
            )
        if self.tokens and self.unknown > _UNKNOWN * self.tokens:
            share = self.unknown / self.tokens
            made.append(
                f"{share:.0%} of the tokens are not in the base's vocabulary: was it made for "
                "another language?"
            )
        usual = self.scripts.most_common(1)[0][0] if self.scripts else ""
        others = {k: n for k, n in self.scripts.items() if k not in (usual, "")}
        if sum(others.values()) > _OTHER_SCRIPT * self.texts:
            words = ", ".join(f"{count} in {name}" for name, count in sorted(others.items()))
            made.append(f"most texts are written in {usual} letters, {words}: several languages?")
        return tuple(made)


def script_of(text: str) -> str:
    """Return in whose letters most of a text is written, such as "latin"; "" where none are."""
    counts: Counter[str] = Counter()
    for character in text[:200]:
        if character.isalpha():
            kind = "LATIN" if character.isascii() else unicodedata.name(character, "").split(" ")[0]
            counts[kind] += 1
    return counts.most_common(1)[0][0].lower() if counts else ""

