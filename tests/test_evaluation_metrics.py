"""Figures are checked against scikit-learn, hand computations and simulations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tl_keras.errors import DataError, TLKerasError
from tl_keras.evaluation.metrics import confusion_matrix, worst_mistakes
from tl_keras.tasks import evaluate
from tl_keras.utils.stats import bootstrap, wilson


def softmax_rows(n: int, classes: int, seed: int = 0, skill: float = 2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += skill
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True), labels


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_scores_equal_those_of_scikit_learn(classes):
    from sklearn import metrics as sk

    p, y = softmax_rows(300, classes)
    got, guess = evaluate(p, y, names(classes)), p.argmax(1)
    assert got["accuracy"]["value"] == pytest.approx(sk.accuracy_score(y, guess))
    assert got["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(y, guess))
    assert got["macro_f1"]["value"] == pytest.approx(sk.f1_score(y, guess, average="macro"))
    assert got["nll"] == pytest.approx(sk.log_loss(y, p))
    assert got["confusion"] == sk.confusion_matrix(y, guess).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(y, guess)
    for k, row in enumerate(got["per_class"]):
        assert row["precision"] == pytest.approx(precision[k])
        assert row["recall"] == pytest.approx(recall[k])
        assert row["f1"] == pytest.approx(f1[k])
        assert row["support"] == support[k]


def test_top_k_equals_that_of_scikit_learn_and_is_left_out_when_it_says_nothing():
    from sklearn.metrics import top_k_accuracy_score

    p, y = softmax_rows(400, 8, skill=1.0)
    top = evaluate(p, y, names(8))["top_k"]
    assert top == {k: pytest.approx(top_k_accuracy_score(y, p, k=int(k))) for k in ("3", "5")}
    assert set(evaluate(*softmax_rows(50, 4), names(4))["top_k"]) == {"3"}
    assert evaluate(*softmax_rows(50, 3), names(3))["top_k"] == {}


def test_equal_probabilities_do_not_count_as_a_hit_for_everyone():
    p, y = np.full((80, 8), 1 / 8), np.arange(80) % 8
    assert evaluate(p, y, names(8))["top_k"] == {"3": 3 / 8, "5": 5 / 8}


def test_the_answer_survives_json_unchanged():
    p, y = softmax_rows(60, 6)
    got = evaluate(p.astype(np.float32), y, names(6), temperature=1.3)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_the_same_seed_gives_the_same_interval_and_another_seed_a_near_one():
    p, y = softmax_rows(200, 5)
    first = evaluate(p, y, names(5), seed=3)
    assert first == evaluate(p, y, names(5), seed=3)
    other = evaluate(p, y, names(5), seed=4)
    assert first["accuracy"] != other["accuracy"]
    assert first["accuracy"]["low"] == pytest.approx(other["accuracy"]["low"], abs=0.02)


def test_bootstrap_over_cells_agrees_with_bootstrap_over_pictures():
    from sklearn.metrics import balanced_accuracy_score, f1_score

    p, y = softmax_rows(120, 3)
    guess, rng = p.argmax(1), np.random.default_rng(1)
    draws = rng.integers(0, 120, (300, 120))
    balanced = [balanced_accuracy_score(y[i], guess[i]) for i in draws]
    macro = [f1_score(y[i], guess[i], average="macro") for i in draws]
    got = bootstrap(confusion_matrix(guess, y, 3), seed=0)
    for score, drawn in (("balanced_accuracy", balanced), ("macro_f1", macro)):
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert got[score]["low"] == pytest.approx(low, abs=0.02)
        assert got[score]["high"] == pytest.approx(high, abs=0.02)


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng, inside = np.random.default_rng(0), 0
    for seed in range(200):
        right = rng.binomial(200, 0.8)
        found = bootstrap(np.array([[right, 200 - right], [0, 0]]), seed, 500)["accuracy"]
        inside += found["low"] <= 0.8 <= found["high"]
    assert 180 <= inside <= 199


def test_a_perfect_score_on_few_pictures_does_not_claim_certainty():
    p, y = np.eye(2)[np.arange(30) % 2], np.arange(30) % 2
    got = evaluate(p, y, names(2))
    assert got["accuracy"]["value"] == got["accuracy"]["high"] == 1.0
    assert got["accuracy"]["low"] == pytest.approx(0.8865, abs=1e-4)  # 30 of 30, Wilson
    assert got["balanced_accuracy"]["low"] == pytest.approx(got["accuracy"]["low"])
    assert got["accuracy"]["method"] == "wilson"


def test_wilson_equals_known_values():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_class_without_pictures_neither_crashes_nor_drags_the_mean_down():
    p, y = np.eye(3)[[0, 1, 1, 0]], np.array([0, 1, 1, 1])
    got = evaluate(p, y, names(3))
    assert got["balanced_accuracy"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["per_class"][2]["support"] == 0
    assert (got["per_class"][2]["low"], got["per_class"][2]["high"]) == (0.0, 1.0)


def test_worst_mistakes_come_with_the_most_confident_first_and_are_all_wrong():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.01, 0.99]])
    assert worst_mistakes(p, np.array([1, 0, 1, 1]), 10).tolist() == [0, 1, 2]
    assert worst_mistakes(p, np.array([1, 0, 1, 1]), 1).tolist() == [0]
    assert worst_mistakes(p, np.array([0, 1, 0, 1]), 5).tolist() == []


def test_tags_equal_scikit_learn():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = (rng.random((150, 4)) < 0.3).astype(np.float32)
    p = np.clip(y * 0.4 + rng.random((150, 4)) * 0.6, 0, 1)
    got, guess = evaluate(p, y, names(4), task="tags"), p >= 0.5
    each = sk.average_precision_score(y, p, average=None)
    assert got["mean_average_precision"]["value"] == pytest.approx(each.mean())
    assert [t["average_precision"] for t in got["per_tag"]] == pytest.approx(each)
    assert [t["f1"] for t in got["per_tag"]] == pytest.approx(sk.f1_score(y, guess, average=None))
    assert got["micro_f1"] == pytest.approx(sk.f1_score(y, guess, average="micro"))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y, guess, average="macro"))
    assert got["exact_match"] == pytest.approx(sk.accuracy_score(y, guess))


def test_a_tag_that_never_occurs_has_no_average_precision_and_json_takes_it():
    got = evaluate(np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]]), ["a", "b"],
                   task="tags")
    assert got["per_tag"][1]["average_precision"] is None
    assert got["mean_average_precision"]["value"] == 1.0
    json.dumps(got, allow_nan=False)


def test_values_equal_scikit_learn():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = rng.normal(size=(90, 2)) * [1, 20]
    p = y + rng.normal(size=(90, 2))
    got = evaluate(p, y, ["x", "y"], task="values")
    assert got["mae"]["value"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert got["rmse"]["value"] == pytest.approx(np.sqrt(sk.mean_squared_error(y, p)))
    assert got["r2"]["value"] == pytest.approx(sk.r2_score(y, p))
    assert [o["r2"] for o in got["per_output"]] == pytest.approx(
        sk.r2_score(y, p, multioutput="raw_values"))
    assert evaluate(p[:, 0], y[:, 0], ["x"], task="values")["mae"]["value"] == pytest.approx(
        got["per_output"][0]["mae"])

def test_tags_have_the_area_under_the_roc_curve_and_intervals_that_hold_them():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = (rng.random((150, 4)) < 0.3).astype(int)
    p = np.round(np.clip(y * 0.3 + rng.random((150, 4)) * 0.7, 0, 1), 2)  # equal ones among them
    got = evaluate(p, y, names(4), task="tags")
    assert got["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p))
    assert [t["auroc"] for t in got["per_tag"]] == pytest.approx(
        sk.roc_auc_score(y, p, average=None))
    for name in ("average_precision", "auroc"):
        rows = [(t[f"{name}_low"], t[name], t[f"{name}_high"]) for t in got["per_tag"]]
        assert all(low < value < high for low, value, high in rows)
    one = [sk.roc_auc_score(y[rows, 0], p[rows, 0])
           for rows in rng.integers(0, 150, (1500, 150))]
    low, high = np.quantile(one, [0.025, 0.975])
    assert got["per_tag"][0]["auroc_low"] == pytest.approx(low, abs=0.015)
    assert got["per_tag"][0]["auroc_high"] == pytest.approx(high, abs=0.015)
    again = evaluate(p, y, names(4), task="tags")
    assert again == got


def test_weighted_curves_equal_scikit_learn():
    from sklearn import metrics as sk

    from tl_keras.evaluation.resampling import ranked

    rng = np.random.default_rng(3)
    y, p = rng.integers(0, 2, 60), np.round(rng.random(60), 1)
    weights = rng.integers(0, 4, (5, 60))
    precision, area = ranked(p, y, weights)
    assert precision == pytest.approx(
        [sk.average_precision_score(y, p, sample_weight=w) for w in weights])
    assert area == pytest.approx([sk.roc_auc_score(y, p, sample_weight=w) for w in weights])


def test_a_perfect_tagger_on_few_images_does_not_claim_certainty():
    y = np.array([[1, 0], [0, 1]] * 6)
    got = evaluate(y.astype(float), y, ["a", "b"], task="tags")
    assert got["auroc"]["value"] == 1.0 and got["auroc"]["low"] < 0.8
    assert got["per_tag"][0]["average_precision_low"] < 0.8


def test_classes_have_the_mean_area_of_each_against_the_others():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 80)
    p = rng.dirichlet(np.ones(3), 80) + np.eye(3)[y] * 0.2
    p /= p.sum(1, keepdims=True)
    expected = sk.roc_auc_score(y, p, multi_class="ovr")
    assert evaluate(p, y, names(3))["auroc"] == pytest.approx(expected)
    assert evaluate(p, y * 0, names(3))["auroc"] is None


def test_a_threshold_gives_the_best_f1_and_is_kept_where_few_samples_say_nothing():
    from sklearn import metrics as sk

    from tl_keras.evaluation.thresholds import fit_thresholds

    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < [0.2, 0.5, 0.01]).astype(int)
    p = np.clip(rng.normal(0.15 + 0.2 * y, 0.1), 0, 1)
    found = fit_thresholds(p, y)
    for k in (0, 1):
        best = max(sk.f1_score(y[:, k], p[:, k] >= t) for t in np.linspace(0, 1, 2001))
        assert sk.f1_score(y[:, k], p[:, k] >= found[k]) >= best - 1e-9
        assert found[k] < 0.4
    assert found[2] == 0.5
    sure = np.where(y[:, :2] > 0, 0.9, 0.1)
    assert fit_thresholds(sure, y[:, :2]) == [0.5, 0.5]
    got = evaluate(p, y, names(3), task="tags", thresholds=found)
    assert [t["threshold"] for t in got["per_tag"]] == found
    assert got["macro_f1"] > evaluate(p, y, names(3), task="tags")["macro_f1"] + 0.2
    with pytest.raises(DataError, match="expected 3 numbers"):
        evaluate(p, y, names(3), task="tags", thresholds=[0.5])


def test_errors_of_numbers_come_with_intervals_that_scipy_finds_too():
    from scipy.stats import bootstrap
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = rng.normal(5000, 100, 120)
    p = y + rng.normal(0, 60, 120)
    got = evaluate(p[:, None], y[:, None], ["x"], task="values")
    for name, score in (("mae", sk.mean_absolute_error), ("r2", sk.r2_score),
                        ("rmse", sk.root_mean_squared_error)):
        expected = bootstrap((y, p), score, paired=True, vectorized=False, n_resamples=1000,
                             method="percentile", rng=np.random.default_rng(1)).confidence_interval
        wide = expected.high - expected.low
        assert got[name]["value"] == pytest.approx(score(y, p))
        assert got[name]["low"] == pytest.approx(expected.low, abs=0.15 * wide)
        assert got[name]["high"] == pytest.approx(expected.high, abs=0.15 * wide)


def test_numbers_that_do_not_vary_have_no_r2():
    got = evaluate(np.array([[1.0], [1.2]]), np.ones((2, 1)), ["x"], task="values")
    assert got["r2"] is None and got["mae"]["value"] == pytest.approx(0.1)
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize(("change", "said"), [
    ({"labels": [0, 1]}, "2 labels"),
    ({"labels": [0, 1, 3]}, "expected 0 to 2"),
    ({"labels": [[1, 0, 0]] * 3}, "argmax"),
    ({"labels": [0.5, 1, 2]}, "whole numbers"),
    ({"class_names": ["a", "b"]}, "2 class names for 3 outputs"),
    ({"probabilities": np.eye(3) * 9 - 4}, "logits"),
    ({"probabilities": np.full((3, 3), 0.9)}, "tags"),
    ({"probabilities": np.full((3, 3), np.nan)}, "not finite"),
    ({"probabilities": np.zeros((0, 3)), "labels": []}, "at least one"),
    ({"probabilities": np.zeros(3)}, "shape"),
    ({"task": "boxes"}, 'classes, tags, values'),
    ({"temperature": 0.0}, "above 0"),
])
def test_what_does_not_fit_is_named_with_what_was_expected(change, said):
    fits = {"probabilities": np.eye(3), "labels": [0, 1, 2], "class_names": ["a", "b", "c"]}
    with pytest.raises(TLKerasError, match=said.replace("(", r"\(")):
        evaluate(**{**fits, **change})


def test_tags_and_values_of_the_wrong_shape_are_refused():
    with pytest.raises(DataError, match="one column an output"):
        evaluate(np.full((3, 2), 0.5), np.zeros((3, 3)), ["a", "b"], task="tags")
    with pytest.raises(DataError, match="only 0 and 1"):
        evaluate(np.full((3, 2), 0.5), np.full((3, 2), 2), ["a", "b"], task="tags")
    with pytest.raises(DataError, match="one column an output"):
        evaluate(np.ones((3, 2)), np.ones(3), ["a", "b"], task="values")


def test_int8_outputs_that_do_not_quite_sum_to_one_are_taken():
    p, y = softmax_rows(100, 4)
    rounded = np.round(p * 256) / 256
    assert evaluate(rounded, y, names(4))["nll"] == pytest.approx(
        evaluate(p, y, names(4))["nll"], abs=0.02)
