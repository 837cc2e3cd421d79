from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tl_keras.analysis.drift import FeatureSet, find_drift
from tl_keras.analysis.drift_tests import (
    FEWEST,
    class_shifts,
    discrepancy,
    feature_shifts,
    holm,
    novelty,
    projection,
    proxy_a_distance,
)
from tl_keras.errors import DataError


def cloud(count, seed, move=0.0, features=8):
    rows = np.random.default_rng(seed).normal(size=(count, features))
    rows[:, 0] += move
    return rows


def naive_mmd(first, second):
    """The unbiased estimate, pair by pair."""
    both = np.concatenate([first, second])
    both = (both - both.mean(0)) / both.std(0)
    pairs = [(i, j) for i in range(len(both)) for j in range(i)]
    squares = {(i, j): ((both[i] - both[j]) ** 2).sum() for i, j in pairs}
    width = np.median(list(squares.values()))
    kernel = {pair: np.exp(-value / (2 * width)) for pair, value in squares.items()}
    m = len(first)
    parts = [[k for (i, j), k in kernel.items() if (i < m) + (j < m) == n] for n in (2, 0, 1)]
    return np.mean(parts[0]) + np.mean(parts[1]) - 2 * np.mean(parts[2])


def test_the_discrepancy_equals_a_sum_over_pairs():
    first, second = cloud(12, 0), cloud(15, 1, 1.0)
    assert discrepancy(first, second, permutations=9).value == pytest.approx(
        naive_mmd(first, second), abs=1e-10
    )


def test_moved_clouds_differ_and_halves_of_one_do_not():
    assert discrepancy(cloud(60, 0), cloud(60, 1, 1.0)).p_value < 0.01
    p_values = [discrepancy(cloud(60, s), cloud(60, s + 100), seed=s).p_value for s in range(20)]
    assert sum(p > 0.05 for p in p_values) >= 18


def test_p_values_under_no_shift_are_spread_over_the_whole_range():
    few = {"permutations": 99}
    p_values = [discrepancy(cloud(15, s), cloud(15, s + 500), **few).p_value for s in range(200)]
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.06)


def test_the_same_seed_gives_the_same_p_value_and_another_one_another():
    sides = cloud(30, 0), cloud(30, 1, 0.4)
    values = [discrepancy(*sides, seed=s).p_value for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_the_a_distance_is_zero_for_one_cloud_and_two_for_two():
    assert proxy_a_distance(cloud(100, 0), cloud(100, 1)).distance < 0.4
    apart = proxy_a_distance(cloud(100, 0), cloud(40, 1, 20.0))
    assert apart.distance == 2.0
    assert apart.error == 0.0


def test_the_feature_that_moved_is_named_first_with_scipys_statistic():
    first, second = cloud(50, 0), cloud(70, 1, 1.5)
    first[:, 3], second[:, 3] = first[:, 3].round(), second[:, 3].round()
    rows = feature_shifts(first, second)
    assert rows[0]["feature"] == 0
    assert rows[0]["shift"] == pytest.approx(1.5, abs=0.4)
    assert rows[0]["p_value"] < 0.01 < min(row["p_value"] for row in rows[1:])
    for row in rows:
        column = row["feature"]
        expected = ks_2samp(first[:, column], second[:, column]).statistic
        assert row["ks"] == pytest.approx(expected, abs=1e-12)


def test_holm_corrects_as_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.9])), [0.04, 0.09, 0.09, 0.9])


def test_the_class_that_moved_is_found_and_one_with_few_pictures_is_left_out():
    sides = [(cloud(65, seed), np.repeat([0, 1, 2], [30, 30, 5])) for seed in (0, 1)]
    sides[1][0][:30, 0] += 3.0
    rows = class_shifts(*sides, ["moved", "still", "rare"])
    assert rows[0]["p_value"] < 0.01 < rows[1]["p_value"]
    assert rows[2]["p_value"] is None
    assert sum(row["new_share"] for row in rows) == pytest.approx(1.0)


def test_a_picture_unlike_all_others_is_the_most_novel():
    new = cloud(20, 2)
    new[7] = 0
    new[7, 5] = 50.0
    bank = np.abs(cloud(100, 0, 5.0))
    known, found = novelty(bank, np.abs(cloud(30, 1, 5.0)), new)
    first = np.sort(np.linalg.norm(bank / np.linalg.norm(bank, axis=1, keepdims=True)
                                   - new[3] / np.linalg.norm(new[3]), axis=1))  # fmt: skip
    assert found[3] == pytest.approx(first[4])
    lone = novelty(bank, known=bank[:1], new=np.eye(8)[[5]])[1]
    assert lone[0] > known.max()


def test_the_projection_keeps_the_order_of_the_pictures():
    first, second = projection(cloud(30, 0), cloud(30, 1) + 30.0)
    gap = np.sign(first[:, 0].mean()) * np.concatenate([first[:, 0], -second[:, 0]])
    assert (gap > 0).all()


@pytest.mark.parametrize("compare", [discrepancy, proxy_a_distance, feature_shifts, projection])
def test_too_few_pictures_are_refused_with_the_number_that_is_needed(compare):
    with pytest.raises(DataError, match=f"got 3 pictures.*at least {FEWEST}"):
        compare(cloud(30, 0), cloud(3, 1))


def test_features_of_another_layer_and_features_without_a_number_are_refused():
    with pytest.raises(DataError, match="same layer"):
        discrepancy(cloud(20, 0), cloud(20, 1, features=9))
    broken = cloud(20, 1)
    broken[0, 0] = np.nan
    with pytest.raises(DataError, match="not numbers"):
        discrepancy(cloud(20, 0), broken)


def test_a_feature_that_never_changes_disturbs_nothing():
    first, second = cloud(20, 0), cloud(20, 1)
    first[:, 2] = second[:, 2] = 7.0
    assert {row["feature"]: row["ks"] for row in feature_shifts(first, second)}[2] < 1e-12
    assert np.isfinite(discrepancy(first, second).value)


def described(count, seed, sure, move=0.0):
    labels = np.arange(count) % 2
    features = cloud(count, seed, move)
    chance = np.random.default_rng(seed).uniform(size=count) < sure
    said = np.where(chance, labels, 1 - labels)
    top = 0.6 + 0.4 * chance
    outputs = np.where(np.eye(2)[said] > 0, top[:, None], 1 - top[:, None])
    return FeatureSet(features, outputs, labels)


def test_all_that_is_found_can_be_written_as_json_and_says_what_was_lost():
    import json

    known, new = described(80, 0, 0.95), described(80, 1, 0.6, 3.0)
    facts = find_drift(cloud(50, 2), known, new, ("a", "b")).facts
    facts = json.loads(json.dumps(facts))
    assert facts["shifted"]
    assert facts["confidence"]["change"] < 0
    accuracy = facts["accuracy"]
    assert accuracy["true"] == pytest.approx((new.outputs.argmax(1) == new.labels).mean())
    assert accuracy["thresholded"]["value"] == pytest.approx(accuracy["true"], abs=0.02)
    assert facts["classes"][0]["recall"] is not None


def test_without_labels_there_is_no_true_accuracy_and_without_classes_no_answers():
    known, new = described(40, 0, 0.9), described(40, 1, 0.9)
    unlabelled = FeatureSet(new.features, new.outputs)
    assert find_drift(cloud(30, 2), known, unlabelled, ("a", "b")).facts["accuracy"]["true"] is None
    assert "accuracy" not in find_drift(cloud(30, 2), known, unlabelled).facts
