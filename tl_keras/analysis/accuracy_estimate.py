"""How accurate a model is on images that nobody labelled, from its confidence on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_keras.errors import DataError
from tl_keras.utils.stats import percentile_interval

__all__ = [
    "AccuracyEstimate", "confidence", "estimate_accuracy", "negative_entropy", "transport_cost",
]  # fmt: skip

_MOST = 1000


@dataclass(frozen=True)
class AccuracyEstimate:
    """An accuracy that was not measured.

    Attributes:
        value: Estimated share of right answers, 0..1.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """Return the largest probability of each row, float64 (n,)."""
    return np.asarray(probabilities, np.float64).max(axis=1)


def negative_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the sum of p log p of each row, float64 (n,); 0 where one class has all."""
    values = np.asarray(probabilities, np.float64)
    return (values * np.log(np.maximum(values, 1e-300))).sum(axis=1)


def transport_cost(
    probabilities: np.ndarray, shares: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what it costs to give each image a class so that classes have their shares.

    The cost of a class is 1 minus its probability, and the sum of costs is the least possible
    (an assignment problem).

    Args:
        probabilities: float (n, classes), rows sum to 1.
        shares: float (classes,), sum 1.
        seed: Chooses the rows where there are more than 1000.

    Returns:
        Costs float64 (m,) and the rows they belong to, int64 (m,), m at most 1000.
    """
    from scipy.optimize import linear_sum_assignment

    chosen = np.random.default_rng(seed).permutation(len(probabilities))[:_MOST]
    ends = np.round(np.cumsum(shares) * len(chosen))
    slots = np.searchsorted(ends, np.arange(len(chosen)), side="right")
    costs = 1.0 - np.asarray(probabilities, np.float64)[chosen][:, slots]
    places = linear_sum_assignment(costs)
    return costs[places], chosen


def estimate_accuracy(
    probabilities: np.ndarray,
    labels: np.ndarray,
    new_probabilities: np.ndarray,
    *,
    method: str = "mean",
    seed: int = 0,
    resamples: int = 1000,
) -> AccuracyEstimate:
    """Estimate the accuracy on new images from labelled ones of the known kind.

    A threshold on a score is set so that as many labelled images lie below it as were
    answered wrongly; the share of new images above it is the estimate. The score is

    - "atc", average thresholded confidence: the negative entropy (Garg et al., 'Leveraging
      unlabeled data to predict out-of-distribution performance', ICLR 2022, arXiv 2201.04234);
    - "cott": minus the cost of an optimal transport to the known shares of the classes (Lu et
      al., 'Characterizing out-of-distribution error via optimal transport', NeurIPS 2023,
      arXiv 2305.15640). It sees a model that takes all for one class with confidence; it
      holds where the classes are about as frequent as they were;
    - "mean": the mean of both. On corrupted photos the first errs upwards, the second
      downwards (benchmarks/README.md).

    The interval resamples the labelled and the new images.

    Args:
        probabilities: float (n, classes) of labelled images not trained on; rows sum to 1.
        labels: int (n,), their classes.
        new_probabilities: float (m, classes) of the new images.
        method: "mean", "atc" or "cott".
        seed: Makes the interval repeatable.
        resamples: Bootstrap samples.

    Raises:
        DataError: A side has no image, the shapes do not fit, or the method is unknown.
    """
    _check(probabilities, labels, new_probabilities)
    if method != "mean" and method not in _SCORES:
        raise DataError(f"unknown method '{method}', expected mean or {' or '.join(_SCORES)}")
    methods = tuple(_SCORES) if method == "mean" else (method,)
    sides = probabilities, labels, new_probabilities
    found = [_estimate(*sides, each, seed, resamples) for each in methods]
    value = float(np.mean([part for part, _ in found]))
    drawn = np.mean([part for _, part in found], axis=0)
    return AccuracyEstimate(value, *(percentile_interval(drawn) if resamples else (0.0, 1.0)))


def _estimate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    new: np.ndarray,
    method: str,
    seed: int,
    resamples: int,
) -> tuple[float, list[float]]:
    """Return the estimate and those of resampled images, the same ones for any method."""
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    scores, rows = _SCORES[method](probabilities, shares, seed)
    fresh, _ = _SCORES[method](new, shares, seed)
    right = (probabilities.argmax(axis=1) == labels)[rows]
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        known = generator.integers(0, len(scores), len(scores))
        chosen = generator.integers(0, len(fresh), len(fresh))
        drawn.append(_above(fresh[chosen], _threshold(scores[known], right[known])))
    return _above(fresh, _threshold(scores, right)), drawn


def _check(probabilities: np.ndarray, labels: np.ndarray, new: np.ndarray) -> None:
    if not len(probabilities) or not len(new):
        raise DataError("no picture on one side; expected labelled ones and new ones")
    if len(labels) != len(probabilities) or probabilities.shape[1] != new.shape[1]:
        raise DataError(
            f"got {len(labels)} labels, outputs {probabilities.shape} and {new.shape}; expected "
            "one label a row and the same classes"
        )


def _by_entropy(
    probabilities: np.ndarray, shares: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    return negative_entropy(probabilities), np.arange(len(probabilities))


def _by_transport(
    probabilities: np.ndarray, shares: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    costs, rows = transport_cost(probabilities, shares, seed=seed)
    return -costs, rows


_SCORES = {"atc": _by_entropy, "cott": _by_transport}


def _threshold(scores: np.ndarray, right: np.ndarray) -> float:
    """Return the score below which as many lie as answers are wrong."""
    wrong, ordered = int((~right).sum()), np.sort(scores)
    if wrong == len(ordered):
        return np.inf
    below = ordered[wrong - 1] if wrong else ordered[0]
    # Between two images, so that neither decides alone where the border lies.
    return float((below + ordered[wrong]) / 2)


def _above(scores: np.ndarray, threshold: float) -> float:
    return float((scores >= threshold).mean())
