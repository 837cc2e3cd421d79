"""The classifiers of a probe, each of which becomes stock Keras layers on the features."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.probing import linear
from tl_keras.probing.linear_head import Facts, LinearHead, bounded_scale, calibrate, check_features
from tl_keras.utils.stats import log_loss

__all__ = ["CLASSIFIERS", "Classifier", "LinearClassifier", "Neighbours", "Perceptron", "fit"]

_SMOOTHED = 0.01
_NEIGHBOURS = (1, 3, 5, 7, 11, 15, 21)
_PENALTIES = (1e-4, 1e-2, 1.0)


class Classifier(ABC):
    """Something that names features, and knows itself as layers."""

    facts: Facts

    @abstractmethod
    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return probabilities (n, classes), float32, of features (n, d)."""

    @abstractmethod
    def attach(self, features: Any, free: Callable[[str], str] = str) -> Any:
        """Return the probabilities as a Keras tensor (None, classes).

        Args:
            features: A Keras tensor (None, d).
            free: Gives a layer's name, or another where it is taken.
        """


@dataclass(frozen=True, eq=False)
class LinearClassifier(Classifier):
    """A dense layer with softmax.

    Attributes:
        head: Its weights.
    """

    head: LinearHead

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        """How the head was found."""
        return self.head.facts

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See :class:`Classifier`."""
        return self.head.predict_proba(features)

    def attach(self, features: Any, free: Callable[[str], str] = str) -> Any:
        """See :class:`Classifier`."""
        return _logits(features, self.head, free)


@dataclass(frozen=True, eq=False)
class Perceptron(Classifier):
    """One hidden layer with ReLU, then a dense layer with softmax.

    Attributes:
        hidden: float32 (d, units) weights of the hidden layer.
        hidden_bias: float32 (units,).
        head: The layer on top.
        facts: How it was found.
    """

    hidden: np.ndarray
    hidden_bias: np.ndarray
    head: LinearHead
    facts: Facts

    def units(self, features: np.ndarray) -> np.ndarray:
        """Return the hidden layer's values, float32 (n, units)."""
        plain = np.asarray(features, np.float32) @ self.hidden + self.hidden_bias
        return np.maximum(plain, np.float32(0))

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See :class:`Classifier`."""
        return self.head.predict_proba(self.units(features))

    def attach(self, features: Any, free: Callable[[str], str] = str) -> Any:
        """See :class:`Classifier`."""
        from keras import layers

        layer = layers.Dense(self.hidden.shape[1], activation="relu", name=free("head_dense_1"))
        x = layer(features)
        layer.set_weights([self.hidden, self.hidden_bias])
        return _logits(x, self.head, free)


@dataclass(frozen=True, eq=False)
class Neighbours(Classifier):
    """The share of each class among the k training samples with the nearest direction.

    Attributes:
        known: float32 (n, d), training samples, each of length 1.
        votes: float32 (n, classes), what each sample votes: nearly 1 for its class.
        count: k.
        facts: How k was found.
    """

    known: np.ndarray
    votes: np.ndarray
    count: int
    facts: Facts

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """See :class:`Classifier`."""
        near = _unit(features) @ self.known.T
        chosen = np.argpartition(-near, self.count - 1, axis=1)[:, : self.count]
        return self.votes[chosen].mean(1)

    def attach(self, features: Any, free: Callable[[str], str] = str) -> Any:
        """See :class:`Classifier`."""
        import keras
        from keras import layers

        x = layers.UnitNormalization(name=free("head_direction"))(features)
        near = layers.Dense(len(self.known), use_bias=False, name=free("head_near"))
        x = near(x)
        near.set_weights([self.known.T])
        _, chosen = keras.ops.top_k(x, self.count, sorted=False)
        votes = layers.Embedding(*self.votes.shape, name=free("head_votes"))
        x = votes(chosen)
        votes.set_weights([self.votes])
        return layers.GlobalAveragePooling1D(name=free("head_predictions"), dtype="float32")(x)


def _logits(features: Any, head: LinearHead, free: Callable[[str], str]) -> Any:
    from keras import layers

    dense = layers.Dense(head.weights.shape[1], name=free("head_logits"))
    x = dense(features)
    dense.set_weights([head.weights, head.bias])
    return layers.Activation("softmax", dtype="float32", name=free("head_predictions"))(x)


def _unit(features: np.ndarray) -> np.ndarray:
    wide = np.asarray(features, np.float32)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True, eq=False)
class _Given:
    """What a classifier learns from, and what it may be tuned on."""

    features: np.ndarray
    labels: np.ndarray
    classes: int
    held: np.ndarray
    held_labels: np.ndarray
    seed: int


def _linear(find: Callable[[_Given], LinearHead]) -> Callable[[_Given], Classifier]:
    return lambda given: LinearClassifier(calibrate(find(given), given.held, given.held_labels))


def _neighbours(given: _Given) -> Classifier:
    """Take k with the least leave-one-out log loss."""
    features, labels = check_features(given.features, given.labels, given.classes)
    known = _unit(features)
    votes = np.eye(given.classes, dtype=np.float32)[labels]
    votes = votes * (1 - _SMOOTHED) + _SMOOTHED / given.classes
    counts = [k for k in _NEIGHBOURS if k < len(known)] or [1]
    near = _nearest(known, max(counts))
    losses = {k: log_loss(np.log(votes[near[:, :k]].mean(1)), labels) for k in counts}
    best = min(losses, key=lambda k: losses[k])
    return Neighbours(known, votes.astype(np.float32), best, {"k": best})


def _nearest(known: np.ndarray, count: int) -> np.ndarray:
    """Indices (n, count) of each sample's nearest others, nearest first; in pieces."""
    found = []
    for start in range(0, len(known), 1024):
        near = known[start : start + 1024] @ known.T
        rows = np.arange(len(near))
        near[rows, start + rows] = -np.inf
        found.append(np.argsort(-near, axis=1)[:, :count])
    return np.concatenate(found)


def _perceptron(given: _Given) -> Classifier:
    """Train 128 hidden units; the weight decay with the best loss on held-out samples."""
    from sklearn.neural_network import MLPClassifier

    features, labels = check_features(given.features, given.labels, given.classes, every=True)
    mean, variance = features.mean(0, dtype=np.float64), features.var(0, dtype=np.float64)
    scale = bounded_scale(mean, variance)
    x = ((features - mean) / scale).astype(np.float32)
    tried = []
    for penalty in _PENALTIES if len(given.held_labels) else _PENALTIES[1:2]:
        model = MLPClassifier((128,), alpha=penalty, max_iter=60, random_state=given.seed,
                              n_iter_no_change=5, tol=1e-3)  # fmt: skip
        with warnings.catch_warnings():
            # Sixty epochs may not be all that could be had; the held-out loss decides.
            warnings.simplefilter("ignore")
            model.fit(x, labels)
        made = _perceptron_of(model, mean, scale, penalty)
        tried.append((_held_loss(made, given), penalty, made))
    return min(tried, key=lambda one: one[:2])[2]


def _perceptron_of(model: Any, mean: np.ndarray, scale: np.ndarray, penalty: float) -> Perceptron:
    first, last = (np.asarray(w, np.float64) for w in model.coefs_)
    bias, top = (np.asarray(b, np.float64) for b in model.intercepts_)
    if last.shape[1] == 1:
        last, top = np.hstack([-last / 2, last / 2]), np.r_[-top / 2, top / 2]
    plain = first / scale[:, None]
    facts: Facts = {"units": first.shape[1], "penalty": penalty}
    head = LinearHead(last.astype(np.float32), top.astype(np.float32))
    shift = (bias - mean @ plain).astype(np.float32)
    return Perceptron(plain.astype(np.float32), shift, head, facts)


def _held_loss(made: Perceptron, given: _Given) -> float:
    if not len(given.held_labels):
        return 0.0
    return log_loss(made.head.logits(made.units(given.held)), given.held_labels)


def _scaled_perceptron(given: _Given) -> Classifier:
    made = _perceptron(given)
    if not isinstance(made, Perceptron) or not len(given.held_labels):
        return made
    head = calibrate(made.head, made.units(given.held), given.held_labels)
    return Perceptron(made.hidden, made.hidden_bias, head, made.facts)


CLASSIFIERS: dict[str, Callable[[_Given], Classifier]] = {
    "logistic": _linear(lambda g: linear.logistic(g.features, g.labels, g.classes, seed=g.seed)),
    "ridge": _linear(lambda g: linear.ridge(g.features, g.labels, g.classes)),
    "lda": _linear(lambda g: linear.lda(g.features, g.labels, g.classes)),
    "knn": _neighbours,
    "mlp": _scaled_perceptron,
}


def fit(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    classes: int,
    seed: int = 0,
) -> Classifier:
    """Find a classifier on features.

    Args:
        name: A key of `CLASSIFIERS`: "logistic", "ridge", "lda", "knn" (cosine distance) or
            "mlp" (one hidden layer).
        train: Features (n, d) and class indices (n,) to learn from.
        held: The same of other samples, for the confidence and the MLP's weight decay; may
            be empty.
        classes: How many, 2 or more.
        seed: Shuffles and starts.

    Raises:
        DataError: Features or labels do not fit.
    """
    return CLASSIFIERS[name](_Given(*train, classes, *held, seed))
