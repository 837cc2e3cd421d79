"""Flipped labels are found, and dropped only where held-out samples say that it helps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from tl_keras import tasks
from tl_keras.analysis.label_quality import decide_drop, find_suspects, rank_suspects
from tl_keras.analysis.out_of_fold import fit_out_of_fold
from tl_keras.analysis.weak_groups import (
    find_confusable,
    find_weak_groups,
    group_by_folder,
    group_by_value,
)
from tl_keras.errors import DataError

CLASSES = tasks.get("classes")
NAMES = ("a", "b", "c")


def clouds(count=80, apart=3.0, seed=0, classes=3, width=24):
    """Normal clouds, one a class, seen in two views; their centers so many spreads apart."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    plain = draw.normal(size=(len(labels), width))
    plain[np.arange(len(labels)), labels] += apart
    mirrored = plain + 0.3 * draw.normal(size=plain.shape)
    return [plain.astype(np.float32), mirrored.astype(np.float32)], labels


def flipped(labels, share=0.1, seed=1):
    draw, made = np.random.default_rng(seed), labels.copy()
    chosen = draw.permutation(len(labels))[: round(share * len(labels))]
    classes = labels.max() + 1
    made[chosen] = (made[chosen] + draw.integers(1, classes, len(chosen))) % classes
    return made, np.isin(np.arange(len(labels)), chosen)


def test_flipped_labels_are_ranked_first_flagged_and_given_their_true_class():
    views, labels = clouds(apart=5.0)
    noisy, wrong = flipped(labels)
    suspects, judged = find_suspects(views, noisy, CLASSES, 3)
    flagged = np.isin(np.arange(len(labels)), suspects.indices)
    assert roc_auc_score(wrong, suspects.scores) > 0.98
    assert f1_score(wrong, flagged) > 0.85
    assert (suspects.suggested[wrong] == labels[wrong]).mean() > 0.95
    assert (np.diff(suspects.scores[suspects.indices]) <= 0).all()  # the worst first
    np.testing.assert_allclose(judged.outputs.sum(1), 1)


def test_a_feature_that_hardly_varies_is_not_blown_up():
    views, labels = clouds(apart=5.0)
    draw = np.random.default_rng(3)
    for value in (1e-30, 1e-6, 3.0):  # rounding of a constant, as some encoders have one
        rest = value * (1 + 1e-7 * draw.normal(size=(len(labels), 40)))
        more = [np.hstack([one, rest]).astype(np.float32) for one in views]
        judged = find_suspects(more, labels, CLASSES, 3)[1]
        assert (judged.outputs.argmax(1) == labels).mean() > 0.9, value


def test_a_sample_is_judged_by_models_that_have_not_seen_it():
    # Features that say nothing: whoever has seen a label would know it.
    draw = np.random.default_rng(0)
    features, labels = draw.normal(size=(200, 100)), np.repeat([0, 1], 100)
    judged = fit_out_of_fold([features], labels, CLASSES, 2)
    assert abs((judged.outputs.argmax(1) == labels).mean() - 0.5) < 0.12
    # Each sample twice: its twin would tell, unless the two are left out together.
    twice, groups = np.concatenate([features, features]), np.tile(np.arange(200), 2)
    both = np.concatenate([labels, labels])
    told = fit_out_of_fold([twice], both, CLASSES, 2)
    kept = fit_out_of_fold([twice], both, CLASSES, 2, groups=groups)
    assert (told.outputs.argmax(1) == both).mean() > 0.9
    assert abs((kept.outputs.argmax(1) == both).mean() - 0.5) < 0.12


def test_suspects_are_dropped_where_labels_are_wrong_and_kept_where_they_are_right():
    views, labels = clouds(apart=5.0, count=120)
    noisy, wrong = flipped(labels, 0.15)
    suspects, _ = find_suspects(views, noisy, CLASSES, 3)
    decision = decide_drop(views, noisy, CLASSES, NAMES, suspects)
    assert wrong[decision.indices].mean() > 0.8 and len(decision.indices) >= 10
    assert "log loss" in decision.reason and decision.evidence["share"] > 0
    best = max(decision.evidence["tried"], key=lambda one: one["gain"])
    assert best["low"] > 0
    # Hard and right: some are flagged, and to drop them does not help.
    views, labels = clouds(apart=1.5)
    suspects, _ = find_suspects(views, labels, CLASSES, 3)
    decision = decide_drop(views, labels, CLASSES, NAMES, suspects)
    assert len(suspects.indices) and not len(decision.indices)
    assert "not measured to help" in decision.reason


def test_dropping_is_refused_where_a_class_would_be_emptied():
    views, labels = clouds(apart=6.0, count=30)
    odd = np.array([40, 50])
    labels[labels == 0] = 1
    labels[odd] = 0  # all of class a, and they look like b
    suspects, _ = find_suspects(views, labels, CLASSES, 3)
    suspects = dataclasses.replace(suspects, indices=odd)
    with pytest.raises(DataError, match="leave nothing of a"):
        decide_drop(views, labels, CLASSES, NAMES, suspects)
    with pytest.raises(DataError, match="one class a sample"):
        decide_drop(views, np.zeros((90, 3)), tasks.get("tags"), NAMES, suspects)


def test_a_wrong_tag_and_a_wrong_number_are_found():
    views, labels = clouds(apart=5.0)
    tags = np.eye(3, dtype=np.uint8)[labels]
    tags[::5, 1] = 1 - tags[::5, 1]
    task = tasks.get("tags")
    suspects, _ = find_suspects(views, tags, task, 3)
    changed = np.zeros(len(tags), bool)
    changed[::5] = True
    assert roc_auc_score(changed, suspects.scores) > 0.95
    proposed = (suspects.suggested != tags).argmax(1)
    assert (proposed[suspects.indices] == 1).mean() > 0.9
    values = views[0][:, :2] @ np.array([[2.0], [1.0]]) + 100
    values[7] += 40
    suspects, judged = find_suspects(views, values, tasks.get("values"), 1)
    assert suspects.indices[0] == 7
    assert abs(suspects.suggested[7, 0] - (values[7, 0] - 40)) < 3
    assert judged.outputs.shape == (240, 1)


@pytest.mark.parametrize("harm", ["nan", "few", "one class", "one copy", "a class of one"])
def test_odd_data_gives_one_clear_line_or_an_answer(harm):
    views, labels = clouds(count=10)
    groups = None
    if harm == "nan":
        views[0][3, 2] = np.nan
    elif harm == "few":
        views, labels = [one[:3] for one in views], labels[:3]
    elif harm == "one copy":
        groups = np.zeros(30, int)
    elif harm == "one class":
        labels[:] = 0
    elif harm == "a class of one":
        labels[labels == 2] = 1
        labels[29] = 2
    if harm in ("nan", "few", "one copy"):
        with pytest.raises(DataError) as said:
            find_suspects(views, labels, CLASSES, 3, groups=groups)
        assert "\n" not in str(said.value)
    else:
        suspects, judged = find_suspects(views, labels, CLASSES, 3)
        assert np.isfinite(suspects.scores).all() and judged.outputs.shape == (30, 3)


def test_predictions_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="no numbers"):
        rank_suspects(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), CLASSES)


def test_classes_that_are_one_are_named_and_others_are_not():
    views, labels = clouds(apart=5.0, classes=3)
    labels[labels == 2] = np.random.default_rng(0).integers(1, 3, 80)  # c is a share of b's kind
    labels[labels == 1] = np.where(np.random.default_rng(1).random((labels == 1).sum()) < 0.5, 1, 2)
    judged = fit_out_of_fold(views, labels, CLASSES, 3)
    found = find_confusable(judged.outputs, labels, NAMES)
    assert [pair["classes"] for pair in found] == [["b", "c"]]
    assert 0.3 < found[0]["swapped"] < 0.7 and found[0]["low"] < found[0]["swapped"]


def test_a_weak_group_is_named_with_its_accuracy_and_chance_names_none():
    draw = np.random.default_rng(0)
    camera = np.array(["one", "two"])[(np.arange(200) % 4 == 0).astype(int)]
    right = draw.random(200) < np.where(camera == "two", 0.5, 0.95)
    found = find_weak_groups(right, {"folder": camera.tolist(), "none": [""] * 200})
    assert [(one["about"], one["name"], one["count"]) for one in found] == [("folder", "two", 50)]
    assert found[0]["accuracy"] == right[camera == "two"].mean()
    by_chance = [
        len(find_weak_groups(draw.random(200) < 0.8, {"folder": draw.choice(list("abcd"), 200)}))
        for _ in range(60)
    ]
    assert np.mean(np.array(by_chance) > 0) <= 0.15
    assert group_by_folder(["train/ants/x/1.png", "val/bees/y z/2.png"], ("ants", "bees")) == [
        "x", "y z"
    ]  # fmt: skip
    assert group_by_folder(["ants/1.png", "bees/2.png"], ("ants", "bees")) == ["", ""]
    assert group_by_value(np.array([1.0, 5, 5, 9, np.nan]), ("low", "high")) == [
        "low", "", "", "high", ""
    ]  # fmt: skip
