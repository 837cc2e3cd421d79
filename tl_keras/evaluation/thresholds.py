"""From which probability a tag counts as given, chosen for each tag on samples not learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.validation import checked_tags

__all__ = ["DEFAULT_THRESHOLD", "checked_thresholds", "fit_thresholds"]

DEFAULT_THRESHOLD = 0.5
_FEWEST = 5


def fit_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return for each tag the threshold with the highest F1.

    A threshold lies half-way between two neighbouring probabilities, and of several that are as
    good it is the one nearest to 0.5. A tag that fewer than 5 samples have, or fewer than 5
    lack, keeps 0.5: so few say nothing.

    Args:
        probabilities: (n, tags), each 0..1, of samples that were not learned from.
        labels: (n, tags), each 0 or 1.

    Returns:
        One number of 0..1 a tag: it is given where its probability is at least that.

    Raises:
        DataError: Shapes or ranges do not fit.
    """
    probabilities, labels = checked_tags(probabilities, labels)
    return [_best(p, y) for p, y in zip(probabilities.T, labels.T, strict=True)]


def checked_thresholds(thresholds: Sequence[float] | None, tags: int) -> np.ndarray:
    """Return a threshold for each tag, float64 (tags,); 0.5 for all where there are none.

    Raises:
        DataError: There are more or fewer, or one is not within 0..1.
    """
    if thresholds is None:
        return np.full(tags, DEFAULT_THRESHOLD)
    found = np.asarray(thresholds, np.float64)
    if found.shape != (tags,) or not ((found >= 0) & (found <= 1)).all():
        raise DataError(f"got thresholds {thresholds}; expected {tags} numbers of 0 to 1.")
    return found


def _best(scores: np.ndarray, labels: np.ndarray) -> float:
    if min(labels.sum(), len(labels) - labels.sum()) < _FEWEST:
        return DEFAULT_THRESHOLD
    distinct = np.unique(scores)
    middles = (distinct[1:] + distinct[:-1]) / 2
    tried = np.unique(np.concatenate([[DEFAULT_THRESHOLD], distinct[:1], middles]))
    order = np.sort(scores)
    given = len(scores) - np.searchsorted(order, tried, side="left")
    own = np.sort(scores[labels > 0])
    hits = len(own) - np.searchsorted(own, tried, side="left")
    f1 = 2 * hits / (given + len(own))
    best = tried[f1 >= f1.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])
