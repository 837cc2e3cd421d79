"""Compare what a file answers with what its Keras model answers: parity, and agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.runtime.runtimes import Runtime
from export.source import Source
from export.variant import Verdict
from tl_keras.errors import ExportError, ParityError
from tl_keras.utils.progress import Progress
from tl_keras.utils.stats import wilson

__all__ = [
    "NEAR", "Parity", "compare", "find_same_or_tied", "measure_agreement", "predict_all",
    "require_parity", "same_labels",
]  # fmt: skip

_BATCH = 16
_NAMED = 5
NEAR = 0.05
"""For task "values": two answers agree that differ by at most this share of their spread."""


def predict_all(
    runtime: Runtime, pictures: np.ndarray, progress: Progress, name: str
) -> np.ndarray:
    """Ask a runtime for all pictures.

    Args:
        runtime: what answers.
        pictures: (n, height, width, 3), RGB 0..255.
        progress: told after each batch.
        name: what to call it there.

    Returns:
        float32 (n, outputs).
    """
    total, given = len(pictures), []
    for start in range(0, total, _BATCH):
        progress(f"asking {name}", start, total)
        given.append(runtime.predict(pictures[start : start + _BATCH]))
    progress(f"asking {name}", total, total)
    return np.concatenate(given)


def measure_agreement(truth: np.ndarray, given: np.ndarray, source: Source) -> Verdict:
    """Compare answers.

    Where labels are known, accuracy is the share of pictures whose label ("classes") or whose
    tags altogether ("tags") are right, with Wilson's interval at 95 %. Numbers ("values") have
    no accuracy: what counts is how many agree with Keras.

    Args:
        truth: (n, outputs), what Keras answers.
        given: (n, outputs), what the file answers.
        source: its labels, class names and task.

    Raises:
        ExportError: if the shapes differ.
    """
    if truth.shape != given.shape or not len(truth):
        raise ExportError(
            f"Keras answers with shape {truth.shape}, the file with {given.shape}; expected the "
            "same (pictures, outputs), and at least one picture."
        )
    difference = np.abs(truth.astype(np.float64) - given.astype(np.float64))
    right = _right(given, source)
    before = _right(truth, source)
    low, high = (None, None) if right is None else wilson(right.sum(), len(right))
    return Verdict(
        pictures=len(truth),
        accuracy=None if right is None else float(right.mean()),
        low=low,
        high=high,
        source_accuracy=None if before is None else float(before.mean()),
        agreement=float(same_labels(truth, given, source.task).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        per_class_drop=_per_class_drop(truth, given, source),
    )


def same_labels(truth: np.ndarray, given: np.ndarray, task: str) -> np.ndarray:
    """Tell for which pictures two answers mean the same.

    Args:
        truth: (n, outputs).
        given: (n, outputs).
        task: "classes" (the same largest output), "tags" (the same outputs of at least 0.5; so with
            "classes" of one output) or
            "values" (no output further away than `NEAR` times its spread over the pictures).

    Returns:
        bool (n,); False where an answer is NaN.
    """
    finite = np.isfinite(given).all(axis=1)
    if task == "classes" and truth.shape[1] > 1:
        return finite & (truth.argmax(axis=1) == given.argmax(axis=1))
    if task != "values":
        return finite & ((truth >= 0.5) == (given >= 0.5)).all(axis=1)
    spread = np.maximum(truth.std(axis=0), 1e-6)
    return finite & (np.abs(truth - given) <= NEAR * spread).all(axis=1)


def _right(given: np.ndarray, source: Source) -> np.ndarray | None:
    if source.labels is None or source.task == "values":
        return None
    if source.task == "classes":
        right = given.argmax(axis=1) == source.labels
    else:
        right = ((given >= 0.5) == (source.labels >= 0.5)).all(axis=1)
    return right & np.isfinite(given).all(axis=1)


def _per_class_drop(truth: np.ndarray, given: np.ndarray, source: Source) -> dict[str, float]:
    if source.labels is None or source.task == "values":
        return {}
    drops = {}
    for index, name in enumerate(source.class_names):
        before, after = (_recalled(one, source, index) for one in (truth, given))
        if len(before):
            drops[name] = float(before.mean() - after.mean())
    return drops


def _recalled(given: np.ndarray, source: Source, index: int) -> np.ndarray:
    """Among the pictures of a class or tag, which are recognised."""
    labels = np.asarray(source.labels)
    if source.task == "classes":
        return given[labels == index].argmax(axis=1) == index
    return given[labels[:, index] >= 0.5, index] >= 0.5


@dataclass(frozen=True)
class Parity:
    """How far an artifact's answers are from its source's.

    Attributes:
        pictures: how many were compared.
        max_difference: largest absolute difference of two outputs; for task "values" relative
            to the source's magnitude where that exceeds 1. NaN if one side gave NaN.
        mean_difference: mean of the same differences.
        labels_equal: pictures with the same label (for "tags": all the same tags), or one that
            ties with it in the source within the tolerance.
        tolerance: the largest difference allowed.
        differing: indices of the pictures that differ by more, in label, or in NaN.
        per_picture: the largest difference of each picture.
    """

    pictures: int
    max_difference: float
    mean_difference: float
    labels_equal: int
    tolerance: float
    differing: tuple[int, ...]
    per_picture: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether every picture's answer is the same within the tolerance."""
        return not self.differing


def compare(
    source: np.ndarray, artifact: np.ndarray, tolerance: float, task: str = "classes"
) -> Parity:
    """Compare an artifact's answers with its source's.

    Args:
        source: (n, outputs), what the Keras model gave for n pictures.
        artifact: (n, outputs), what the artifact gave for the same pictures.
        tolerance: largest absolute difference of an output that is allowed.
        task: "classes" (the label is the largest output), "tags" (every output of at least
            0.5 is a tag) or "values" (no labels: all count as equal).

    Raises:
        ExportError: if there is no picture, or the shapes differ.
    """
    if source.shape != artifact.shape or source.ndim != 2 or not len(source):
        raise ExportError(
            f"The source answers with shape {source.shape}, the artifact with {artifact.shape}; "
            "expected the same (pictures, outputs), and at least one picture."
        )
    difference = np.abs(source.astype(np.float64) - artifact.astype(np.float64))
    if task == "values":
        difference /= np.maximum(1.0, np.abs(source))
    worst, same = difference.max(axis=1), find_same_or_tied(source, artifact, tolerance, task)
    # "Not within" instead of "beyond": NaN is neither, and must not pass.
    differing = np.flatnonzero(~(worst <= tolerance) | ~same)
    return Parity(
        pictures=len(source),
        max_difference=float(worst.max()),
        mean_difference=float(difference.mean()),
        labels_equal=int(same.sum()),
        tolerance=tolerance,
        differing=tuple(int(index) for index in differing),
        per_picture=tuple(float(value) for value in worst),
    )


def find_same_or_tied(
    truth: np.ndarray, given: np.ndarray, tolerance: float, task: str
) -> np.ndarray:
    """Tell for which samples an answer means the same, or what ties with it in the truth.

    Args:
        truth: (n, outputs).
        given: (n, outputs).
        tolerance: that each output has: two of them within twice as much are tied, a tag within
            it of 0.5 is either.
        task: "classes", "tags" or "values" (all mean the same).

    Returns:
        bool (n,).
    """
    if task == "classes":
        taken = truth[np.arange(len(truth)), given.argmax(axis=1)]
        return taken >= truth.max(axis=1) - 2 * tolerance
    if task == "tags":
        tied = np.abs(truth - 0.5) <= tolerance
        return (((truth >= 0.5) == (given >= 0.5)) | tied).all(axis=1)
    return np.ones(len(truth), bool)


def require_parity(parity: Parity, name: str, keys: Sequence[str]) -> None:
    """Let an artifact pass, or say why not.

    Args:
        parity: of the artifact with its source.
        name: what to call the artifact.
        keys: one name per picture.

    Raises:
        ParityError: if it differs; the first pictures that do are named.
    """
    if parity.passed:
        return
    first = parity.differing[:_NAMED]
    named = ", ".join(f"{keys[index]} ({parity.per_picture[index]:.2g})" for index in first)
    more = len(parity.differing) - len(first)
    raise ParityError(
        f"{name} does not give the answers of the Keras model: largest difference "
        f"{parity.max_difference:.3g} (allowed {parity.tolerance:.0e}), labels equal on "
        f"{parity.labels_equal} of {parity.pictures} pictures. First to differ: {named}"
        + (f" and {more} more" if more else "")
        + ". Nothing was written."
    )
