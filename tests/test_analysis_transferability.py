from __future__ import annotations

import numpy as np
import pytest

from tl_keras.analysis.transferability import h_score, knn_accuracy, leep, logme
from tl_keras.errors import DataError


def blobs(count=60, dimensions=8, classes=3, apart=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(0, apart, (classes, dimensions))
    return centres[labels] + generator.normal(size=(count, dimensions)), labels


def evidence(features, target, prior, noise):
    """Log density of a target under N(0, I / noise + F F' / prior)."""
    count = len(target)
    covariance = np.eye(count) / noise + features @ features.T / prior
    solved = target @ np.linalg.solve(covariance, target)
    return -0.5 * (solved + np.linalg.slogdet(covariance)[1] + count * np.log(2 * np.pi))


@pytest.mark.parametrize(("count", "dimensions"), [(60, 8), (30, 70)], ids=["tall", "wide"])
def test_logme_is_the_maximum_evidence_found_by_brute_force(count, dimensions):
    from scipy.optimize import minimize

    features, labels = blobs(count, dimensions)
    best = []
    for target in np.eye(3)[labels].T:

        def cost(logs, target=target):
            return -evidence(features, target, *np.exp(np.clip(logs, -20, 20)))

        grid = [(a, b) for a in range(-2, 9, 2) for b in range(-2, 7, 2)]
        start = min(grid, key=cost)
        best.append(-minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-5}).fun)
    assert logme(features, labels, 3) == pytest.approx(np.mean(best) / count, abs=1e-4)


def test_leep_is_what_its_definition_counts():
    generator = np.random.default_rng(0)
    source, labels = generator.dirichlet(np.ones(4), 20), np.arange(20) % 3
    total = 0.0
    for i in range(20):
        chance = 0.0
        for z in range(4):
            both = sum(source[j, z] for j in range(20) if labels[j] == labels[i])
            chance += source[i, z] * both / sum(source[:, z])
        total += np.log(chance)
    assert leep(source, labels, 3) == pytest.approx(total / 20)


def test_leep_is_highest_where_source_classes_are_the_labels():
    labels = np.arange(30) % 3
    assert leep(np.eye(3)[labels], labels, 3) == pytest.approx(0)
    assert leep(np.full((30, 3), 1 / 3), labels, 3) == pytest.approx(-np.log(3))
    with pytest.raises(DataError, match="add to 1"):
        leep(np.full((30, 3), 0.5), labels, 3)


@pytest.mark.parametrize(("count", "dimensions"), [(60, 8), (30, 70)], ids=["tall", "wide"])
def test_h_score_is_the_trace_with_scikit_learns_shrunk_covariance(count, dimensions):
    from sklearn.covariance import LedoitWolf

    features, labels = blobs(count, dimensions)
    centred = features - features.mean(0)
    fitted = LedoitWolf(assume_centered=True).fit(centred)
    means = np.stack([centred[labels == c].mean(0) for c in range(3)])[labels]
    trace = np.trace(np.linalg.solve(fitted.covariance_, means.T @ means / count))
    expected = (1 - fitted.shrinkage_) * trace
    assert h_score(features, labels, 3) == pytest.approx(expected, rel=1e-6)


def test_neighbours_are_those_of_leaving_each_sample_out():
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = blobs(apart=0.6)
    model = KNeighborsClassifier(1, metric="cosine")
    expected = cross_val_score(model, features, labels, cv=LeaveOneOut()).mean()
    assert knn_accuracy(features, labels, 1) == pytest.approx(expected)
    assert knn_accuracy(*blobs(apart=4.0)) == 1.0


@pytest.mark.parametrize("score", [logme, h_score])
def test_a_score_is_higher_where_classes_are_further_apart(score):
    values = [score(*blobs(200, apart=apart), 3) for apart in (0.1, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


@pytest.mark.parametrize("score", [logme, h_score])
def test_a_score_survives_features_that_say_nothing(score):
    features, labels = blobs()
    features[:, :4] = 0.0
    assert np.isfinite(score(features, labels, 3))
    assert np.isfinite(score(np.zeros((10, 4)), np.arange(10) % 2, 2))


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(DataError, match="at least two"):
        logme(np.zeros((1, 3)), np.zeros(1, int), 2)
    with pytest.raises(DataError, match="no numbers"):
        h_score(np.full((4, 3), np.nan), np.arange(4) % 2, 2)
