"""Does 90 % sure mean right nine times in ten? Calibration and temperature scaling."""

from __future__ import annotations

import numpy as np

from tl_keras.evaluation.validation import checked_classes

__all__ = [
    "BINS",
    "apply_temperature",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability_bins",
]

BINS = 15
SMALLEST = 1e-12  # stands in for a probability of zero: log 0 would drown every other image
_BOUNDS = (0.05, 20.0)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(true class), in nats.

    Args:
        probabilities: (n, classes), rows sum to 1; zeros count as 1e-12.
        labels: int (n,), class indices.

    Returns:
        A figure >= 0; log(classes) for a model that knows nothing.
    """
    probabilities, labels = checked_classes(probabilities, labels)
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, SMALLEST)).mean())


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> list[dict[str, float]]:
    """Confidence against accuracy in bins of equal width over 0..1.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: int (n,), class indices.
        bins: how many.

    Returns:
        A dict for each bin that holds an image: low, high (its borders), count, confidence
        (mean probability of the predicted class), accuracy.
    """
    probabilities, labels = checked_classes(probabilities, labels)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "low": int(b) / bins,
            "high": (int(b) + 1) / bins,
            "count": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "accuracy": float(right[place == b].mean()),
        }
        for b in np.unique(place)
    ]


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> float:
    """Mean gap between confidence and accuracy, weighted by the images in each bin.

    Naeini et al. 2015, as used by Guo et al. (arXiv 1706.04599): 15 bins of equal width over
    the confidence in the predicted class. On few images it is biased upwards.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: int (n,), class indices.
        bins: how many.

    Returns:
        A figure in 0..1, 0 is perfect.
    """
    found = reliability_bins(probabilities, labels, bins)
    gaps = sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in found)
    return float(gaps / sum(b["count"] for b in found))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax(log p / T): the same predictions, softer (T > 1) or sharper (T < 1).

    Equal to dividing the logits by T, since log-probabilities are logits up to a constant.

    Args:
        probabilities: (n, classes), rows sum to 1; zeros count as 1e-12.
        temperature: T, > 0.

    Returns:
        float64 (n, classes), rows sum to 1.
    """
    from scipy.special import softmax

    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
    return softmax(logits / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes held-out predictions most likely.

    Guo et al., 'On Calibration of Modern Neural Networks' (arXiv 1706.04599). Fit it on the
    validation split, apply it to the test split. The likelihood has one peak in T, which a
    bounded search finds within 0.05..20. Where every image is right there is no peak (the
    sharper the better, without end) and the answer is 1: few images are no reason to
    claim certainty.

    Args:
        probabilities: (n, classes), rows sum to 1; zeros are allowed.
        labels: int (n,), class indices.

    Returns:
        T: above 1 for a model too sure of itself, below 1 for one too timid.

    Raises:
        DataError: shapes or ranges are wrong.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    probabilities, labels = checked_classes(probabilities, labels)
    if (probabilities.argmax(1) == labels).all():
        return 1.0
    logits, rows = np.log(np.maximum(probabilities, SMALLEST)), np.arange(len(labels))

    def cost(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[rows, labels].mean())

    found = minimize_scalar(cost, bounds=np.log(_BOUNDS), method="bounded")
    return float(np.exp(found.x))
