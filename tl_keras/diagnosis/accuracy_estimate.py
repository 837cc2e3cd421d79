"""How accurate a model is on pictures that nobody labelled, from its confidence on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_keras.errors import DataError

__all__ = ["AccuracyEstimate", "confidence", "estimate_accuracy", "negative_entropy"]


@dataclass(frozen=True)
class AccuracyEstimate:
    """An accuracy that was not measured.

    Attributes:
        value: Estimated share of right answers, 0..1.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        threshold: Score from which on an answer counts as right.
    """

    value: float
    low: float
    high: float
    threshold: float


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """Return the largest probability of each row, float64 (n,)."""
    return np.asarray(probabilities, np.float64).max(axis=1)


def negative_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the sum of p log p of each row, float64 (n,); 0 where one class has all."""
    values = np.asarray(probabilities, np.float64)
    return (values * np.log(np.maximum(values, 1e-300))).sum(axis=1)


def estimate_accuracy(
    probabilities: np.ndarray,
    labels: np.ndarray,
    new_probabilities: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> AccuracyEstimate:
    """Estimate the accuracy on new pictures from labelled ones of the known kind.

    Average thresholded confidence (Garg et al., 'Leveraging unlabeled data to predict
    out-of-distribution performance', ICLR 2022, arXiv 2201.04234): a threshold on the
    negative entropy is set so that as many labelled pictures lie below it as were answered
    wrongly; the share of new pictures above it is the estimate. The interval resamples the
    labelled and the new pictures.

    Args:
        probabilities: float (n, classes) of labelled pictures not trained on; rows sum to 1.
        labels: int (n,), their classes.
        new_probabilities: float (m, classes) of the new pictures.
        seed: Makes the interval repeatable.
        resamples: Bootstrap samples.

    Raises:
        DataError: A side has no picture, or the shapes do not fit.
    """
    if not len(probabilities) or not len(new_probabilities):
        raise DataError("no picture on one side; expected labelled ones and new ones")
    if len(labels) != len(probabilities) or probabilities.shape[1] != new_probabilities.shape[1]:
        raise DataError(
            f"got {len(labels)} labels, outputs {probabilities.shape} and "
            f"{new_probabilities.shape}; expected one label a row and the same classes"
        )
    scores, new = negative_entropy(probabilities), negative_entropy(new_probabilities)
    right = probabilities.argmax(axis=1) == labels
    threshold = _threshold(scores, right)
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        known = generator.integers(0, len(scores), len(scores))
        fresh = generator.integers(0, len(new), len(new))
        drawn.append(_above(new[fresh], _threshold(scores[known], right[known])))
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (0.0, 1.0)
    return AccuracyEstimate(_above(new, threshold), float(low), float(high), threshold)


def _threshold(scores: np.ndarray, right: np.ndarray) -> float:
    """Return the score below which as many lie as answers are wrong."""
    wrong, ordered = int((~right).sum()), np.sort(scores)
    if wrong == len(ordered):
        return np.inf
    below = ordered[wrong - 1] if wrong else ordered[0]
    # Between two pictures, so that neither decides alone where the border lies.
    return float((below + ordered[wrong]) / 2)


def _above(scores: np.ndarray, threshold: float) -> float:
    return float((scores >= threshold).mean())
