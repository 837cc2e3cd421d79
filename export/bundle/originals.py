"""Choose the files that a bundle carries as they are, and find the step in which reading differs.

What a model sees is decided before its graph: a file is decoded, turned, laid on a background and
resized. A bundle holds a few whole files beside what they become (the golden samples), so that
another program, or another version of a decoder, can be proven from the file to the answer.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.source import NONE, OWN, Source, require_originals
from tl_keras.data.folders import from_unlabeled
from tl_keras.data.samples import Samples
from tl_keras.errors import DataError, ExportError
from tl_keras.modalities.base import InputSpec, Modality

__all__ = [
    "COUNT", "ORIGINALS", "PROBE", "Chosen", "Reading", "check_originals", "choose",
    "compare_reading", "read_files",
]  # fmt: skip

ORIGINALS, PROBE = "originals", "probe-"
"""The folder of whole files in a bundle, and how those begin that are of nobody's data."""
COUNT = 8
MOST_BYTES = 2 * 2**20
"""Of one file; and of all that are chosen, four times as much."""
_LOOKED_AT = 256


@dataclass(frozen=True)
class Chosen:
    """One sample that proves a bundle.

    Attributes:
        key: what to call it.
        inputs: what the model sees, by the input's name, each of one sample's shape.
        name: of its files within the bundle, without ending.
        ending: of the whole file, without the dot; "" where it does not go along.
        contents: the whole file.
        trace: what it was before the last step, see `Modality.trace`.
        proves: which step it is there for; "" for one of a data set.
    """

    key: str
    inputs: Mapping[str, np.ndarray]
    name: str
    ending: str = ""
    contents: bytes = b""
    trace: Mapping[str, Any] = field(default_factory=dict)
    proves: str = ""


@dataclass(frozen=True)
class Reading:
    """What became of one whole file here.

    Attributes:
        file: its path in the bundle.
        proves: which step it is there for; "" for one of a data set.
        step: the first that differs beyond its tolerance: "decode", the modality's `last_step` or
            "model"; "" if none does.
        exact: whether what the model sees is the same to the bit.
        mean_difference: of what the model sees, in the units of the inputs.
        max_difference: the same.
        detail: what differs, in words.
    """

    file: str
    proves: str
    step: str
    exact: bool
    mean_difference: float
    max_difference: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether no step differs."""
        return not self.step


def check_originals(source: Source) -> None:
    """Refuse files to put into a bundle before any work is done.

    Raises:
        ExportError: if there is no such file, none of them is read here, or one is too large.
    """
    _find_given(source)


def choose(source: Source) -> list[Chosen]:
    """Choose the samples that prove a bundle: of the data set or as given, and the modality's own.

    Args:
        source: its `originals` says which: "own" takes up to `COUNT` of the samples, those of
            different kinds first; "none" takes nothing of anybody's; else files of that place.

    Raises:
        ExportError: as `check_originals` does.
        DataError: if a file cannot be read.
    """
    chosen = _choose_own(source) if source.originals == OWN else _choose_given(source)
    probes = _choose_probes(source)
    if chosen or probes:
        return [*chosen, *probes]
    return [Chosen(f"random {n}", one, f"{n:02d}") for n, one in enumerate(_draw(source))]


def _choose_own(source: Source) -> list[Chosen]:
    count = min(COUNT, len(source))
    specs, spent = dict(source.signature.inputs), 0
    made = []
    for place, index in enumerate(_vary(source, count)):
        inputs = {name: array[index] for name, array in source.inputs.items()}
        one = Chosen(source.keys[index], inputs, f"{place:02d}")
        if source.files and _is_small(source.files[index]):
            whole = _with_file(one, source.files[index], source.modality, specs)
            if whole.contents and spent + len(whole.contents) <= 4 * MOST_BYTES:
                spent += len(whole.contents)
                one = whole
        made.append(one)
    return made


def _is_small(item: Any) -> bool:
    return not isinstance(item, str) or os.path.getsize(item) <= MOST_BYTES


def _vary(source: Source, count: int) -> list[int]:
    """Return indices spread over all samples, the first of each kind of file among them."""
    spread = np.linspace(0, len(source) - 1, count).round().astype(int).tolist()
    if not source.files:
        return spread
    looked = np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).round().astype(int)
    kinds: dict[str, int] = {}
    for index in looked.tolist():
        if _is_small(source.files[index]):
            kinds.setdefault(source.modality.sketch(source.files[index]), index)
    return sorted(list(dict.fromkeys([*kinds.values(), *spread]))[:count])


def _with_file(
    one: Chosen, item: Any, modality: Modality, specs: dict[str, InputSpec], proves: str = ""
) -> Chosen:
    whole = modality.whole_file(item)
    if whole is None:
        return one
    ending = whole[0] if re.fullmatch("[a-z0-9]{1,5}", whole[0]) else "bin"
    trace = modality.trace(item, specs)
    return Chosen(one.key, one.inputs, one.name, ending, whole[1], trace, proves)


def _find_given(source: Source) -> list[str]:
    if source.originals in (OWN, NONE):
        return []
    require_originals(source.originals, source.modality.noun)
    place, files = source.originals, [source.originals]
    if os.path.isdir(place):
        try:
            files = list(map(str, from_unlabeled(place, source.modality).items))
        except DataError as error:
            raise ExportError(f"--originals {place}: {error}") from error
    spread = np.linspace(0, len(files) - 1, min(COUNT, len(files))).round().astype(int)
    files = [files[index] for index in dict.fromkeys(spread.tolist())]
    for file in files:
        if (size := os.path.getsize(file)) > MOST_BYTES:
            raise ExportError(
                f"{file} has {size / 1e6:.1f} MB; expected at most {MOST_BYTES / 1e6:.1f} MB for "
                "a file that goes into a bundle: save it smaller."
            )
        try:
            source.modality.trace(file, dict(source.signature.inputs))
        except DataError as error:
            raise ExportError(f"--originals: {error}") from error
    return files


def _choose_given(source: Source) -> list[Chosen]:
    files = _find_given(source)
    named = {f"{place:02d}": (file, "") for place, file in enumerate(files)}
    return _read_files(source, named)


def _choose_probes(source: Source) -> list[Chosen]:
    probes = source.modality.make_probes()
    with tempfile.TemporaryDirectory(prefix="tl_keras-") as folder:
        named = {}
        for name, (proves, contents) in probes.items():
            file = Path(folder, name)
            file.write_bytes(contents)
            named[f"{PROBE}{file.stem}"] = str(file), proves
        return _read_files(source, named)


def _read_files(source: Source, named: Mapping[str, tuple[str, str]]) -> list[Chosen]:
    """Read files as the model sees them: by the name of each, its path and what it proves."""
    if not named:
        return []
    specs, modality = dict(source.signature.inputs), source.modality
    inputs = read_files([file for file, _ in named.values()], modality, specs)
    made = []
    for place, (name, (file, proves)) in enumerate(named.items()):
        seen = {key: array[place] for key, array in inputs.items()}
        one = Chosen(Path(file).name, seen, name)
        made.append(_with_file(one, file, modality, specs, proves))
    return made


def read_files(
    files: Sequence[str], modality: Modality, specs: dict[str, InputSpec]
) -> dict[str, np.ndarray]:
    """Read files as a model sees them.

    Returns:
        By the input's name, (n, ...).

    Raises:
        DataError: if a file cannot be read.
    """
    labels: np.ndarray = np.zeros(len(files), np.int64)
    samples = Samples(list(files), labels, ("",), tuple(files), modality)
    return modality.reader(samples, specs).read(range(len(files)), 0)


def _draw(source: Source) -> list[dict[str, np.ndarray]]:
    """Make up samples where nothing may be shown and the modality has no files of its own."""
    random = np.random.default_rng(0)
    return [
        {
            name: random.integers(0, 256 if spec.dtype == "uint8" else 2, spec.shape)
            .astype(spec.dtype)
            for name, spec in source.signature.inputs.items()
        }
        for _ in range(COUNT)
    ]  # fmt: skip


def compare_reading(
    modality: Modality, entry: Mapping[str, Any], trace: Mapping[str, Any], seen: np.ndarray,
    expected: np.ndarray,
) -> Reading:  # fmt: skip
    """Compare what a file became here with what it became where the bundle was made.

    Args:
        modality: of the files.
        entry: of golden.json.
        trace: of `Modality.trace`, made here.
        seen: what the model sees of it here.
        expected: the golden sample.
    """
    difference = np.abs(seen.astype(np.float64) - expected.astype(np.float64))
    mean, most = float(difference.mean()), float(difference.max())
    step, detail = "", ""
    if not mean <= modality.tolerance:
        changed = [key for key, value in entry["trace"].items() if trace.get(key) != value]
        step = "decode" if changed else modality.last_step
        shown = "" if not changed else (
            f", decoded {_say(trace)} instead of {_say(entry['trace'])}"
        )  # fmt: skip
        detail = f"what the model sees differs by {mean:.1f} on average{shown}"
    return Reading(
        entry["original"], entry["proves"], step, not most, mean, most, detail
    )


def _say(trace: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in trace.items() if key != "sha256")
