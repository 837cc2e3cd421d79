from __future__ import annotations

import numpy as np
import pytest
from export_models import pictures, small_model

from export.agreement import same_labels, verdict
from export.source import Source
from tl_keras.errors import ExportError
from tl_keras.utils.stats import wilson

TRUTH = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], np.float32)
KEYS = ("p", "q", "r", "s")


@pytest.fixture(scope="module")
def model():
    return small_model()


def source(model, labels, task="classes"):
    given = None if labels is None else np.array(labels)
    return Source(model, ("a", "b", "c"), pictures(4), KEYS, task=task, labels=given)


def test_the_model_itself_loses_nothing(model):
    found = verdict(TRUTH, TRUTH.copy(), source(model, [0, 1, 2, 1]))
    assert (found.accuracy, found.source_accuracy, found.drop) == (0.75, 0.75, 0.0)
    assert (found.low, found.high) == wilson(3, 4)
    assert (found.agreement, found.max_difference) == (1.0, 0.0)
    assert found.per_class_drop == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_a_lost_picture_is_a_drop_of_its_own_class(model):
    given = TRUTH.copy()
    given[2] = [0.5, 0.3, 0.2]
    found = verdict(TRUTH, given, source(model, [0, 1, 2, 1]))
    assert found.drop == pytest.approx(0.25)
    assert found.agreement == 0.75
    assert found.per_class_drop == {"a": 0.0, "b": 0.0, "c": 1.0}
    assert found.max_difference == pytest.approx(0.2)
    assert found.mean_difference == pytest.approx(0.4 / 12)


def test_a_right_answer_that_keras_did_not_give_is_a_gain(model):
    given = TRUTH.copy()
    given[3] = [0.3, 0.6, 0.1]
    found = verdict(TRUTH, given, source(model, [0, 1, 2, 1]))
    assert found.drop == pytest.approx(-0.25)
    assert found.agreement == 0.75
    assert found.per_class_drop["b"] == pytest.approx(-0.5)


def test_without_labels_the_share_that_disagrees_counts(model):
    given = TRUTH.copy()
    given[3] = [0.3, 0.6, 0.1]
    found = verdict(TRUTH, given, source(model, None))
    assert (found.accuracy, found.low, found.per_class_drop) == (None, None, {})
    assert found.drop == pytest.approx(0.25)


def test_tags_are_right_only_all_together(model):
    tags = (TRUTH >= 0.5).astype("float32")
    found = verdict(TRUTH, TRUTH.copy(), source(model, tags, "tags"))
    assert found.accuracy == 1.0
    given = TRUTH.copy()
    given[0, 1] = 0.6
    found = verdict(TRUTH, given, source(model, tags, "tags"))
    assert (found.accuracy, found.agreement) == (0.75, 0.75)
    assert found.per_class_drop == {"a": 0.0, "b": 0.0}


def test_numbers_agree_within_a_share_of_their_spread(model):
    truth = np.array([[0.0], [10.0], [20.0], [30.0]])
    near = truth + 0.5
    assert same_labels(truth, near, "values").all()
    near[2] += 1
    assert same_labels(truth, near, "values").tolist() == [True, True, False, True]
    found = verdict(TRUTH, TRUTH + 1, source(model, TRUTH, "values"))
    assert (found.accuracy, found.drop) == (None, 1.0)


@pytest.mark.parametrize("task", ["classes", "tags", "values"])
def test_nan_agrees_with_nothing(task):
    given = TRUTH.copy()
    given[1, 1] = np.nan
    assert same_labels(TRUTH, given, task).tolist() == [True, False, True, True]


def test_answers_of_another_shape_are_refused(model):
    with pytest.raises(ExportError, match=r"\(4, 3\).*\(4, 2\)"):
        verdict(TRUTH, TRUTH[:, :2], source(model, None))
