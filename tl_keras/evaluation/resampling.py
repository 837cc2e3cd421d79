"""Intervals for figures that no table of counts can give: areas under curves, errors of numbers.

Percentile bootstrap over samples (Efron 1979). A resample is a weight for each sample, how often
it was drawn, so that thousands are computed at once and scores are sorted a single time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tl_keras.utils.stats import RESAMPLES, percentile_interval, wilson

__all__ = ["error_figures", "macro_auroc", "ranked", "ranking_figures"]

_CELLS_AT_ONCE = 2_000_000
_CELLS = 50_000_000
_FEWEST = 200


def ranked(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and the area under the ROC curve, under several weightings.

    Both as scikit-learn has them: precision summed over steps of recall, equal scores as one
    step; NaN where no sample, or for the area every sample, has the label.

    Args:
        scores: (n,), higher is more likely.
        labels: 0 or 1, (n,).
        weights: (weightings, n), 0 or more.

    Returns:
        Two arrays (weightings,), 0..1.
    """
    order = np.argsort(-scores, kind="stable")
    ends: np.ndarray = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights, true = weights[:, order], labels[order] > 0
    hits = np.cumsum(weights * true, axis=1)[:, ends].astype(float)
    misses = np.cumsum(weights * ~true, axis=1)[:, ends].astype(float)
    have, lack = hits[:, -1], misses[:, -1]
    gained = np.diff(hits, axis=1, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = hits / np.maximum(hits + misses, 1e-300)
        area = (np.diff(misses, axis=1, prepend=0.0) * (hits - gained / 2)).sum(1) / (have * lack)
        return (gained * precision).sum(1) / have, area


def macro_auroc(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the mean over classes of the area under the ROC curve, each against all others.

    Args:
        probabilities: (n, classes).
        labels: Class indices, (n,).

    Returns:
        0..1; None where fewer than two classes occur.
    """
    ones = np.ones((1, len(labels)))
    areas = [
        ranked(probabilities[:, k], labels == k, ones)[1][0]
        for k in np.unique(labels)
    ]  # fmt: skip
    return float(np.mean(areas)) if len(areas) > 1 else None


def ranking_figures(
    probabilities: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return average precision and AUROC of tags, with 95 % intervals.

    Args:
        probabilities: float64 (n, tags).
        labels: (n, tags) of 0 and 1.
        seed: Of the bootstrap.

    Returns:
        {"mean_average_precision", "auroc"}, the means over the tags for which there is such a
        figure, each {value, low, high, method} or None; and for each tag "average_precision" and
        "auroc", numbers or None, with their ends under "..._low" and "..._high".
    """
    count, tags = labels.shape
    columns = range(tags)
    values = _of_tags(probabilities, labels, np.ones((1, count)))[:, :, 0]
    pieces = [_of_tags(probabilities, labels, drawn) for drawn in _resamples(count, tags, seed)]
    drawn = np.concatenate(pieces, axis=2)
    support = labels.sum(0)
    fewest = np.where(support < count, np.minimum(support, count - support), support)
    per_tag: list[dict[str, Any]] = [{} for _ in columns]
    means = {}
    for name, value, redrawn in zip(
        ("average_precision", "auroc"), values, drawn, strict=True
    ):  # fmt: skip
        known = np.flatnonzero(np.isfinite(value))
        for k in columns:
            found = _spread(value[k], redrawn[k], fewest[k]) if k in known else None
            ends = (found["value"], found["low"], found["high"]) if found else (None, None, None)
            keys = (name, f"{name}_low", f"{name}_high")
            per_tag[k].update(zip(keys, ends, strict=True))
        least = len(known) ** 2 / (1 / fewest[known]).sum() if len(known) else 0
        means[name] = (
            _spread(value[known].mean(), _mean(redrawn[known]), int(least)) if len(known) else None
        )
    figures = {"mean_average_precision": means["average_precision"], "auroc": means["auroc"]}
    return figures, per_tag


def _of_tags(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision and area of each tag under each weighting, (2, tags, weightings)."""
    pairs = [ranked(p, y, weights) for p, y in zip(probabilities.T, labels.T, strict=True)]
    return np.array(pairs).transpose(1, 0, 2)


def _mean(redrawn: np.ndarray) -> np.ndarray:
    """The mean over the rows that are numbers; a tag may be missing from a resample."""
    known = np.isfinite(redrawn)
    return np.where(known, redrawn, 0).sum(0) / np.maximum(known.sum(0), 1)


def error_figures(predictions: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Return mean absolute error, root mean squared error and R², with 95 % intervals.

    Args:
        predictions: float64 (n, outputs).
        labels: float64 (n, outputs).
        seed: Of the bootstrap.

    Returns:
        "mae", "rmse" (over all outputs) and "r2" (the mean over those whose labels vary), each
        {value, low, high, method}; "r2" is None where no labels vary.
    """
    count, outputs = labels.shape
    values = _errors(predictions, labels, np.ones((1, count)))[:, 0]
    drawn = np.concatenate(
        [_errors(predictions, labels, weights) for weights in _resamples(count, outputs, seed)], 1
    )
    return {
        name: _spread(value, redrawn, 0) if np.isfinite(value) else None
        for name, value, redrawn in zip(("mae", "rmse", "r2"), values, drawn, strict=True)
    }


def _errors(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The three errors under each weighting, (3, weightings)."""
    off, total = predictions - labels, weights.sum(1)
    squares = weights @ off**2
    # Labels about their mean: sums of squares of large numbers would round away.
    centred = labels - labels.mean(0)
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total[:, None]
    varies = spread > 1e-12 * np.maximum((centred**2).sum(0), 1e-300)
    r2 = np.where(varies, 1 - squares / np.where(varies, spread, 1.0), np.nan)
    r2 = np.where(varies.any(1), _mean(r2.T), np.nan)
    return np.stack([(weights @ np.abs(off)).mean(1) / total, np.sqrt(squares.mean(1) / total), r2])


def _resamples(count: int, columns: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sample is drawn, int64 (resamples, n), in pieces that fit into memory."""
    rng = np.random.default_rng(seed)
    left = int(np.clip(_CELLS // (count * columns), _FEWEST, RESAMPLES))
    while left > 0:
        size = min(left, max(1, _CELLS_AT_ONCE // count))
        yield rng.multinomial(count, np.full(count, 1 / count), size=size)
        left -= size


def _spread(value: float, redrawn: np.ndarray, fewest: int) -> dict[str, Any]:
    """A figure with its interval; Wilson's, on so many samples, where resampling cannot vary."""
    known, method = redrawn[np.isfinite(redrawn)], "bootstrap"
    low, high = percentile_interval(known) if len(known) else (value, value)
    if low == high and fewest > 0:
        (low, high), method = wilson(round(value * fewest), int(fewest)), "wilson"
    ends = (min(low, value), max(high, value))
    return {"value": float(value), "low": float(ends[0]), "high": float(ends[1]), "method": method}
