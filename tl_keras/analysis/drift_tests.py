"""How far two sets of images lie apart, from their features alone.

Three views of the same question: can a classifier tell the sets apart (proxy A-distance), do
their distributions differ beyond chance (maximum mean discrepancy with a permutation test),
in which features and classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.errors import DataError

__all__ = [
    "Discrepancy", "DomainError", "FEWEST", "class_shifts", "discrepancy", "feature_shifts",
    "holm", "novelty", "projection", "proxy_a_distance", "squared_distances",
]  # fmt: skip

FEWEST = 10
"""Pictures that each side needs: with fewer, no p-value could speak of a shift."""
_MOST = 1000
_COMPONENTS = 50


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """Maximum mean discrepancy between two sets, and what chance would have given.

    Attributes:
        value: Unbiased estimate of the squared MMD; near 0, even below, for equal sets.
        p_value: Share of random partitions with a value at least as large, in (0, 1].
        bandwidth: Of the Gaussian kernel, in units of the scaled features.
        null: float64 (permutations,), the values of the random partitions.
    """

    value: float
    p_value: float
    bandwidth: float
    null: np.ndarray


@dataclass(frozen=True)
class DomainError:
    """How well a classifier tells two sets apart.

    Attributes:
        error: Balanced error of the classifier on images it was not trained on, 0..1.
        distance: Proxy A-distance, 2 (1 - 2 error), cut off at 0: 0 for sets that cannot be
            told apart, 2 for sets that always can.
    """

    error: float
    distance: float


def _sides(reference: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check the two sets and give every feature the same spread over both together."""
    reference, new = np.asarray(reference, np.float64), np.asarray(new, np.float64)
    if reference.ndim != 2 or new.ndim != 2 or reference.shape[1] != new.shape[1]:
        raise DataError(
            f"features of shapes {reference.shape} and {new.shape}; expected (n, features) and "
            "(m, features) of the same layer"
        )
    few = min(len(reference), len(new))
    if few < FEWEST:
        raise DataError(f"got {few} pictures on one side; a comparison needs at least {FEWEST}")
    both = np.concatenate([reference, new])
    if not np.isfinite(both).all():
        raise DataError("the features hold values that are not numbers; expected finite ones")
    centred, spread = both - both.mean(axis=0), both.std(axis=0)
    # A constant that was computed in float32 varies by its rounding alone.
    varies = spread > np.maximum(1e-6 * np.abs(both).max(axis=0), 1e-6 * spread.max())
    scaled = np.where(varies, centred, 0.0) / np.where(varies, spread, 1.0)
    return scaled[: len(reference)], scaled[len(reference) :]


def _sample(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if len(rows) <= _MOST:
        return rows
    return rows[np.sort(generator.choice(len(rows), _MOST, replace=False))]


def squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of rows (n, d) to others (m, d), (n, m)."""
    squares = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * rows @ others.T
    return np.maximum(squares, 0.0)


def discrepancy(
    reference: np.ndarray, new: np.ndarray, *, permutations: int = 999, seed: int = 0
) -> Discrepancy:
    """Return the maximum mean discrepancy and its permutation p-value.

    Gretton et al., 'A kernel two-sample test' (JMLR 2012): the unbiased estimate of the
    squared MMD with a Gaussian kernel, whose bandwidth is the median distance between
    images; the p-value is (1 + values at least as large) / (1 + permutations), which is
    valid for any number of images.

    Args:
        reference: float (n, features), n at least `FEWEST`.
        new: float (m, features) of the same layer, m at least `FEWEST`.
        permutations: Random partitions; the least p-value is 1 / (permutations + 1).
        seed: Makes sampling (above 1000 images a side) and partitions repeatable.

    Raises:
        DataError: Too few images, other features, or values that are not finite.
    """
    generator = np.random.default_rng(seed)
    sides = [_sample(side, generator) for side in _sides(reference, new)]
    count, rows = len(sides[0]), np.concatenate(sides)
    squares = squared_distances(rows, rows)
    median = float(np.median(squares[np.triu_indices(len(rows), 1)]))
    kernel = np.exp(-squares / (2 * median)) if median > 0 else np.ones_like(squares)
    np.fill_diagonal(kernel, 0.0)
    orders = [np.arange(len(rows))]
    orders += [generator.permutation(len(rows)) for _ in range(permutations)]
    values = _mmd(kernel, np.stack(orders), count)
    larger = int((values[1:] >= values[0] - 1e-12).sum())
    return Discrepancy(
        float(values[0]), (1 + larger) / (1 + permutations), float(np.sqrt(median)), values[1:]
    )


def _mmd(kernel: np.ndarray, orders: np.ndarray, count: int) -> np.ndarray:
    """Squared MMD of every partition: the first `count` of each order against the rest."""
    other = kernel.shape[0] - count
    member = np.zeros(orders.shape)
    np.put_along_axis(member, orders[:, :count], 1.0, axis=1)
    sums = member @ kernel
    inside = (sums * member).sum(1)
    across = sums.sum(1) - inside
    outside = kernel.sum() - inside - 2 * across
    return (
        inside / (count * (count - 1))
        + outside / (other * (other - 1))
        - 2 * across / (count * other)
    )


def proxy_a_distance(reference: np.ndarray, new: np.ndarray, *, seed: int = 0) -> DomainError:
    """Return the proxy A-distance of two sets.

    Ben-David et al., 'Analysis of representations for domain adaptation' (NeurIPS 2006):
    2 (1 - 2 error) with the error of a classifier between the two sets; here logistic
    regression on the principal components, its balanced error by five-fold cross-validation.

    Args:
        reference: float (n, features), n at least `FEWEST`.
        new: float (m, features) of the same layer, m at least `FEWEST`.
        seed: Makes sampling and folds repeatable.

    Raises:
        DataError: Too few images, other features, or values that are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    generator = np.random.default_rng(seed)
    sides = [_sample(side, generator) for side in _sides(reference, new)]
    domain: np.ndarray = np.repeat([0, 1], [len(side) for side in sides])
    rows = _components(np.concatenate(sides), min(_COMPONENTS, max(2, len(domain) // 5)))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    classifier = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    said = cross_val_predict(classifier, rows, domain, cv=folds)
    error = float(np.mean([(said[domain == side] != side).mean() for side in (0, 1)]))
    return DomainError(error, max(0.0, 2 * (1 - 2 * error)))


def _components(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the scores on the first principal components, each with unit spread."""
    rows = rows - rows.mean(axis=0)
    left, strength, _ = np.linalg.svd(rows, full_matrices=False)
    kept = min(count, int((strength > 1e-9 * max(strength[0], 1e-300)).sum()))
    return left[:, :kept] * np.sqrt(len(rows)) if kept else np.zeros((len(rows), 1))


def projection(reference: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets on the first two principal components of all images, (n, 2), (m, 2).

    Raises:
        DataError: Too few images, other features, or values that are not finite.
    """
    rows = np.concatenate(_sides(reference, new))
    left, strength, _ = np.linalg.svd(rows, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    plane[:, : min(2, left.shape[1])] = (left * strength)[:, :2]
    return plane[: len(reference)], plane[len(reference) :]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number (Holm 1979): chance of one false alarm."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected


def feature_shifts(reference: np.ndarray, new: np.ndarray) -> list[dict[str, Any]]:
    """Return how each feature shifted, the strongest first.

    Args:
        reference: float (n, features), n at least `FEWEST`.
        new: float (m, features) of the same layer, m at least `FEWEST`.

    Returns:
        For each feature its index, `shift` (difference of means in pooled standard
        deviations, above 0 where the new images have more), `ks` (largest difference of the
        distribution functions, Kolmogorov and Smirnov, 0..1) and `p_value` (Holm's, for all
        features together).

    Raises:
        DataError: Too few images, other features, or values that are not finite.
    """
    from scipy.stats import kstwobign

    first, second = _sides(reference, new)
    distance = _kolmogorov(first, second)
    size = len(first) * len(second) / (len(first) + len(second))
    p_values = holm(kstwobign.sf(np.sqrt(size) * distance))
    within = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
    shift = (second.mean(axis=0) - first.mean(axis=0)) / np.where(within > 0, within, 1.0)
    return [
        {
            "feature": int(i),
            "shift": float(shift[i]),
            "ks": float(distance[i]),
            "p_value": float(p_values[i]),
        }
        for i in np.argsort(-distance, kind="stable")
    ]


def _kolmogorov(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    both = np.concatenate([first, second])
    order = np.argsort(both, axis=0, kind="stable")
    steps = np.where(order < len(first), 1 / len(first), -1 / len(second))
    heights = np.abs(np.cumsum(steps, axis=0))
    ordered = np.take_along_axis(both, order, axis=0)
    # Between equal values there is no step yet.
    heights[:-1][ordered[:-1] == ordered[1:]] = 0.0
    return heights.max(axis=0)


def class_shifts(
    reference: tuple[np.ndarray, np.ndarray],
    new: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return how much of each class there is on both sides, and whether it shifted within.

    Args:
        reference: Features (n, features) and class indices (n,).
        new: Features (m, features) and class indices (m,).
        class_names: In output order.
        seed: Makes the permutations repeatable.

    Returns:
        For each class its name, counts and shares on both sides, and the p-value (Holm's) of
        the discrepancy within it; None where a side has fewer than `FEWEST` images.
    """
    rows = []
    for index, name in enumerate(class_names):
        sides = [features[classes == index] for features, classes in (reference, new)]
        enough = min(map(len, sides)) >= FEWEST
        p_value = discrepancy(*sides, permutations=499, seed=seed).p_value if enough else None
        row = {"name": name, "reference": len(sides[0]), "new": len(sides[1]), "p_value": p_value}
        row["reference_share"] = len(sides[0]) / len(reference[1])
        row["new_share"] = len(sides[1]) / len(new[1])
        rows.append(row)
    tested = [row for row in rows if row["p_value"] is not None]
    for row, value in zip(tested, holm(np.array([r["p_value"] for r in tested])), strict=True):
        row["p_value"] = float(value)
    return rows


_NEIGHBOURS = 5


def novelty(
    bank: np.ndarray, known: np.ndarray, new: np.ndarray, *, neighbours: int = _NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Return how unlike the training images each image is.

    The distance to the k-th nearest training image between features scaled to length 1
    (Sun et al., 'Out-of-distribution detection with deep nearest neighbors', ICML 2022,
    arXiv 2204.06507). Images of the known kind that were not trained on show what is usual.

    Args:
        bank: float (b, features) of training images, b at least `neighbours`.
        known: float (n, features) of images of the known kind that are not in the bank.
        new: float (m, features) of the same layer.
        neighbours: k.

    Returns:
        The distances of the known images, float64 (n,), and of the new ones, (m,); 0..2.

    Raises:
        DataError: There are fewer training images than neighbours.
    """
    if len(bank) < neighbours:
        raise DataError(f"got {len(bank)} training pictures; expected at least {neighbours}")
    base = _unit(bank)
    near = [np.partition(squared_distances(_unit(side), base), neighbours - 1, axis=1)
            for side in (known, new)]  # fmt: skip
    return np.sqrt(near[0][:, neighbours - 1]), np.sqrt(near[1][:, neighbours - 1])


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
