from __future__ import annotations

import numpy as np
import pytest

from tl_keras.continual.replay import order, select_by_herding, within_budget
from tl_keras.errors import DataError


def features(count=30, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 6)) + 1.0


def slow_herding(x):
    """The definition, without any algebra."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    chosen = []
    for _ in range(len(x)):
        left = [i for i in range(len(x)) if i not in chosen]
        off = [np.linalg.norm(x.mean(0) - x[[*chosen, i]].mean(0)) for i in left]
        chosen.append(left[int(np.argmin(off))])
    return chosen


def test_herding_follows_its_definition():
    x = features()
    assert select_by_herding(x).tolist() == slow_herding(x)


def test_a_few_herded_samples_have_a_mean_nearer_to_all_than_chance():
    x = features(200)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    far = [
        np.linalg.norm(unit[np.random.default_rng(s).permutation(200)[:10]].mean(0) - unit.mean(0))
        for s in range(20)
    ]
    assert np.linalg.norm(unit[select_by_herding(x, 10)].mean(0) - unit.mean(0)) < np.mean(far) / 2


@pytest.mark.parametrize("way", ["herding", "balanced"])
def test_classes_take_turns_whatever_their_size(way):
    labels = np.array([0] * 25 + [1] * 5)
    ranked = order(way, labels, [str(i) for i in range(30)], features=features())
    assert sorted(ranked.tolist()) == list(range(30))
    assert np.bincount(labels[ranked[:10]]).tolist() == [5, 5]


def test_a_reservoir_is_a_uniform_sample_of_all_that_was_seen():
    digests = [f"picture {i}" for i in range(400)]
    labels = np.array([0] * 300 + [1] * 100)
    shares = [labels[order("reservoir", labels, digests, seed)[:80]].mean() for seed in range(40)]
    assert abs(np.mean(shares) - 0.25) < 0.03


def test_a_reservoir_of_a_reservoir_and_new_samples_is_that_of_all():
    digests = np.array([f"picture {i}" for i in range(100)])
    first = order("reservoir", np.zeros(60, int), list(digests[:60]))[:20]
    pool = np.r_[first, np.arange(60, 100)]
    again = pool[order("reservoir", np.zeros(60, int), list(digests[pool]))[:20]]
    at_once = order("reservoir", np.zeros(100, int), list(digests))[:20]
    assert set(again) == set(at_once)


def test_a_budget_is_never_exceeded_and_a_smaller_one_keeps_a_part():
    sizes = np.random.default_rng(0).integers(10, 90, 50)
    few = within_budget(range(50), lambda i: int(sizes[i]), 300)
    many = within_budget(range(50), lambda i: int(sizes[i]), 900)
    assert sizes[few].sum() <= 300 < sizes[[*few, len(few)]].sum()
    assert many[: len(few)] == few


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(DataError, match="herding, balanced, reservoir"):
        order("best", np.zeros(2, int), ["a", "b"])
    with pytest.raises(DataError, match="features"):
        order("herding", np.zeros(2, int), ["a", "b"])
