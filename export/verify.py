"""Parity: an artifact is shipped only if it gives the answers of its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_keras.errors import ExportError, ParityError

__all__ = ["Comparison", "compare", "require"]

_NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """How far an artifact's answers are from its source's.

    Attributes:
        pictures: how many were compared.
        max_difference: largest absolute difference of two outputs; for task "values" relative
            to the source's magnitude where that exceeds 1. NaN if one side gave NaN.
        mean_difference: mean of the same differences.
        labels_equal: pictures with the same label (for "tags": all the same tags).
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
) -> Comparison:
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
    worst, same = difference.max(axis=1), _same_labels(source, artifact, task)
    # "Not within" instead of "beyond": NaN is neither, and must not pass.
    differing = np.flatnonzero(~(worst <= tolerance) | ~same)
    return Comparison(
        pictures=len(source),
        max_difference=float(worst.max()),
        mean_difference=float(difference.mean()),
        labels_equal=int(same.sum()),
        tolerance=tolerance,
        differing=tuple(int(index) for index in differing),
        per_picture=tuple(float(value) for value in worst),
    )


def _same_labels(source: np.ndarray, artifact: np.ndarray, task: str) -> np.ndarray:
    if task == "classes":
        return source.argmax(axis=1) == artifact.argmax(axis=1)
    if task == "tags":
        return ((source >= 0.5) == (artifact >= 0.5)).all(axis=1)
    return np.ones(len(source), bool)


def require(comparison: Comparison, name: str, keys: Sequence[str]) -> None:
    """Let an artifact pass, or say why not.

    Args:
        comparison: of the artifact with its source.
        name: what to call the artifact.
        keys: one name per picture.

    Raises:
        ParityError: if it differs; the first pictures that do are named.
    """
    if comparison.passed:
        return
    first = comparison.differing[:_NAMED]
    named = ", ".join(f"{keys[index]} ({comparison.per_picture[index]:.2g})" for index in first)
    more = len(comparison.differing) - len(first)
    raise ParityError(
        f"{name} does not give the answers of the Keras model: largest difference "
        f"{comparison.max_difference:.3g} (allowed {comparison.tolerance:.0e}), labels equal on "
        f"{comparison.labels_equal} of {comparison.pictures} pictures. First to differ: {named}"
        + (f" and {more} more" if more else "")
        + ". Nothing was written."
    )
