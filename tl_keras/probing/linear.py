"""Linear classifiers on fixed features: ridge and shrinkage LDA in closed form, logistic.

Each gives a `LinearHead`: weights and bias of one dense layer with softmax, whatever was done
to the features on the way (centring, scaling, temperature) fold_scaling in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.probing.linear_head import (
    PENALTIES,
    Facts,
    LinearHead,
    calibrate,
    check_features,
    fold_scaling,
    scale_of,
)
from tl_keras.probing.streaming import StreamingLDA, StreamingRidge
from tl_keras.utils.stats import log_loss, right, temperature

__all__ = [
    "LinearHead", "StreamingLDA", "StreamingRidge", "calibrate", "lda", "logistic", "ridge",
]  # fmt: skip

STRENGTHS = tuple(float(10.0**power) for power in range(-5, 3))


def ridge(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
) -> LinearHead:
    """Ridge regression on one-hot targets, in closed form.

    Features are standardised. The penalty with the least leave-one-out log loss is taken:
    leaving out sample i needs no refit, since its residual grows by 1 / (1 - h_ii) (Allen
    1974), h being the hat matrix. The same scores, never seen by their own fit, give the
    temperature.

    Args:
        features: (n, d), finite.
        labels: Class indices 0..classes-1, (n,).
        classes: How many.
        penalties: To choose from, as factors on the covariance's mean eigenvalue.

    Raises:
        DataError: Features or labels are not as above.
    """
    features, labels = check_features(features, labels, classes)
    mean, scale = features.mean(0, dtype=np.float64), scale_of(features)
    x = (features - mean) / scale
    y = np.eye(classes)[labels]
    target = y.mean(0)
    vectors, values = _left_singular(x)
    along = vectors.T @ (y - target)
    squares: np.ndarray = vectors**2
    found = []
    for penalty in penalties:
        shrunk = values / (values + penalty * values.mean())
        fitted = target + vectors @ (shrunk[:, None] * along)
        leverage = np.minimum(1 / len(x) + squares @ shrunk, 1 - 1e-9)
        left_out = y - (y - fitted) / (1 - leverage)[:, None]
        heat = temperature(left_out, labels)
        found.append((log_loss(left_out / heat, labels), penalty, heat, right(left_out, labels)))
    loss, penalty, heat, accuracy = min(found)
    solved = x.T @ (vectors @ (along / (values + penalty * values.mean())[:, None]))
    facts: Facts = {"penalty": penalty, "loo_log_loss": loss, "loo_accuracy": accuracy}
    return fold_scaling(solved, target, mean, scale, facts).scale(1.0 / heat)


def _left_singular(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (n, r) and squared singular values (r,), by the smaller Gram matrix."""
    from scipy import linalg

    rows, columns = x.shape
    if rows <= columns:
        values, vectors = linalg.eigh(x @ x.T, check_finite=False)
        kept = values > values[-1] * 1e-10
        return vectors[:, kept], values[kept]
    values, vectors = linalg.eigh(x.T @ x, check_finite=False)
    kept = values > values[-1] * 1e-10
    return x @ (vectors[:, kept] / np.sqrt(values[kept])), values[kept]


def lda(features: np.ndarray, labels: np.ndarray, classes: int) -> LinearHead:
    """Linear discriminant analysis with a shrunk covariance, in closed form.

    All classes share one covariance, that of standardised features around their class mean,
    drawn towards a multiple of the identity as far as Ledoit and Wolf (2004) find best.

    Args:
        features: (n, d), finite.
        labels: Class indices 0..classes-1, (n,); each class at least once.
        classes: How many.

    Returns:
        The head. Its probabilities follow the Gaussian model and are often too sure of
        themselves: see :func:`calibrate`.

    Raises:
        DataError: Features or labels are not as above.
    """
    features, labels = check_features(features, labels, classes, every=True)
    mean, scale = features.mean(0, dtype=np.float64), scale_of(features)
    x = (features - mean) / scale
    counts = np.bincount(labels, minlength=classes)
    means = (np.eye(classes)[labels].T @ x) / counts[:, None]
    within = x - means[labels]
    share, level = ledoit_wolf(within)
    weights = _solve_shrunk(within, share, level, means.T)
    bias = np.log(counts / len(x)) - 0.5 * np.einsum("cd,dc->c", means, weights)
    return fold_scaling(weights, bias, mean, scale, {"shrinkage": share})


def _solve_shrunk(x: np.ndarray, share: float, level: float, wanted: np.ndarray) -> np.ndarray:
    """Solve ((1 - share) x'x / n + share level I) w = wanted (d, c), by the smaller matrix."""
    from scipy import linalg

    rows, columns = x.shape
    ground = max(share, 1e-6) * max(level, 1e-12)
    slope = (1.0 - share) / rows
    if rows < columns:
        # Woodbury's identity: the Gram matrix of the samples is smaller.
        inner = ground / max(slope, 1e-12) * np.eye(rows) + x @ x.T
        return (wanted - x.T @ linalg.solve(inner, x @ wanted, assume_a="pos")) / ground
    matrix = slope * (x.T @ x) + ground * np.eye(columns)
    return linalg.solve(matrix, wanted, assume_a="pos")


def ledoit_wolf(x: np.ndarray) -> tuple[float, float]:
    """Return how far to shrink the covariance of centred samples (n, d), and towards what.

    The estimator of Ledoit and Wolf (2004), 'A well-conditioned estimator for
    large-dimensional covariance matrices': (1 - share) S + share level I, level = tr S / d.

    Returns:
        (share in 0..1, level).
    """
    rows, columns = x.shape
    gram = x @ x.T if rows < columns else x.T @ x
    squares = float((gram**2).sum()) / rows**2  # ||S||²
    lengths = np.einsum("nd,nd->n", x, x)
    level = float(lengths.sum()) / rows / columns
    distance = squares - columns * level**2
    noise = (float((lengths**2).sum()) / rows - squares) / rows
    share = 1.0 if distance <= 0 else min(max(noise, 0.0) / distance, 1.0)
    return float(share), level


def logistic(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearHead:
    """Multinomial logistic regression by scikit-learn, C chosen by cross-validation.

    Features are standardised. C with the least mean log loss over stratified folds (5, or as
    many as the smallest class has samples) is taken; where a class has one sample, C is 0.01.

    Args:
        features: (n, d), finite.
        labels: Class indices 0..classes-1, (n,); each class at least once.
        classes: How many, 2 or more.
        strengths: Values of C (the inverse penalty) to choose from.
        seed: Shuffles the folds.

    Raises:
        DataError: Features or labels are not as above.
    """
    from sklearn.linear_model import LogisticRegression

    features, labels = check_features(features, labels, classes, every=True)
    mean, scale = features.mean(0, dtype=np.float64), scale_of(features)
    x = ((features - mean) / scale).astype(np.float32)
    strength = _best_strength(x, labels, strengths, seed)
    model = LogisticRegression(C=strength, max_iter=1000).fit(x, labels)
    weights, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if classes == 2:
        # scikit-learn keeps one column, for the second class against the first.
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.r_[-bias / 2, bias / 2]
    return fold_scaling(weights, bias, mean, scale, {"C": strength})


def _best_strength(x: np.ndarray, labels: np.ndarray, given: Sequence[float], seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    folds = min(5, int(np.bincount(labels).min()))
    if folds < 2 or len(given) == 1:
        return 0.01 if folds < 2 else given[0]
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    losses = np.zeros(len(given))
    for train, held in split.split(x, labels):
        model = LogisticRegression(warm_start=True, max_iter=1000)
        for number, strength in enumerate(given):
            model.set_params(C=strength).fit(x[train], labels[train])
            chances = np.log(np.maximum(model.predict_proba(x[held]), 1e-12))
            losses[number] -= chances[np.arange(len(held)), labels[held]].mean()
    return float(given[int(losses.argmin())])
