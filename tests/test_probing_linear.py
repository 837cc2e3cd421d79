from __future__ import annotations

import numpy as np
import pytest

from tl_keras.errors import DataError
from tl_keras.probing.linear import (
    LinearHead,
    StreamingLDA,
    StreamingRidge,
    calibrate,
    lda,
    logistic,
    ridge,
)
from tl_keras.utils.stats import log_loss, smoothed_loss


def blobs(count=90, dimensions=12, classes=3, seed=0, apart=1.0):
    """Classes around points of their own; features of very different scales."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(0, apart, (classes, dimensions))
    features = centres[labels] + generator.normal(size=(count, dimensions))
    return (features * np.logspace(-2, 2, dimensions) + 3).astype(np.float32), labels


@pytest.mark.parametrize(("count", "dimensions"), [(90, 12), (30, 80)], ids=["tall", "wide"])
def test_leave_one_out_equals_leaving_each_sample_out(count, dimensions):
    features, labels = blobs(count, dimensions)
    x = (features - features.mean(0, dtype=float)) / features.std(0, dtype=float)
    head = ridge(features, labels, 3, penalties=(0.1,))
    values = np.linalg.eigvalsh(x.T @ x)[::-1]
    penalty = 0.1 * values[values > values[0] * 1e-10].mean()
    scores = np.zeros((count, 3))
    for i in range(count):
        kept = np.arange(count) != i
        rows = np.hstack([x[kept], np.ones((count - 1, 1))])
        punished = penalty * np.diag(np.r_[np.ones(dimensions), 0])
        solved = np.linalg.solve(rows.T @ rows + punished, rows.T @ np.eye(3)[labels[kept]])
        scores[i] = np.r_[x[i], 1] @ solved
    heats = np.exp(np.linspace(-7, 3, 2000))
    heat = min(heats, key=lambda heat: smoothed_loss(scores / heat, labels))
    best = log_loss(scores / heat, labels)
    assert head.facts["loo_accuracy"] == pytest.approx((scores.argmax(1) == labels).mean())
    assert head.facts["loo_log_loss"] == pytest.approx(best, rel=1e-3)


def test_ridge_weights_are_those_of_scikit_learn():
    from sklearn.linear_model import Ridge

    features, labels = blobs(apart=0.3)
    head = ridge(features, labels, 3, penalties=(0.5,))
    scale = features.std(0, dtype=float)
    x = (features - features.mean(0, dtype=float)) / scale
    penalty = 0.5 * np.linalg.eigvalsh(x.T @ x).mean()
    theirs = Ridge(alpha=penalty).fit(x, np.eye(3)[labels])
    ours = head.weights * scale[:, None] / head.facts["factor"]
    np.testing.assert_allclose(ours, theirs.coef_.T, atol=1e-5)


@pytest.mark.parametrize(("count", "dimensions"), [(90, 12), (30, 80)], ids=["tall", "wide"])
def test_shrinkage_is_that_of_ledoit_and_wolf(count, dimensions):
    from sklearn.covariance import LedoitWolf

    features, labels = blobs(count, dimensions)
    head = lda(features, labels, 3)
    x = (features - features.mean(0, dtype=float)) / features.std(0, dtype=float)
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    theirs = LedoitWolf(assume_centered=True).fit(x - means[labels])
    assert head.facts["shrinkage"] == pytest.approx(theirs.shrinkage_, rel=1e-9)
    solved = np.linalg.solve(theirs.covariance_, means.T)
    logits = x @ solved - 0.5 * np.einsum("cd,dc->c", means, solved) + np.log(1 / 3)
    np.testing.assert_allclose(head.logits(features), logits, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_gives_the_probabilities_of_scikit_learn(classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = blobs(classes=classes, apart=0.4)
    head = logistic(features, labels, classes, strengths=(0.1,))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=1000))
    theirs = model.fit(features.astype(float), labels).predict_proba(features)
    np.testing.assert_allclose(head.predict_proba(features), theirs, atol=2e-3)


def test_the_strength_of_a_logistic_head_is_found_by_cross_validation():
    features, labels = blobs(60, 200, apart=0.15)
    chosen = logistic(features, labels, 3)
    weak = logistic(features, labels, 3, strengths=(100.0,))
    others, truth = blobs(300, 200, apart=0.15, seed=5)
    assert chosen.facts["C"] < 1
    assert log_loss(chosen.logits(others), truth) < log_loss(weak.logits(others), truth)


@pytest.mark.parametrize("method", [ridge, lda, logistic])
def test_every_head_separates_what_can_be_separated(method):
    features, labels = blobs(apart=2)
    others, truth = blobs(seed=7, apart=2)
    head = method(features, labels, 3)
    assert (head.predict(others) == truth).mean() > 0.95
    chances = head.predict_proba(others)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)
    assert (chances.argmax(1) == head.predict(others)).all()


def test_a_constant_feature_harms_no_head():
    features, labels = blobs()
    features[:, 0], features[:, 1] = 0.0, 1000.0
    for method in (ridge, lda, logistic):
        head = method(features, labels, 3)
        assert np.isfinite(head.weights).all()
        assert (head.predict(features) == labels).mean() > 0.9


def test_calibration_lowers_the_loss_and_changes_no_prediction():
    features, labels = blobs(60, 40, apart=0.4)
    held, truth = blobs(300, 40, apart=0.4, seed=3)
    head = lda(features, labels, 3)
    better = calibrate(head, held, truth)
    assert (better.predict(held) == head.predict(held)).all()
    assert log_loss(better.logits(held), truth) < log_loss(head.logits(held), truth)


def test_a_few_samples_named_rightly_are_no_reason_for_endless_confidence():
    features, labels = blobs(60, apart=3)
    held, truth = blobs(20, apart=3, seed=3)
    head = calibrate(lda(features, labels, 3), held, truth)
    assert (head.predict(held) == truth).all()
    assert head.predict_proba(held).max(1).mean() < 0.99


def test_a_stream_gives_what_all_samples_at_once_give():
    features, labels = blobs(120)
    order = np.argsort(labels)
    stream, whole = StreamingRidge(12, 1), StreamingRidge(12, 3)
    whole.update(features, labels)
    for part in np.array_split(order, 7):
        stream.update(features[part], labels[part])
    once = ridge(features, labels, 3, penalties=(0.01,))
    parts, all_of_it = stream.solve(0.01), whole.solve(0.01)
    assert stream.classes == 3
    np.testing.assert_allclose(parts.weights, all_of_it.weights, rtol=1e-4, atol=1e-6)
    unscaled = once.weights / once.facts["factor"]
    np.testing.assert_allclose(
        parts.weights / parts.facts["factor"], unscaled, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("kind", [StreamingRidge, StreamingLDA])
def test_a_stream_is_kept_and_loaded(kind):
    features, labels = blobs(apart=2)
    first = kind(12, 3)
    first.update(features[:50], labels[:50])
    second = kind(12)
    second.load(first.arrays())
    for one in (first, second):
        one.update(features[50:], labels[50:])
    np.testing.assert_array_equal(first.solve().weights, second.solve().weights)
    others, truth = blobs(seed=8, apart=2)
    assert (second.solve().predict(others) == truth).mean() > 0.95


def test_a_stream_chooses_a_penalty_near_the_best():
    features, labels = blobs(60, 100, apart=0.3)
    others, truth = blobs(400, 100, apart=0.3, seed=4)
    stream = StreamingRidge(100, 3)
    stream.update(features, labels)
    accuracies = [
        (stream.solve(10.0**power).predict(others) == truth).mean() for power in range(-4, 3)
    ]
    assert (stream.solve().predict(others) == truth).mean() > max(accuracies) - 0.03


WRONG = {
    "shape": (np.zeros((4, 2, 2)), np.zeros(4, int), "expected"),
    "length": (np.zeros((4, 2)), np.zeros(3, int), "expected"),
    "label": (np.zeros((4, 2)), np.full(4, 3), "from 0 to 2"),
    "number": (np.full((4, 2), np.nan), np.arange(4) % 3, "no numbers"),
    "class": (np.zeros((4, 2)), np.zeros(4, int), "no sample of class 1"),
}


@pytest.mark.parametrize(("features", "labels", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_together_is_refused(features, labels, message):
    with pytest.raises(DataError, match=message):
        lda(features, labels, 3)


def test_a_stream_of_other_features_is_refused():
    stream = StreamingRidge(3)
    with pytest.raises(DataError, match="4 features a sample, expected 3"):
        stream.update(np.zeros((2, 4)), np.zeros(2, int))
    with pytest.raises(DataError, match="2 or more"):
        stream.solve()


def test_a_head_is_float32():
    head = ridge(*blobs(), 3)
    assert isinstance(head, LinearHead)
    assert head.weights.dtype == head.bias.dtype == np.float32
    assert head.weights.shape == (12, 3)
