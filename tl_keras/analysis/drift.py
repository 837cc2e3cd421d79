"""All that is found between the images a model knows and other ones, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.analysis.accuracy_estimate import confidence, estimate_accuracy
from tl_keras.analysis.drift_tests import (
    Discrepancy,
    class_shifts,
    discrepancy,
    feature_shifts,
    novelty,
    projection,
    proxy_a_distance,
)
from tl_keras.utils.stats import percentile_interval

__all__ = ["CERTAIN", "FeatureSet", "Shift", "find_drift"]

CERTAIN = 0.01
"""A p-value below this is called a shift."""
_FEATURES_KEPT = 10


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """What a model makes of some images.

    Attributes:
        features: float (n, features), where its base ends.
        outputs: float (n, outputs), its answers.
        labels: int64 (n,), true classes; None where nobody knows them.
    """

    features: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray | None = None

    def take(self, indices: np.ndarray) -> FeatureSet:
        """Return some of the rows."""
        labels = None if self.labels is None else self.labels[indices]
        return FeatureSet(self.features[indices], self.outputs[indices], labels)


@dataclass(frozen=True, eq=False)
class Shift:
    """What was found.

    Attributes:
        facts: JSON-able figures, see :func:`find_drift`.
        mmd: The discrepancy with its null distribution.
        points: Both sides on two principal components, float (n, 2) and (m, 2).
        novelty: Both sides' distances to the training images.
        confidence: Both sides' largest probabilities; empty where the task has no classes.
    """

    facts: dict[str, Any]
    mmd: Discrepancy
    points: tuple[np.ndarray, np.ndarray]
    novelty: tuple[np.ndarray, np.ndarray]
    confidence: tuple[np.ndarray, np.ndarray]


def find_drift(
    bank: np.ndarray,
    known: FeatureSet,
    new: FeatureSet,
    class_names: Sequence[str] = (),
    *,
    extra: np.ndarray | None = None,
    seed: int = 0,
) -> Shift:
    """Compare new images with those that a model knows.

    Args:
        bank: float (b, features) of training images.
        known: Images of the known kind that the model was not trained on, with labels.
        new: The other images; labels only where they are true ones.
        class_names: In output order; empty for tasks without classes, whose answers then are
            not looked at.
        extra: float (e, features) of further images whose features can be compared: training
            images, where the features were not trained on them.
        seed: Makes everything that is drawn repeatable.

    Returns:
        Facts: `pictures`, `shifted`, `mmd`, `domain`, `features` (how many shifted, and the
        strongest), `unlike` (share of new images further from the training set than 95 % of
        the known ones), and for classes `classes`, `confidence`, `accuracy`.

    Raises:
        DataError: Too few images on a side.
    """
    reference = known.features if extra is None else np.concatenate([known.features, extra])
    mmd = discrepancy(reference, new.features, seed=seed)
    distances = novelty(bank, known.features, new.features)
    facts = {
        "pictures": {"reference": len(reference), "new": len(new.features)},
        "shifted": mmd.p_value < CERTAIN,
        "mmd": {"value": mmd.value, "p_value": mmd.p_value, "bandwidth": mmd.bandwidth},
        "domain": _domain(reference, new.features, seed),
        "features": _features(reference, new.features),
        "unlike": float((distances[1] > np.quantile(distances[0], 0.95)).mean()),
    }
    sides: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    if class_names:
        sides = confidence(known.outputs), confidence(new.outputs)
        facts |= _answers(known, new, class_names, seed)
    return Shift(facts, mmd, projection(reference, new.features), distances, sides)


def _domain(reference: np.ndarray, new: np.ndarray, seed: int) -> dict[str, float]:
    found = proxy_a_distance(reference, new, seed=seed)
    return {"error": found.error, "a_distance": found.distance}


def _features(reference: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    rows = feature_shifts(reference, new)
    shifted = sum(row["p_value"] < CERTAIN for row in rows)
    return {"count": len(rows), "shifted": shifted, "strongest": rows[:_FEATURES_KEPT]}


def _answers(known: FeatureSet, new: FeatureSet, names: Sequence[str], seed: int) -> dict[str, Any]:
    said = [side.outputs.argmax(axis=1) for side in (known, new)]
    classes = class_shifts((known.features, said[0]), (new.features, said[1]), names, seed=seed)
    for index, row in enumerate(classes):
        row["recall"] = _recall(said[1], new.labels, index)
    return {
        "classes": classes,
        "confidence": _drop(confidence(known.outputs), confidence(new.outputs), seed),
        "accuracy": _accuracy(known, new, seed),
    }


def _recall(said: np.ndarray, labels: np.ndarray | None, index: int) -> float | None:
    if labels is None or not (labels == index).any():
        return None
    return float((said[labels == index] == index).mean())


def _drop(known: np.ndarray, new: np.ndarray, seed: int) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(new, len(new)).mean() - generator.choice(known, len(known)).mean()
        for _ in range(1000)
    ]
    low, high = percentile_interval(drawn)
    return {
        "reference": float(known.mean()),
        "new": float(new.mean()),
        "change": float(new.mean() - known.mean()),
        "low": low,
        "high": high,
    }


def _accuracy(known: FeatureSet, new: FeatureSet, seed: int) -> dict[str, Any]:
    labels = np.zeros(0, np.int64) if known.labels is None else known.labels
    facts: dict[str, Any] = {"reference": _right(known)}
    for name, method in (("estimated", "mean"), ("thresholded", "atc")):
        found = estimate_accuracy(known.outputs, labels, new.outputs, method=method, seed=seed)
        facts[name] = {"value": found.value, "low": found.low, "high": found.high}
    return {**facts, "true": None if new.labels is None else _right(new)}


def _right(side: FeatureSet) -> float:
    return float((side.outputs.argmax(axis=1) == side.labels).mean())
