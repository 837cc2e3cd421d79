"""Which classes of a trained classifier stand for those of new data, with no training at all.

The classifier's own answers on labelled samples say it: each of its classes is given to the new
class on which it is answered most, and a new sample gets the class whose own ones are answered
with the highest probability together. LEEP (Nguyen et al. 2020, arXiv 2002.12462) scores how well
the best such guess fits; this makes the guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_keras.analysis.transferability import check_source

__all__ = ["ClassMatching", "match_classes", "matching_accuracy"]


@dataclass(frozen=True, eq=False)
class ClassMatching:
    """How the classes of a classifier (source) stand for others.

    Attributes:
        means: float64 (classes, source classes): mean probability on the samples of each class.
        assigned: int64 (source classes,): the class each source class stands for; -1 for one
            that is never answered.
    """

    means: np.ndarray
    assigned: np.ndarray

    def predict_proba(self, source: np.ndarray) -> np.ndarray:
        """Return how much of the source's probability falls to each class, (n, classes)."""
        groups = self.assigned[:, None] == np.arange(len(self.means))
        return np.asarray(source, np.float64) @ groups

    def top(self, index: int, most: int = 3) -> list[tuple[int, float]]:
        """Return a class's own source classes, most answered first, with their mean probability."""
        own = np.flatnonzero(self.assigned == index)
        order = own[np.argsort(-self.means[index, own], kind="stable")][:most]
        return [(int(i), float(self.means[index, i])) for i in order]


def match_classes(source: np.ndarray, labels: np.ndarray, classes: int) -> ClassMatching:
    """Assign each class of a classifier to the class on whose samples it is answered most.

    Args:
        source: (n, source classes), the classifier's probabilities, each row adding to 1.
        labels: Class indices, (n,).
        classes: How many.

    Raises:
        DataError: Probabilities and labels do not fit.
    """
    means = _sum_up(source, labels, classes)[0]
    return ClassMatching(means, _assign(means))


def matching_accuracy(source: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return the accuracy of class matching on samples, each left out of its own assignment.

    Args:
        source: (n, source classes), the classifier's probabilities, each row adding to 1.
        labels: Class indices, (n,).
        classes: How many.

    Raises:
        DataError: Probabilities and labels do not fit.
    """
    means, sums, counts = _sum_up(source, labels, classes)
    right = 0
    for row, label in zip(source, labels, strict=True):
        without = means.copy()
        without[label] = np.maximum(sums[label] - row, 0.0) / max(counts[label] - 1, 1)
        groups = _assign(without)[:, None] == np.arange(classes)
        right += int((row @ groups).argmax() == label)
    return right / len(labels)


def _sum_up(
    source: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and sum of the source's probabilities, and samples, of each class."""
    source, labels = check_source(source, labels)
    groups = np.eye(classes)[labels]
    sums, counts = groups.T @ source, groups.sum(0)
    return sums / np.maximum(counts, 1)[:, None], sums, counts


def _assign(means: np.ndarray) -> np.ndarray:
    return np.where(means.max(0) > 0, means.argmax(0), -1)
