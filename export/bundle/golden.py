"""Write a few validation pictures with the answers of every variant, and check a bundle by them.

The check needs neither TensorFlow nor Keras: numpy, pillow and the runtimes of the files.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.agreement import find_same_or_tied
from export.bundle.manifest import Origin, as_json
from export.bundle.read import read_bundle
from export.runtime.runtimes import load
from export.variant import Variant
from tl_keras.errors import BundleError

__all__ = [
    "GOLDEN", "CheckedBundle", "Outcome", "verify_bundle", "compare_golden", "make_golden_files",
    "read_golden",
]  # fmt: skip

GOLDEN = "golden/golden.json"
COUNT = 8
_FLOAT = (1e-4, 1e-3)
TOLERANCES = {
    "fp32": _FLOAT, "prune": _FLOAT, "prune_2_4": _FLOAT, "cluster": _FLOAT, "fp16": (5e-3, 0.05),
}  # fmt: skip
ROUNDED = (0.05, 0.2)
"""Largest difference allowed to a quantized file, absolute and as a share of how far its golden
answers are apart: other processors round otherwise, and a step of an int8 activation before the
softmax is that much."""
_STEPS, _EXACT = 1.5, 4e-6

_UNREADABLE = (ValueError, KeyError, TypeError, OSError, RecursionError)


@dataclass(frozen=True)
class Outcome:
    """How a variant answers for the golden pictures here.

    Attributes:
        name: of the variant.
        pictures: how many were compared.
        max_difference: largest absolute difference of an output.
        labels_equal: pictures with the expected label; a near tie counts as equal.
        tolerance: the largest difference allowed.
    """

    name: str
    pictures: int
    max_difference: float
    labels_equal: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether all answers are as expected."""
        # "Within" is false for NaN, too.
        return self.max_difference <= self.tolerance and self.labels_equal == self.pictures


def make_golden_files(source: Origin, variants: Sequence[Variant]) -> dict[str, bytes]:
    """Make the golden pictures as PNG, and their expected outputs.

    Args:
        source: gives the pictures; at most `COUNT` are taken, spread evenly.
        variants: each is asked in its runtime, with one thread.

    Returns:
        Contents by path within the bundle.
    """
    count = min(COUNT, len(source.pictures))
    chosen = np.linspace(0, len(source.pictures) - 1, count).round().astype(int)
    pictures = np.clip(np.rint(source.pictures[chosen]), 0, 255).astype(np.uint8)
    names = [f"golden/{index:02d}.png" for index in range(count)]
    outputs = {v.name: _rounded(load(v.path, 1).predict(pictures)) for v in variants}
    record = {
        "pictures": [
            {"file": name, "key": source.keys[index]} for name, index in zip(names, chosen)
        ],
        "tolerances": {
            v.name: choose_tolerance(np.asarray(outputs[v.name]), v.recipe) for v in variants
        },
        "outputs": outputs,
    }
    files = {name: _png(picture) for name, picture in zip(names, pictures)}
    return {**files, GOLDEN: as_json(record)}


def choose_tolerance(expected: np.ndarray, recipe: str) -> float:
    """Choose how far another machine's answers may be from those expected, so that it means much.

    It is a share of the largest spread that an output has over the golden samples, no more than
    the absolute bound of the recipe, and no less than one step of whole numbers that come out or
    than float32 can tell apart.

    Args:
        expected: (n, outputs).
        recipe: "fp32" or a quantization recipe's name.

    Returns:
        The largest difference allowed; of values beyond 1 relative to the largest.
    """
    absolute, relative = TOLERANCES.get(recipe, ROUNDED)
    scale = max(1.0, float(np.abs(expected).max()))
    gaps = np.diff(np.unique(expected))
    step = float(gaps.min()) if len(gaps) else 0.0
    spread = float(np.ptp(expected, axis=0).max()) or float(np.ptp(expected))
    wanted = max(relative * spread, _STEPS * step) / scale
    return float(f"{min(absolute, max(wanted, _EXACT)):.3g}")


def _rounded(outputs: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in outputs.tolist()]


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def read_golden(folder: Path, manifest: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Read pictures and expected outputs of an unpacked bundle.

    Returns:
        uint8 (n, height, width, 3), and golden.json with outputs as arrays.

    Raises:
        BundleError: if they do not read, or do not belong to the manifest.
    """
    from PIL import Image

    names = [variant["name"] for variant in manifest["variants"]]
    try:
        record = json.loads((folder / GOLDEN).read_bytes())
        listed = {file["path"] for file in manifest["files"]}
        files = [entry["file"] for entry in record["pictures"]]
        if not files or not set(files) <= listed:
            raise ValueError("it names pictures that are not in the manifest")
        with_sides = tuple(manifest["input"]["shape"])
        pictures = np.stack([_read(folder / file, with_sides[:2]) for file in files])
        expected = {name: np.asarray(record["outputs"][name], np.float64) for name in names}
        tolerances = {name: float(record["tolerances"][name]) for name in names}
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise BundleError(f"{GOLDEN} does not read ({error!r}); get the bundle anew.") from error
    shapes = {(len(files), len(manifest["classes"]))}
    if pictures.shape[1:] != with_sides or {e.shape for e in expected.values()} != shapes:
        raise BundleError(f"{GOLDEN} does not belong to the manifest; get the bundle anew.")
    return pictures, {"outputs": expected, "tolerances": tolerances}


def _read(file: Path, sides: tuple[int, ...]) -> np.ndarray:
    """Decode a picture; one of another size is not worth the memory."""
    from PIL import Image

    with Image.open(file) as image:
        if image.size != sides[::-1]:
            raise ValueError(f"{file.name} is {image.size}, not {sides[::-1]}")
        return np.asarray(image)


def compare_golden(
    name: str, expected: np.ndarray, answers: np.ndarray, tolerance: float, task: str
) -> Outcome:
    """Compare a variant's answers with those expected.

    Args:
        name: of the variant.
        expected: (n, outputs).
        answers: (n, outputs), what the variant gave here.
        tolerance: largest difference allowed; where outputs exceed 1, relative to the largest.
        task: "classes", "tags" or "values".

    Raises:
        BundleError: if the answers are of another shape.
    """
    if answers.shape != expected.shape:
        raise BundleError(
            f"{name} answers with shape {answers.shape}; expected {expected.shape} as in {GOLDEN}: "
            "the bundle's files do not belong together. Get it anew."
        )
    difference = np.abs(expected - answers) / max(1.0, float(np.abs(expected).max()))
    same = find_same_or_tied(expected, answers, tolerance, task)
    return Outcome(name, len(expected), float(difference.max()), int(same.sum()), tolerance)


@dataclass(frozen=True)
class CheckedBundle:
    """What the check of a bundle found.

    Attributes:
        name: of the model.
        files: how many are as the manifest says, itself included.
        outcomes: of every variant on the golden pictures.
    """

    name: str
    files: int
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every variant answers as expected."""
        return all(outcome.passed for outcome in self.outcomes)


def verify_bundle(bundle: str | os.PathLike[str]) -> CheckedBundle:
    """Check schema, names, sizes and hashes, then run every model on the golden pictures.

    Args:
        bundle: a folder or a zip.

    Raises:
        BundleError: if it is no bundle, was changed, or has a newer schema.
        ExportError: if a runtime is not installed (the message names the pip command), or a
            model does not load.
    """
    with read_bundle(bundle) as found:
        pictures, golden = read_golden(found.folder, found.manifest)
        outcomes = []
        for variant in found.manifest["variants"]:
            name = variant["name"]
            answers = load(found.model(name), 1).predict(pictures)
            expected, tolerance = golden["outputs"][name], golden["tolerances"][name]
            task = found.manifest["task"]
            outcomes.append(compare_golden(name, expected, answers, tolerance, task))
        files = len(found.manifest["files"]) + 1
        return CheckedBundle(found.manifest["name"], files, tuple(outcomes))
