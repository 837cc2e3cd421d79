"""What models of features say of samples that they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.folds import assign_folds
from tl_keras.tasks.base import Task

__all__ = ["FOLDS", "OutOfFold", "ask_linear", "assign_folds", "fit_out_of_fold", "standardize"]

FOLDS = 5
_DIMENSIONS = 256
_NEIGHBORS = 20
_STRENGTH = 5.0
_SMALL = 4_000_000


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What models that have not seen a sample say of it.

    Attributes:
        outputs: float64, one row a sample: probabilities (n, classes) for "classes", of each tag
            (n, tags) for "tags", numbers (n, outputs) for "values".
        folds: int64 (n,), which samples were left out together.
    """

    outputs: np.ndarray
    folds: np.ndarray


def fit_out_of_fold(  # noqa: PLR0913
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    task: Task,
    outputs: int,
    *,
    groups: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> OutOfFold:
    """Return what models of the features say of samples that they were not fitted on.

    For classes and tags the mean of a logistic regression on all views and of a vote of the 20
    nearest neighbors, on up to 256 principal components of standardized features; for values ridge
    regression. The mixture and its constants were chosen on rsscn7 and CIFAR-10 with flipped
    labels (`benchmarks/label_noise.py`).

    Args:
        views: features (n, d) of the samples, plain and maybe mirrored, one array a view.
        labels: as the task has them.
        task: "classes", "tags" or "values".
        outputs: classes, tags or numbers that a model gives.
        groups: int (n,), samples of one number (copies) are left out together.
        ignored: bool (n,), samples that are judged and never learned from.
        folds: at most how many; fewer where there are fewer samples or groups.
        seed: decides the folds.

    Raises:
        DataError: features hold values that are no numbers, there are fewer than 4 samples or
            fewer than two groups, or the task is another.
    """
    points = standardize(views)
    labels = np.asarray(labels)
    if len(points[0]) != len(labels) or len(labels) < 4:
        raise DataError(
            f"got {len(points[0])} rows of features and {len(labels)} labels; expected as many "
            "of both, 4 at least"
        )
    strata = task.strata(labels)
    strata = strata - strata.min()
    parts = assign_folds(strata, np.arange(len(labels)) if groups is None else groups, folds, seed)
    learned = np.ones(len(labels), bool) if ignored is None else ~ignored
    found = np.zeros((len(labels), outputs))
    for part in np.unique(parts):
        out = parts == part
        rest = learned & ~out if (learned & ~out).any() else ~out
        kept, asked = [one[rest] for one in points], [one[out] for one in points]
        found[out] = _predict(kept, labels[rest], asked, task, outputs)
    return OutOfFold(found, parts)


def standardize(views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return views in the first principal components of them all, of mean length 1.

    Args:
        views: features (n, d), one array a view.

    Returns:
        float64 (n, up to 256), one array a view.

    Raises:
        DataError: they hold values that are no numbers, or have another shape.
    """
    from sklearn.decomposition import PCA

    arrays = [np.asarray(one, np.float32) for one in views]
    if any(one.ndim != 2 or not np.isfinite(one).all() for one in arrays):
        raise DataError("features must be finite numbers (n, d); check the model's weights")
    both = np.concatenate(arrays)
    spread = both.std(0)
    # What is nearly constant, by itself or beside the others, is rounding: not to be blown up.
    whole = float(np.sqrt(np.square(both, dtype=np.float64).mean()))
    bound = 1e-4 * np.sqrt(np.square(both).mean(0)) + 1e-6 * whole + np.finfo(np.float32).tiny
    both = (both - both.mean(0)) / np.maximum(spread, bound)
    count = min(_DIMENSIONS, len(arrays[0]), both.shape[1])
    solver = "randomized" if max(both.shape) > 4 * count else "full"
    with _few_threads(both.size):
        both = PCA(count, svd_solver=solver, random_state=0).fit_transform(both)
    both = both / max(float(np.sqrt(np.square(both).sum(1).mean())), 1e-12)
    return np.split(both.astype(np.float64), len(arrays))


def _predict(
    views: list[np.ndarray], labels: np.ndarray, asked: list[np.ndarray], task: Task, outputs: int
) -> np.ndarray:
    if task.activation not in _PREDICT:
        raise DataError(f"labels of task '{task.name}' cannot be checked")
    return _PREDICT[task.activation](views, labels, asked, outputs)


def _predict_tags(
    views: list[np.ndarray], labels: np.ndarray, asked: list[np.ndarray], outputs: int
) -> np.ndarray:
    columns = [_predict_classes(views, one, asked, 2)[:, 1] for one in labels.T.astype(int)]
    return np.stack(columns, axis=1)


def _predict_values(
    views: list[np.ndarray], labels: np.ndarray, asked: list[np.ndarray], outputs: int
) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    scale = np.maximum(labels.std(0), 1e-12)
    model = RidgeCV(np.logspace(-3, 3, 13)).fit(views[0], (labels - labels.mean(0)) / scale)
    return model.predict(asked[0]).reshape(-1, outputs) * scale + labels.mean(0)


def _predict_classes(
    views: list[np.ndarray], labels: np.ndarray, asked: list[np.ndarray], classes: int
) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier

    linear = ask_linear(views, labels, asked, classes, _STRENGTH)
    count = min(_NEIGHBORS, len(labels))
    near = KNeighborsClassifier(count, weights=_closeness, algorithm="brute")
    found = np.zeros_like(linear)
    with _few_threads(views[0].size):
        near.fit(_directions(views), labels)
        found[:, near.classes_] = near.predict_proba(_directions(asked))
    return (linear + found) / 2


def _directions(views: list[np.ndarray]) -> np.ndarray:
    mean = np.mean(views, axis=0)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


def _closeness(distances: np.ndarray) -> np.ndarray:
    """Weights of neighbors: exp(8 cos), of which only ratios matter."""
    return np.exp(4.0 * (distances.min(axis=1, keepdims=True) ** 2 - distances**2))


def ask_linear(
    views: list[np.ndarray],
    labels: np.ndarray,
    asked: list[np.ndarray],
    classes: int,
    strength: float,
) -> np.ndarray:
    """Return the mean probabilities that a logistic regression on all views gives.

    Args:
        views: standardized features (n, d) to learn from, one array a view.
        labels: class indices (n,).
        asked: those of other samples (m, d).
        classes: how many; those without a sample get probability 0.
        strength: inverse of the L2 penalty.

    Returns:
        float64 (m, classes).
    """
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(asked[0]), classes))
    known = np.unique(labels)
    if len(known) == 1:
        found[:, known] = 1.0
        return found
    model = LogisticRegression(C=strength / len(views), max_iter=200, tol=1e-3)
    with _few_threads(views[0].size):
        model.fit(np.concatenate(views), np.tile(labels, len(views)))
        found[:, known] = np.mean([model.predict_proba(one) for one in asked], axis=0)
    return found


def _few_threads(numbers: int) -> AbstractContextManager[Any]:
    """One thread for small matrices: more would wait for each other longer than they compute."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if numbers < _SMALL else None)


_PREDICT: dict[str, Callable[..., np.ndarray]] = {
    "softmax": _predict_classes, "sigmoid": _predict_tags, "linear": _predict_values,
}  # fmt: skip
"""What predicts for a task whose head has this activation."""
