"""How well fixed features suit labels: scores that need no training.

Higher is better for every score. They rank bases for one data set; between data sets they
say nothing.
"""

from __future__ import annotations

import numpy as np

from tl_keras.errors import DataError

__all__ = ["check_source", "h_score", "knn_accuracy", "leep", "logme"]

_STEPS = 100
_TOLERANCE = 1e-5
_FLOOR = 1e-10


def logme(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Log of the maximum evidence (You et al. 2021, arXiv 2102.11005).

    Each class's 0/1 target is seen as a linear function of the features with a Gaussian prior
    (precision a) and Gaussian noise (precision b). The evidence of the targets, the weights
    integrated out, is maximised over a and b by MacKay's fixed-point equations.

    Args:
        features: (n, d), finite, n at least 2.
        labels: Class indices, (n,).
        classes: How many.

    Returns:
        The maximum log evidence a sample, averaged over the classes.

    Raises:
        DataError: Features and labels do not fit.
    """
    features, labels = _check_features(features, labels)
    vectors, values = _left_singular(features)
    targets = np.eye(classes)[labels]
    evidences = [
        _evidence(vectors.T @ target, float(target @ target), values, features.shape)
        for target in targets.T
    ]
    return float(np.mean(evidences)) / len(features)


def _evidence(
    along: np.ndarray, length: float, values: np.ndarray, shape: tuple[int, ...]
) -> float:
    """Maximum log evidence of one target: its parts along singular vectors, squared length."""
    rows, columns = shape
    outside = max(length - float(along @ along), 0.0)
    prior, noise = 1.0, 1.0
    for _ in range(_STEPS):
        ratio = prior / noise
        used = float((values / (values + ratio)).sum())
        weight = float((values * (along / (values + ratio)) ** 2).sum())
        residual = float(((along * ratio / (values + ratio)) ** 2).sum()) + outside
        prior = float(np.clip(used / max(weight, _FLOOR), _FLOOR, 1 / _FLOOR))
        noise = max(rows - used, _FLOOR) / max(residual, _FLOOR)
        if abs(prior / noise - ratio) <= _TOLERANCE * ratio:
            break
    ratio = prior / noise
    weight = float((values * (along / (values + ratio)) ** 2).sum())
    residual = float(((along * ratio / (values + ratio)) ** 2).sum()) + outside
    spread = float(np.log(prior + noise * values).sum())
    spread += (columns - len(values)) * np.log(prior)
    energy = prior * weight + noise * residual
    constant = columns * np.log(prior) + rows * np.log(noise / (2 * np.pi))
    return 0.5 * float(constant - spread - energy)


def _left_singular(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (n, r) and squared singular values (r,)."""
    rows, columns = features.shape
    if rows <= columns:
        values, vectors = np.linalg.eigh(features @ features.T)
        kept = values > max(values[-1], 1e-300) * 1e-12
        return vectors[:, kept], values[kept]
    values, vectors = np.linalg.eigh(features.T @ features)
    kept = values > max(values[-1], 1e-300) * 1e-12
    return features @ (vectors[:, kept] / np.sqrt(values[kept])), values[kept]


def leep(source: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Log expected empirical prediction (Nguyen et al. 2020, arXiv 2002.12462).

    A dummy classifier: the source model guesses one of its own classes, and that class guesses
    a label with the frequency in which they occur together.

    Args:
        source: (n, source classes), the source model's probabilities, each row adding to 1.
        labels: Class indices, (n,).
        classes: How many.

    Returns:
        Mean log probability of the labels, in nats, 0 at most.

    Raises:
        DataError: Probabilities and labels do not fit.
    """
    source, labels = check_source(source, labels)
    joint = np.eye(classes)[labels].T @ source / len(source)
    given = joint / np.maximum(joint.sum(0), 1e-300)
    expected = (source @ given.T)[np.arange(len(labels)), labels]
    return float(np.log(np.maximum(expected, 1e-300)).mean())


def check_source(source: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a source model's probabilities as float64 (n, source classes), and labels int64 (n,).

    Raises:
        DataError: They are no probabilities, or do not fit together.
    """
    source, labels = _check_features(source, labels)
    if source.min() < 0 or not np.allclose(source.sum(1), 1, atol=1e-3):
        raise DataError("expected the source model's probabilities, which add to 1 for each row")
    return source, labels


def h_score(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """H-score with a shrunk covariance (Ibrahim et al. 2021, arXiv 2110.06893).

    tr(inverse covariance of the features x covariance of their class means): the share of
    the features' variation that the classes explain, after Bao et al. 2019. The covariance is
    drawn towards a multiple of the identity as far as Ledoit and Wolf (2004) find best, and the
    covariance of class means is shrunk alike.

    Args:
        features: (n, d), finite.
        labels: Class indices, (n,).
        classes: How many.

    Returns:
        0 to classes - 1.

    Raises:
        DataError: Features and labels do not fit.
    """
    features, labels = _check_features(features, labels)
    centred = features - features.mean(0)
    vectors, values = _left_singular(centred)
    rows, columns = centred.shape
    share, level = _shrinkage(centred, values)
    # Class means span no more than the samples: the covariance is inverted along them alone.
    groups = np.eye(classes)[labels]
    counts = np.maximum(groups.sum(0), 1.0)
    means = (groups.T @ vectors) * np.sqrt(values) / counts[:, None]
    between = (counts[:, None] * means**2).sum(0) / rows
    return float((1 - share) * (between / ((1 - share) * values / rows + share * level)).sum())


def _shrinkage(centred: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Ledoit and Wolf's share and level, from the squared singular values too."""
    rows, columns = centred.shape
    squares = float((values**2).sum()) / rows**2
    lengths = np.einsum("nd,nd->n", centred, centred)
    level = float(lengths.sum()) / rows / columns
    distance = squares - columns * level**2
    noise = (float((lengths**2).sum()) / rows - squares) / rows
    share = 1.0 if distance <= 0 else min(max(noise, 0.0) / distance, 1.0)
    return float(share), max(level, 1e-300)


def knn_accuracy(features: np.ndarray, labels: np.ndarray, neighbours: int = 5) -> float:
    """Leave-one-out accuracy of the k nearest neighbours by cosine; ties go to the nearest.

    Args:
        features: (n, d), finite.
        labels: Class indices, (n,).
        neighbours: k; fewer where there are fewer samples.

    Raises:
        DataError: Features and labels do not fit.
    """
    features, labels = _check_features(features, labels)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = (features / np.maximum(lengths, 1e-300)).astype(np.float32)
    count = min(neighbours, len(unit) - 1)
    # A nearer neighbour's vote weighs a little more, which breaks ties alone.
    weights = 1.0 - np.arange(count) / (1000.0 * max(count, 1))
    groups, right = np.eye(int(labels.max()) + 1), 0
    for start in range(0, len(unit), 1024):
        near = unit[start : start + 1024] @ unit.T
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        chosen = np.argsort(-near, axis=1)[:, :count]
        votes = np.einsum("nkc,k->nc", groups[labels[chosen]], weights)
        right += int((votes.argmax(1) == labels[start + rows]).sum())
    return right / len(unit)


def _check_features(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) < 2:
        raise DataError(
            f"features of shape {features.shape} and labels {labels.shape}: expected (n, d) and "
            "(n,), with at least two samples"
        )
    if not np.isfinite(features).all():
        raise DataError("features hold values that are no numbers; check the model's weights")
    return features, labels.astype(np.int64)
