"""How far a figure from few pictures can be trusted: 95 % intervals.

Everything here works on a confusion matrix: resampling pictures with replacement is the
same as drawing from a multinomial distribution over its cells, which needs no loop over
pictures and no memory for resampled labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

__all__ = ["RESAMPLES", "bootstrap", "scores", "wilson"]

RESAMPLES = 2000
_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_CELLS_AT_ONCE = 4_000_000  # 32 MB of int64


def wilson(right: float, count: float) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), at 95 %.

    Args:
        right: successes, 0..count; need not be whole.
        count: trials, >= 0.

    Returns:
        (low, high) within 0..1; (0, 1) where there is no trial.
    """
    if count <= 0:
        return 0.0, 1.0
    share, z2 = right / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(
        share * (1 - share) / count + z2 / (4 * count * count)
    )
    low = 0.0 if right <= 0 else max(0.0, middle - half)
    high = 1.0 if right >= count else min(1.0, middle + half)
    return low, high


def scores(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 of one confusion matrix.

    Balanced accuracy is the mean recall over the classes that occur; macro F1 the mean over
    the classes that occur or are predicted (both as scikit-learn has them).

    Args:
        confusion: int (classes, classes), rows are the true class.

    Returns:
        {"accuracy", "balanced_accuracy", "macro_f1"}, each within 0..1.
    """
    hits = np.diag(confusion)[None]
    values = _scores(hits, confusion.sum(1)[None], confusion.sum(0)[None])
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap(confusion: np.ndarray, seed: int, resamples: int = RESAMPLES) -> dict[str, dict]:
    """Accuracy, balanced accuracy and macro F1 with bootstrap 95 % intervals.

    Percentile bootstrap over pictures (Efron 1979). Where every picture or none is right,
    resampling cannot vary and would claim certainty: Wilson's interval stands in, for the
    class means with the number of pictures that gives a mean recall's variance.

    Args:
        confusion: int (classes, classes), rows are the true class; at least one picture.
        seed: makes the resamples repeatable.
        resamples: how many.

    Returns:
        For each score {"value", "low", "high", "method": "bootstrap" | "wilson"}.
    """
    values = scores(confusion)
    if values["accuracy"] in (0.0, 1.0):
        return _unvaried(values, confusion)
    draws = [_scores(*drawn) for drawn in _resampled(confusion, seed, resamples)]
    result = {}
    for name, value in values.items():
        drawn = np.concatenate([draw[name] for draw in draws])
        low, high = np.quantile(drawn, [0.025, 0.975])
        result[name] = {
            "value": value, "low": float(low), "high": float(high), "method": "bootstrap",
        }
    return result


def _unvaried(values: dict[str, float], confusion: np.ndarray) -> dict[str, dict]:
    support = confusion.sum(1)
    present = support[support > 0]
    counts = dict.fromkeys(values, float(len(present) ** 2 / np.sum(1 / present)))
    counts["accuracy"] = float(present.sum())
    result = {}
    for name, value in values.items():
        low, high = wilson(value * counts[name], counts[name])
        result[name] = {"value": value, "low": low, "high": high, "method": "wilson"}
    return result


def _resampled(
    confusion: np.ndarray, seed: int, resamples: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Hits, true counts and predicted counts of each class, (resamples, classes), in pieces."""
    from scipy import sparse

    true, predicted = np.nonzero(confusion)
    filled = confusion[true, predicted]
    count, cells, classes = int(filled.sum()), np.arange(len(filled)), len(confusion)
    ones: np.ndarray = np.ones(len(filled), np.int64)
    shape = (len(filled), classes)
    rows = sparse.csr_array((ones, (cells, true)), shape)
    columns = sparse.csr_array((ones, (cells, predicted)), shape)
    diagonal = sparse.csr_array(((true == predicted).astype(np.int64), (cells, true)), shape)
    rng = np.random.default_rng(seed)
    piece = max(1, _CELLS_AT_ONCE // len(filled))
    for start in range(0, resamples, piece):
        size = min(piece, resamples - start)
        drawn = rng.multinomial(count, filled / count, size=size)
        yield drawn @ diagonal, drawn @ rows, drawn @ columns


def _scores(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The three scores from counts a class, each (resamples, classes)."""
    occurs, either = true > 0, true + predicted > 0
    recall = hits / np.maximum(true, 1)
    f1 = 2 * hits / np.maximum(true + predicted, 1)
    return {
        "accuracy": hits.sum(1) / true.sum(1),
        "balanced_accuracy": recall.sum(1) / occurs.sum(1),
        "macro_f1": f1.sum(1) / either.sum(1),
    }
