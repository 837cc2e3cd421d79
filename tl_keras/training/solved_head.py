"""Solves a head, one dense layer with L2 penalty, on cached features, its strength by folds.

The optimum of a convex problem is found, not approached: multinomial or binary logistic
regression (scikit-learn's L-BFGS) or ridge regression, by the activation of the head.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tl_keras.errors import DataError, TrainingError

__all__ = ["ACTIVATIONS", "SolvedHead", "apply_head", "solve_head"]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Inverse penalties (C) on centered features of mean length 1, the simplest first."""
_MOST_ROWS = 50_000
_SMALL = 4_000_000

Weights = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class SolvedHead:
    """A head at its optimum.

    Attributes:
        weights: Kernel float32 (d, outputs) and bias float32 (outputs,), from all samples.
        strength: The inverse penalty that was chosen.
        folded: For each fold the weights that were found without it.
        outputs: What these say of the samples that they have not seen, float32 (n, outputs);
            of no folds, zero rows.
        tried: Mean loss out of fold of every strength tried.
    """

    weights: Weights
    strength: float
    folded: list[Weights] = field(default_factory=list)
    outputs: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    tried: dict[float, float] = field(default_factory=dict)


def solve_head(
    views: Sequence[np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray,
    activation: str,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    losses: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> SolvedHead:
    """Find the head of least penalised loss; its strength has the least loss out of fold.

    Features are centered and scaled by one number, so that no feature is blown up. Strengths
    are tried from the simplest on until the loss has risen twice, each from where the last ended.

    Args:
        views: Features (n, d) of the samples, one array a view; the first is judged.
        targets: What the head should give, float32 (n, outputs).
        weights: Of the samples, float32 (n,), in the fit and in the mean loss.
        activation: One of `ACTIVATIONS`.
        folds: For each, rows to learn from and rows to judge by. Judged rows may be beyond the n
            samples of other views: then they are validation's, and the first view has them too.
        losses: Gives each sample's loss from outputs and targets.

    Raises:
        DataError: There is nothing to tell apart.
        TrainingError: The features hold values that are no numbers.
    """
    solver = ACTIVATIONS[activation]
    many = len(views[-1]) if len(views) > 1 else len(views[0])
    own = np.unique(np.concatenate([rows for rows, _ in folds])) if folds else np.arange(many)
    base = np.concatenate([np.asarray(one[own[own < len(one)]], np.float32) for one in views])
    if not np.isfinite(base).all():
        raise TrainingError("features hold values that are no numbers; check the model's weights")
    center, scale, turn = _frame(base)
    points = [_turned(one, center, scale, turn) for one in views]

    def fit(rows: np.ndarray, strength: float, start: Weights | None) -> Weights:
        if len(rows) > _MOST_ROWS:  # the optimum hardly moves, the memory does
            rows = rows[:: -(-len(rows) // _MOST_ROWS)]
        x = np.concatenate([one[rows] for one in points])
        y = np.concatenate([targets[rows]] * len(points))
        share = np.concatenate([weights[rows]] * len(points))
        return solver(x, y, share / share.mean(), strength / len(points), start)

    tried: dict[float, float] = {}
    best: tuple[float, float, list[Weights], np.ndarray] | None = None
    starts: list[Weights | None] = [None] * len(folds)
    judged = np.concatenate([held for _, held in folds]) if folds else np.zeros(0, np.int64)
    for strength in STRENGTHS if folds else ():
        found = [
            fit(rows, strength, start) for (rows, _), start in zip(folds, starts, strict=True)
        ]
        starts = list(found)
        given = np.zeros((len(targets), targets.shape[1]), np.float32)
        for (_, held), one in zip(folds, found, strict=True):
            given[held] = activate(points[0][held] @ one[0] + one[1], activation)
        loss = np.average(losses(given[judged], targets[judged]), weights=weights[judged])
        tried[strength] = float(loss)
        if best is None or loss < best[0]:
            best = (float(loss), strength, found, given)
        if len(tried) > 2 and list(tried.values())[-1] > list(tried.values())[-2] > best[0]:
            break
    strength = best[1] if best else STRENGTHS[len(STRENGTHS) // 2]
    final = fit(own, strength, None)
    folded, outputs = (best[2], best[3]) if best else ([], np.zeros((0, 0), np.float32))
    plain = [_plain(one, center, scale, turn) for one in folded]
    return SolvedHead(_plain(final, center, scale, turn), strength, plain, outputs, tried)


def apply_head(features: np.ndarray, weights: Weights, activation: str) -> np.ndarray:
    """Return what a head says, float32 (n, outputs), of features (n, d)."""
    return activate(np.asarray(features, np.float32) @ weights[0] + weights[1], activation)


def activate(logits: np.ndarray, activation: str) -> np.ndarray:
    """Return a head's outputs from what its dense layer gives, both float32 (n, outputs)."""
    from scipy.special import expit, softmax

    if activation == "softmax":
        return softmax(logits, axis=1).astype(np.float32)
    return (expit(logits) if activation == "sigmoid" else logits).astype(np.float32)


def _frame(x: np.ndarray) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Center, scale, and where there are fewer rows than features an exact rotation to fewer."""
    from scipy import linalg

    center = x.mean(0, dtype=np.float64).astype(np.float32)
    moved = x - center
    scale = float(np.sqrt(np.square(moved, dtype=np.float64).sum(1).mean())) or 1.0
    if len(x) >= x.shape[1]:
        return center, scale, None
    # An L2 penalty is blind to rotations, and the solution lies in the samples' span.
    values, vectors = linalg.eigh(moved @ moved.T, check_finite=False)
    kept = values > max(values[-1], 1e-30) * 1e-7
    turn = (moved.T @ vectors[:, kept]) / np.sqrt(values[kept])
    return center, scale, turn.astype(np.float32)


def _turned(x: Any, center: np.ndarray, scale: float, turn: np.ndarray | None) -> np.ndarray:
    moved = (np.asarray(x, np.float32) - center) / np.float32(scale)
    return moved if turn is None else moved @ turn


def _plain(found: Weights, center: np.ndarray, scale: float, turn: np.ndarray | None) -> Weights:
    kernel, bias = found
    kernel = (kernel if turn is None else turn @ kernel) / scale
    return kernel.astype(np.float32), (bias - center @ kernel).astype(np.float32)


def _solve_classes(
    x: np.ndarray, y: np.ndarray, share: np.ndarray, strength: float, start: Weights | None
) -> Weights:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    labels, outputs = y.argmax(1), y.shape[1]
    known = np.unique(labels)
    if len(known) < 2:
        raise DataError(
            "all images of a fold have one label, so that nothing can be learned; add images of "
            "other classes, at least two of each"
        )
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-4, warm_start=True)
    if start is not None:
        two = slice(1, 2) if len(known) == 2 else slice(None)
        times = 2.0 if len(known) == 2 else 1.0
        model.coef_ = (times * start[0].T[known][two]).astype(x.dtype)
        model.intercept_ = (times * start[1][known][two]).astype(x.dtype)
        model.classes_ = known
    # More threads would wait for each other longer than they compute.
    with warnings.catch_warnings(), threadpool_limits(1 if x.size < _SMALL else None):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, labels, sample_weight=share)
    kernel, bias = model.coef_.T, model.intercept_
    if len(known) == 2:
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.r_[-bias, bias] / 2
    whole = np.zeros((x.shape[1], outputs)), np.full(outputs, bias.min() - 10.0)
    whole[0][:, known], whole[1][known] = kernel, bias
    return whole


def _solve_tags(
    x: np.ndarray, y: np.ndarray, share: np.ndarray, strength: float, start: Weights | None
) -> Weights:
    kernel, bias = np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])
    for tag, column in enumerate(y.T):
        positive = float(np.average(column, weights=share))
        if not 0 < positive < 1:  # never or always in this fold: its share, as Laplace would say
            bias[tag] = np.log((column.sum() + 1) / (len(column) - column.sum() + 1))
            continue
        both = np.stack([1 - column, column], 1)
        begun = None
        if start is not None and start[0][:, tag].any():
            begun = (
                np.stack([-start[0][:, tag], start[0][:, tag]], 1) / 2,
                np.r_[-start[1][tag], start[1][tag]] / 2,
            )
        one = _solve_classes(x, both, share, strength, begun)
        kernel[:, tag], bias[tag] = one[0][:, 1] - one[0][:, 0], one[1][1] - one[1][0]
    return kernel, bias


def _solve_values(
    x: np.ndarray, y: np.ndarray, share: np.ndarray, strength: float, start: Weights | None
) -> Weights:
    from scipy import linalg

    mean_x = np.average(x, axis=0, weights=share)
    mean_y = np.average(y.astype(np.float64), axis=0, weights=share)
    moved = (x - mean_x) * np.sqrt(share)[:, None]
    aimed = (y - mean_y) * np.sqrt(share)[:, None]
    gram = moved.T @ moved / len(x) + np.eye(x.shape[1]) / (strength * len(x))
    kernel = linalg.solve(gram, moved.T @ aimed / len(x), assume_a="pos")
    return kernel, mean_y - mean_x @ kernel


ACTIVATIONS: dict[str, Callable[..., Weights]] = {
    "softmax": _solve_classes,
    "sigmoid": _solve_tags,
    "linear": _solve_values,
}
"""How a head with this activation is solved."""
