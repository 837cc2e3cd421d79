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
    assert got["mean_average_precision"] == pytest.approx(each.mean())
    assert [t["average_precision"] for t in got["per_tag"]] == pytest.approx(each)
    assert [t["f1"] for t in got["per_tag"]] == pytest.approx(sk.f1_score(y, guess, average=None))
    assert got["micro_f1"] == pytest.approx(sk.f1_score(y, guess, average="micro"))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(y, guess, average="macro"))
    assert got["exact_match"] == pytest.approx(sk.accuracy_score(y, guess))


def test_a_tag_that_never_occurs_has_no_average_precision_and_json_takes_it():
    got = evaluate(np.array([[0.9, 0.2], [0.1, 0.3]]), np.array([[1, 0], [0, 0]]), ["a", "b"],
                   task="tags")
    assert got["per_tag"][1]["average_precision"] is None
    assert got["mean_average_precision"] == 1.0
    json.dumps(got, allow_nan=False)


def test_values_equal_scikit_learn():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    y = rng.normal(size=(90, 2)) * [1, 20]
    p = y + rng.normal(size=(90, 2))
    got = evaluate(p, y, ["x", "y"], task="values")
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert got["rmse"] == pytest.approx(np.sqrt(sk.mean_squared_error(y, p)))
    assert got["r2"] == pytest.approx(sk.r2_score(y, p))
    assert [o["r2"] for o in got["per_output"]] == pytest.approx(
        sk.r2_score(y, p, multioutput="raw_values"))
    assert evaluate(p[:, 0], y[:, 0], ["x"], task="values")["mae"] == got["per_output"][0]["mae"]


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
