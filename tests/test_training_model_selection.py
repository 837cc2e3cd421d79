"""A later stage replaces an earlier one only when it is better by more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from tl_keras import tasks
from tl_keras.training.model_selection import average, clearly_better, lower


def test_losses_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss, mean_squared_error

    generator = np.random.default_rng(0)
    outputs = generator.dirichlet(np.ones(4), 50)
    labels = generator.integers(0, 4, 50)
    losses = tasks.get("classes").sample_losses(outputs, np.eye(4)[labels])
    assert losses.mean() == pytest.approx(log_loss(labels, outputs, labels=range(4)), rel=1e-5)
    tags = (generator.random((50, 4)) < 0.5).astype(float)
    expected = np.mean([log_loss(tags[:, k], outputs[:, k]) for k in range(4)])
    losses = tasks.get("tags").sample_losses(outputs, tags)
    assert losses.mean() == pytest.approx(expected, rel=1e-5)
    squared = tasks.get("values").sample_losses(outputs, tags).mean()
    assert squared == pytest.approx(mean_squared_error(tags, outputs))


def test_a_small_gain_on_few_pictures_is_not_enough() -> None:
    generator = np.random.default_rng(1)
    old = generator.exponential(0.3, 46)
    noise = generator.normal(0, 0.3, 46)
    assert not clearly_better(old - 0.005 + noise - noise.mean(), old)
    assert clearly_better(old - 0.1 + noise - noise.mean(), old)


def test_a_worse_stage_is_never_kept() -> None:
    old = np.full(20, 0.5)
    assert not clearly_better(old + 0.01, old)
    assert not clearly_better(np.full(20, np.nan), old)


def test_without_validation_the_last_stage_is_kept() -> None:
    assert clearly_better(np.zeros(0), np.zeros(0))


def test_lower_by_chance_is_lower_and_nothing_is_not() -> None:
    assert lower(np.full(3, 0.4), np.full(3, 0.5))
    assert not lower(np.full(3, np.nan), np.full(3, 0.5))
    assert not lower(np.zeros(0), np.zeros(0))


def test_an_average_lies_half_way_and_leaves_counters_alone() -> None:
    old, new = [np.zeros(2, np.float32), np.array([1])], [np.ones(2, np.float32), np.array([4])]
    halves = average(old, new)
    assert halves[0].tolist() == [0.5, 0.5] and halves[0].dtype == np.float32
    assert halves[1].tolist() == [4]
