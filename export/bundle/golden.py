"""Write a few validation samples with the answers of every variant, and check a bundle by them.

The check needs neither TensorFlow nor Keras: numpy, pillow and the runtimes of the files.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.manifest import as_json
from export.bundle.originals import ORIGINALS, Reading, choose, compare_reading, read_files
from export.bundle.read import Bundle, read_bundle
from export.runtime.bench import try_out
from export.runtime.runtimes import load
from export.source import Source
from export.variant import Variant
from tl_keras import tasks
from tl_keras.errors import BundleError, DataError

__all__ = [
    "GOLDEN", "CheckedBundle", "Outcome", "verify_bundle", "compare_golden", "make_golden_files",
    "read_golden",
]  # fmt: skip

GOLDEN = "golden/golden.json"
_FLOAT = (1e-4, 1e-3)
TOLERANCES = {
    "fp32": _FLOAT, "prune": _FLOAT, "prune_2_4": _FLOAT, "cluster": _FLOAT, "fp16": (5e-3, 0.05),
}  # fmt: skip
ROUNDED = (0.05, 0.2)
"""Largest difference allowed to a quantized file, absolute and as a share of how far its golden
answers are apart: other processors round otherwise, and a step of an int8 activation before the
softmax is that much."""
_STEPS, _EXACT = 1.5, 4e-6

_UNREADABLE = (
    ValueError, KeyError, TypeError, OSError, RecursionError, EOFError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a variant answers for the golden samples here.

    Attributes:
        name: of the variant.
        count: samples that were compared.
        max_difference: largest difference of an output, as the task measures it.
        agreed: samples whose answer means what was expected; a near tie does.
        tolerance: the largest difference allowed.
    """

    name: str
    count: int
    max_difference: float
    agreed: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether all answers are as expected."""
        # "Within" is false for NaN, too.
        return self.max_difference <= self.tolerance and self.agreed == self.count


def make_golden_files(source: Source, variants: Sequence[Variant]) -> dict[str, bytes]:
    """Make small files of the golden samples, and their expected outputs.

    Args:
        source: gives the samples, see `export.bundle.originals.choose`.
        variants: each is asked in its runtime, with one thread.

    Returns:
        Contents by path within the bundle.
    """
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    for one in choose(source):
        batch = {name: np.asarray(array)[np.newaxis] for name, array in one.inputs.items()}
        encoded = source.modality.encode(batch, 0)
        named = {f"golden/{one.name}.{ending}": made for ending, made in encoded.items()}
        entry: dict[str, Any] = {"file": next(iter(named)), "key": one.key}
        if one.ending:
            entry["original"] = f"{ORIGINALS}/{one.name}.{one.ending}"
            named[entry["original"]] = one.contents
            entry |= {"proves": one.proves, "trace": one.trace}
        entries.append(entry)
        files |= named
    shapes = {name: spec.shape for name, spec in source.signature.inputs.items()}
    inputs = _stack([_decode(entry["file"], files[entry["file"]], shapes) for entry in entries])
    outputs = {v.name: _round(load(v.path, 1).predict(inputs)) for v in variants}
    record = {
        "samples": entries,
        "tolerances": {
            v.name: choose_tolerance(np.asarray(outputs[v.name]), v.recipe, source.task)
            for v in variants
        },
        "outputs": outputs,
    }
    return {**files, GOLDEN: as_json(record)}


def _decode(
    file: str, contents: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Return the inputs of one sample.

    A .png file is one image; others have arrays by name, a .json file whole numbers.

    Raises:
        ValueError: if they have other shapes, which are looked at before memory is taken.
    """
    if file.endswith(".png"):
        from PIL import Image

        ((name, shape),) = shapes.items()
        try:
            with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
                if image.size != shape[1::-1]:
                    raise ValueError(f"{file} is {image.size}, not {shape[1::-1]}")
                read = {name: np.asarray(image)}
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
    elif file.endswith(".json"):
        if len(contents) > sum(32 * math.prod(shape) + 4096 for shape in shapes.values()):
            raise ValueError(f"{file} holds more than the manifest says")
        given = json.loads(contents)
        read = {name: np.asarray(given[name], np.int64) for name in shapes}
    else:
        most = sum(16 * math.prod(shape) + 4096 for shape in shapes.values())
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > most:
                raise ValueError(f"{file} holds more than the manifest says")
        with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in shapes}
    if any(read[name].shape != shape for name, shape in shapes.items()):
        raise ValueError(f"{file} is no sample of the shape in the manifest")
    return read


def _stack(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def choose_tolerance(expected: np.ndarray, recipe: str, task: str = "classes") -> float:
    """Choose how far another machine's answers may be from those expected, so that it means much.

    It is a share of the largest spread that an output has over the golden samples, no more than
    the absolute bound of the recipe, and no less than one step of whole numbers that come out or
    than float32 can tell apart.

    Args:
        expected: (n, outputs).
        recipe: "fp32" or a quantization recipe's name.
        task: name of the task, which measures differences.

    Returns:
        The largest difference allowed, as the task measures it.
    """
    absolute, relative = TOLERANCES.get(recipe, ROUNDED)
    lowest = np.broadcast_to(expected.min(axis=0), expected.shape)
    spread = float(tasks.get(task).differences(expected, lowest).max())
    if not spread:
        return absolute
    gaps = np.diff(np.unique(expected))
    step = float(gaps.min()) * spread / float((expected - lowest).max())
    wanted = max(relative * spread, _STEPS * step, _EXACT)
    return float(f"{min(absolute, wanted):.3g}")


def _round(outputs: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in outputs.tolist()]


def read_golden(
    folder: Path, manifest: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read samples and expected outputs of an unpacked bundle.

    Returns:
        By the input's name (n, ...), and golden.json with outputs as arrays.

    Raises:
        BundleError: if they do not read, or do not belong to the manifest.
    """
    names = [variant["name"] for variant in manifest["variants"]]
    shapes = {one["name"]: tuple(one["shape"]) for one in manifest["inputs"]}
    try:
        record = json.loads((folder / GOLDEN).read_bytes())
        listed = {file["path"] for file in manifest["files"]}
        # Where there were images alone, they were called so.
        samples = record.get("samples", record.get("pictures"))
        files = [entry["file"] for entry in samples]
        originals = [entry["original"] for entry in samples if _has_original(entry)]
        if not files or not {*files, *originals} <= listed:
            raise ValueError("it names files that are not in the manifest")
        read = [_decode(file, (folder / file).read_bytes(), shapes) for file in files]
        inputs = _stack(read)
        expected = {name: np.asarray(record["outputs"][name], np.float64) for name in names}
        tolerances = {name: float(record["tolerances"][name]) for name in names}
    except _UNREADABLE as error:
        raise BundleError(f"{GOLDEN} does not read; get the bundle anew.") from error
    if {e.shape for e in expected.values()} != {(len(files), len(manifest["classes"]))}:
        raise BundleError(f"{GOLDEN} does not belong to the manifest; get the bundle anew.")
    return inputs, {"outputs": expected, "tolerances": tolerances, "samples": samples}


def _has_original(entry: Mapping[str, Any]) -> bool:
    if "original" not in entry:
        return False
    kinds = {"original": str, "proves": str, "trace": dict}
    if not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        raise ValueError("it describes a whole file otherwise than tl-export does")
    return True


def compare_golden(
    name: str, expected: np.ndarray, answers: np.ndarray, tolerance: float, task: str
) -> Outcome:
    """Compare a variant's answers with those expected.

    Args:
        name: of the variant.
        expected: (n, outputs).
        answers: (n, outputs), what the variant gave here.
        tolerance: largest difference allowed, as the task measures it.
        task: name of the task.

    Raises:
        BundleError: if the answers are of another shape.
    """
    if answers.shape != expected.shape:
        raise BundleError(
            f"{name} answers with shape {answers.shape}; expected {expected.shape} as in {GOLDEN}: "
            "the bundle's files do not belong together. Get it anew."
        )
    kind = tasks.get(task)
    difference = kind.differences(expected, answers)
    same = kind.agree_within(expected, answers, tolerance)
    return Outcome(name, len(expected), float(difference.max()), int(same.sum()), tolerance)


@dataclass(frozen=True)
class CheckedBundle:
    """What the check of a bundle found.

    Attributes:
        name: of the model.
        files: how many are as the manifest says, itself included.
        outcomes: of every variant on the golden samples.
        readings: of every whole file: decoding, resizing, and the model behind it.
    """

    name: str
    files: int
    outcomes: tuple[Outcome, ...]
    readings: tuple[Reading, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every variant answers as expected, and every file is read so."""
        return all([one.passed for one in self.outcomes] + [one.passed for one in self.readings])


def verify_bundle(bundle: str | os.PathLike[str]) -> CheckedBundle:
    """Check schema, names, sizes and hashes; run every model on the golden samples; read the files.

    Args:
        bundle: a folder or a zip.

    Raises:
        BundleError: if it is no bundle, was changed, or has a newer schema.
        ExportError: if a runtime is not installed (the message names the pip command), or a
            model does not load.
    """
    with read_bundle(bundle) as found:
        inputs, golden = read_golden(found.folder, found.manifest)
        outcomes = []
        try_out([found.model(variant["name"]) for variant in found.manifest["variants"]])
        for variant in found.manifest["variants"]:
            name = variant["name"]
            answers = load(found.model(name), 1).predict(inputs)
            expected, tolerance = golden["outputs"][name], golden["tolerances"][name]
            task = found.manifest["task"]
            outcomes.append(compare_golden(name, expected, answers, tolerance, task))
        readings = _read_originals(found, inputs, golden)
        files = len(found.manifest["files"]) + 1
        return CheckedBundle(found.manifest["name"], files, tuple(outcomes), tuple(readings))


def _read_originals(
    found: Bundle, inputs: Mapping[str, np.ndarray], golden: Mapping[str, Any]
) -> list[Reading]:
    """Read the whole files of a bundle, and ask the default model where they come out otherwise."""
    modality, specs = found.modality, found.specs
    readings = []
    for place, entry in enumerate(golden["samples"]):
        if "original" not in entry:
            continue
        file = str(found.folder / entry["original"])
        try:
            trace = modality.trace(file, specs)
            seen = read_files([file], modality, specs)
        except DataError as error:
            said = str(error).replace(file, entry["original"])
            lost = (False, math.inf, math.inf, said)
            readings.append(Reading(entry["original"], entry["proves"], "decode", *lost))
            continue
        # What is no image has several inputs: the one that differs most tells.
        made = [
            compare_reading(modality, entry, trace, seen[name][0], inputs[name][place])
            for name in seen
        ]
        worst = max(made, key=lambda one: one.mean_difference)
        inside = found.manifest.get("resize_in_graph") is True
        if inside:
            decoded = modality.open(file, next(iter(specs.values())).shape[0])
            seen = {name: np.asarray(decoded)[np.newaxis] for name in seen}
        # A file that resizes by itself is asked for the decoded image in any case.
        if worst.passed and (inside or not worst.exact):
            worst = _answer(found, worst, seen, golden, place)
        readings.append(worst)
    return readings


def _answer(
    found: Bundle, reading: Reading, seen: Any, golden: Mapping[str, Any], place: int
) -> Reading:
    """Let the default model answer for a file that comes out a little otherwise here."""
    name, task = found.manifest["default"], found.manifest["task"]
    expected = golden["outputs"][name]
    tolerance = golden["tolerances"][name]
    if not reading.exact:
        tolerance = max(tolerance, choose_tolerance(expected, "", task))
    given = load(found.model(name), 1).predict(seen)
    one = compare_golden(name, expected[place : place + 1], given, tolerance, task)
    if one.passed:
        return reading
    detail = f"the answer of {name} differs by {one.max_difference:.2g} (≤ {tolerance:.2g})"
    return replace(reading, step="model", detail=detail)
