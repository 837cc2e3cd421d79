"""What classifiers' answers and scores say, and how far such a figure can be trusted.

Resampling samples with replacement is the same as drawing from a multinomial distribution over
the kinds of samples that there are, such as the cells of a confusion matrix: no loop over
samples, and no memory for resampled labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tl_keras.errors import DataError

__all__ = [
    "RESAMPLES", "bootstrap", "log_loss", "paired_difference", "paired_interval",
    "percentile_interval", "right", "scores", "smoothed_loss", "temperature", "wilson",
]  # fmt: skip

RESAMPLES = 2000
_Z = 1.959963984540054
"""A normal number lies within so many standard deviations in 95 % of cases."""
_EDGE = 1e-9
_HEAT = (math.log(1e-3), math.log(1e3))
_CELLS_AT_ONCE = 4_000_000  # 32 MB of int64


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), at 95 %.

    Args:
        right: Successes, 0..count; or the sum of `count` numbers within 0..1, whose mean varies
            less than a share does, so that the interval is on the safe side.
        count: Trials, 0 or more.

    Returns:
        (low, high) within 0..1; (0, 1) where there is no trial.
    """
    if count <= 0:
        return 0.0, 1.0
    share, more = float(right) / count, _Z**2 / count
    middle = (share + more / 2) / (1 + more)
    half = _Z * math.sqrt(share * (1 - share) / count + more / (4 * count)) / (1 + more)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return low, 1.0 if share >= 1 else min(1.0, middle + half)


def paired_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Return the score interval of a difference of two shares on the same samples, at 95 %.

    Tango 1998, 'Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design', Statistics in Medicine 17: the differences that a score test does not
    refuse. It holds for few samples, and where nothing or everything changed.

    Args:
        gained: Samples that only the one way has right.
        lost: Samples that only the other way has right.
        count: All samples, 0 or more.

    Returns:
        (low, high) of (gained - lost) / count, within -1..1; (-1, 1) where there is no sample.
    """
    if count <= 0:
        return -1.0, 1.0
    from scipy.optimize import brentq

    found, ends = (gained - lost) / count, []
    for limit, sign in ((-1.0, 1.0), (1.0, -1.0)):
        # The statistic falls from its limit to 0 at what was found.
        if abs(found - limit) < _EDGE:
            ends.append(limit)
            continue
        inside, near = limit + sign * _EDGE, found - sign * _EDGE
        arguments = (gained, lost, count, sign)
        ends.append(float(brentq(_beyond, inside, near, arguments, xtol=1e-12)))
    return ends[0], ends[1]


def _beyond(difference: float, gained: int, lost: int, count: int, sign: float) -> float:
    """How far Tango's statistic of a supposed difference lies beyond the 95 % limit."""
    # The likeliest share that only the other way has right, if the difference is the true one.
    a, c = 2 * count, -lost * difference * (1 - difference)
    b = (2 * count - gained + lost) * difference - gained - lost
    share = max(0.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    variance = count * (2 * share + difference * (1 - difference))
    off = sign * (gained - lost - count * difference)
    return off - _Z * math.sqrt(max(0.0, variance))


def percentile_interval(drawn: np.ndarray | Sequence[float]) -> tuple[float, float]:
    """Return the ends between which 95 % of resampled values lie (Efron 1979)."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def paired_difference(
    after: np.ndarray, before: np.ndarray, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same images, with a 95 % interval.

    Of one run each way :func:`paired_interval`. Of several, bootstrap (Efron 1979) over images,
    the same ones for both ways, and over seeds, those of each way on their own: runs with another
    seed would have come out otherwise too. Where the resampled spread is less than one image the
    interval is one image wide each way.

    Args:
        after: bool (seeds, images), right answers of one way.
        before: bool (other seeds, images), those of the other on the same images.
        seed: Makes the resamples repeatable.

    Returns:
        Difference (after minus before), lower and upper end.

    Raises:
        DataError: The shapes do not fit, or there is nothing to compare.
    """
    after, before = np.atleast_2d(after).astype(float), np.atleast_2d(before).astype(float)
    if after.shape[1] != before.shape[1] or not after.size or not before.size:
        raise DataError(
            f"right answers of shapes {after.shape} and {before.shape}; expected (seeds, pictures) "
            "over the same pictures, at least one"
        )
    generator, pictures = np.random.default_rng(seed), after.shape[1]
    value = float(after.mean() - before.mean())
    if len(after) == len(before) == 1:
        gained, lost = int((after > before).sum()), int((before > after).sum())
        return value, *paired_interval(gained, lost, pictures)
    # Images that all runs answered alike are drawn together: few kinds, however many images.
    kinds, many = np.unique(np.concatenate([after, before]), axis=1, return_counts=True)
    counts = generator.multinomial(pictures, many / pictures, 2 * RESAMPLES)
    sides = kinds[: len(after)], kinds[len(after) :]
    drawn = np.subtract(*(_redrawn(side, counts, generator) for side in sides))
    low, high = percentile_interval(drawn)
    least = 1 / pictures
    return value, min(low, value - least), max(high, value + least)


def _redrawn(right: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Accuracy of every resample: kinds of images by their counts, seeds drawn anew."""
    of_seeds = counts @ right.T / counts[0].sum()
    chosen = generator.integers(0, len(right), of_seeds.shape)
    drawn, mean = np.take_along_axis(of_seeds, chosen, axis=1).mean(axis=1), of_seeds.mean(axis=1)
    # Few seeds drawn anew spread less than seeds do: their variance is (n - 1) / n of it.
    return mean + (drawn - mean) * np.sqrt(len(right) / max(1, len(right) - 1))


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

    Percentile bootstrap over images (Efron 1979). Where every image or none is right,
    resampling cannot vary and would claim certainty: Wilson's interval stands in, for the
    class means with the number of images that gives a mean recall's variance.

    Args:
        confusion: int (classes, classes), rows are the true class; at least one image.
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
        low, high = percentile_interval(drawn)
        result[name] = {"value": value, "low": low, "high": high, "method": "bootstrap"}
    return result


def _unvaried(values: dict[str, float], confusion: np.ndarray) -> dict[str, dict]:
    support = confusion.sum(1)
    present = support[support > 0]
    counts = dict.fromkeys(values, int(len(present) ** 2 / np.sum(1 / present)))
    counts["accuracy"] = int(present.sum())
    result = {}
    for name, value in values.items():
        low, high = wilson(round(value * counts[name]), counts[name])
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


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log likelihood, in nats, of labels (n,) under logits (n, c)."""
    from scipy.special import log_softmax

    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def right(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose highest score (n, c) is their label's (n,)."""
    return float((scores.argmax(1) == labels).mean())


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return T > 0 that fits logits / T to labels (Guo et al. 2017, arXiv 1706.04599).

    Labels count as certain but for one in n + 2, after Platt 1999: where all n samples are
    named rightly the plain log loss would call for endless confidence.

    Args:
        logits: (n, c), of samples that were not learnt from.
        labels: Class indices, (n,).
    """
    from scipy.optimize import minimize_scalar

    wide = np.asarray(logits, np.float64)
    found = minimize_scalar(
        lambda log_heat: smoothed_loss(wide / math.exp(log_heat), labels), bounds=_HEAT,
        method="bounded", options={"xatol": 1e-3},
    )  # fmt: skip
    return math.exp(float(found.x))


def smoothed_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the log loss where 1 / (n + 2) of each label is spread over the other classes."""
    from scipy.special import log_softmax

    share, (count, classes) = 1.0 / (len(labels) + 2.0), logits.shape
    logs = log_softmax(logits, axis=1)
    true = logs[np.arange(count), labels]
    others = (logs.sum(1) - true) / max(classes - 1, 1)
    return float(-((1.0 - share) * true + share * others).mean())
