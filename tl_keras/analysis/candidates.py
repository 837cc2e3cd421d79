"""How users name candidates: base, width, size, layers and weights in one word.

A base of another source ("hub:/models/net") may hold colons and equality signs itself: behind its
place only a size, layers behind a size, and weights that are plainly such are looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from tl_keras.errors import ModelError
from tl_keras.models.backbones.catalog import catalog
from tl_keras.models.backbones.load import check_size, describe
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.models.backbones.sources import SOURCES

__all__ = ["Candidate", "parse_candidates"]

_FORM = "base[@width][:size][:layers][=weights], as in mobilenet_v2@0.35:160=none"
_SOURCE = r"(.+?)(?::(\d+)(?::([^:/=]+))?)?(?:=(none|default|[^=]+\.(?:safetensors|h5|keras)))?"


@dataclass(frozen=True)
class Candidate:
    """A base to look at.

    Attributes:
        name: As the user wrote it, a weights file left out or without its folder.
        base: A base's name, "@width" behind it, or a saved model.
        size: Side in pixels, None for the base's own.
        at: Layers, see `tl_keras.features.places.parse_places`; "last" for the end.
        weights: "default", "imagenet", "none" or a file.
    """

    name: str
    base: str
    size: int | None = None
    at: str = "last"
    weights: str = "default"


def parse_candidates(
    text: str, size: int | None = None, modality: str = "image"
) -> list[Candidate]:
    """Return the candidates that a user named, with commas between.

    Args:
        text: Each is base[@width][:size][:layers][=weights]; a base may be a .keras file or of
            another source (`tl_keras.models.backbones.sources`), layers are one or several with
            "+". "here" stands for all bases whose weights are on this machine.
        size: Side in pixels, or tokens, for those that name none.
        modality: What they are shown.

    Raises:
        ModelError: A base is unknown, refuses its size, or is named twice.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if "here" in words:
        at = words.index("here")
        words[at : at + 1] = [
            one.name for one in catalog() if one.here and one.modality == modality]
    if not words:
        raise ModelError(f"got '{text}' for the bases; expected {_FORM}, with commas between")
    found = _named([_candidate(word, size) for word in words])
    for number, one in enumerate(found):
        if one in found[:number]:
            raise ModelError(f"{one.name} is named twice; leave one out")
    return found


def _named(found: list[Candidate]) -> list[Candidate]:
    """Name a weights file only where two candidates differ by nothing else."""
    lefts = [one.name.partition("=")[0] for one in found]
    files = [one.weights not in ("default", "imagenet", "none") for one in found]
    return [
        replace(one, name=left) if file and lefts.count(left) == 1 else one
        for one, left, file in zip(found, lefts, files, strict=True)
    ]


def _candidate(word: str, size: int | None) -> Candidate:
    if re.split("[:=]", word)[0].lower() in SOURCES:
        return _of_source(word, size)
    left, _, weights = word.partition("=")
    base, *rest = left.split(":")
    at = "last"
    for part in rest:
        if part.isdigit():
            size = int(part)
        elif part and at == "last":
            at = part
        else:
            raise ModelError(f"got '{word}'; expected {_FORM}")
    _check(base, size)
    name = f"{Path(base).name}{left[len(base) :]}"
    name += f"={Path(weights).name}" if weights else ""
    return Candidate(name, base, size, at, weights or "default")


def _of_source(word: str, size: int | None) -> Candidate:
    """A base whose name is a source's word and a place, or the word alone."""
    found = re.fullmatch(_SOURCE, word)
    if found is None:
        raise ModelError(f"got '{word}'; expected {_FORM}")
    base, side, at, weights = found.groups()
    source, _, place = base.partition(":")
    size = int(side) if side else size
    _check(base, size)
    name = f"{source}:{Path(place).name}" if place else source
    for part in (side, at):
        name += f":{part}" if part else ""
    name += f"={Path(weights).name}" if weights else ""
    return Candidate(name, base, size, at or "last", weights or "default")


def _check(base: str, size: int | None) -> None:
    if not is_model_file(base):
        check_size(describe(base), size)
    elif not Path(base).expanduser().is_file():
        raise ModelError(f"the base {base} does not exist; expected a saved model")
