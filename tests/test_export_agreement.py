from __future__ import annotations

import numpy as np
import pytest
from export_models import pictures, small_model

from export.agreement import (
    can_decide,
    compare,
    is_refuted,
    judge,
    judge_trained,
    measure,
    measure_agreement,
    require_parity,
)
from export.source import Shown, Source
from tl_keras import tasks
from tl_keras.errors import ExportError, ParityError
from tl_keras.utils.stats import paired_interval, wilson

TRUTH = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], np.float32)
KEYS = ("p", "q", "r", "s")


@pytest.fixture(scope="module")
def model():
    return small_model()


def source(model, labels, task="classes"):
    given = None if labels is None else np.array(labels)
    return Source(model, ("a", "b", "c"), {"image": pictures(4)}, KEYS, task=task, labels=given)


def test_the_model_itself_loses_nothing(model):
    found = measure_agreement(TRUTH, TRUTH.copy(), source(model, [0, 1, 2, 1]))
    assert (found.accuracy, found.source_accuracy, found.drop) == (0.75, 0.75, 0.0)
    assert (found.low, found.high) == wilson(3, 4)
    assert (found.agreement, found.max_difference) == (1.0, 0.0)
    assert (found.changed, found.divergence, found.expected_drop) == (0, 0.0, 0.0)
    assert found.recall_drops == {}


def test_a_lost_picture_is_a_drop_of_its_own_class(model):
    given = TRUTH.copy()
    given[2] = [0.5, 0.3, 0.2]
    found = measure_agreement(TRUTH, given, source(model, [0, 1, 2, 1]))
    assert found.drop == pytest.approx(0.25)
    assert found.agreement == 0.75
    assert found.changed == 1
    assert found.expected_drop == pytest.approx(0.1 / 4), "what Keras believed in it more"
    assert list(found.recall_drops) == ["c"]
    assert found.recall_drops["c"] == (1.0, *paired_interval(1, 0, 1))
    assert (found.drop_low, found.drop_high) == paired_interval(1, 0, 4)
    assert found.max_difference == pytest.approx(0.2)
    assert found.mean_difference == pytest.approx(0.4 / 12)


def test_a_right_answer_that_keras_did_not_give_is_a_gain(model):
    given = TRUTH.copy()
    given[3] = [0.3, 0.6, 0.1]
    found = measure_agreement(TRUTH, given, source(model, [0, 1, 2, 1]))
    assert found.drop == pytest.approx(-0.25)
    assert found.agreement == 0.75
    assert found.recall_drops["b"][0] == pytest.approx(-0.5)


def test_without_labels_the_share_that_disagrees_counts(model):
    given = TRUTH.copy()
    given[3] = [0.3, 0.6, 0.1]
    found = measure_agreement(TRUTH, given, source(model, None))
    assert (found.accuracy, found.low, found.drop_low, found.labelled) == (None, None, None, 0)
    assert found.drop == pytest.approx(0.25)


def test_tags_are_right_only_all_together(model):
    tags = (TRUTH >= 0.5).astype("float32")
    found = measure_agreement(TRUTH, TRUTH.copy(), source(model, tags, "tags"))
    assert found.accuracy == 1.0
    given = TRUTH.copy()
    given[0, 1] = 0.6
    found = measure_agreement(TRUTH, given, source(model, tags, "tags"))
    assert (found.accuracy, found.agreement) == (0.75, 0.75)
    assert found.recall_drops == {}


def test_numbers_have_no_accuracy_and_agree_within_a_share_of_their_spread(model):
    found = measure_agreement(TRUTH, TRUTH + 1, source(model, TRUTH, "values"))
    assert (found.accuracy, found.drop) == (None, 1.0)


CLASSES = tasks.get("classes")


def sure(count, classes=3):
    """Answers that are sure of the classes in turn."""
    given = np.full((count, classes), 0.01, np.float32)
    given[np.arange(count), np.arange(count) % classes] = 0.98
    return given


def ask(truth, given, labels=None, max_drop=0.01):
    shown = Shown({}, labels, {"images": len(truth)})
    return judge(measure(truth, given, shown, CLASSES, ()), max_drop)


def turned(truth, rows):
    """The same answers, but for some rows."""
    given = truth.copy()
    given[rows] = np.roll(given[rows], 1, axis=1)
    return given


def test_a_file_that_changes_nothing_is_proven_where_there_are_images_enough():
    assert ask(sure(500), sure(500)).proven
    few = ask(sure(46), sure(46))
    assert few.passed and not few.proven, "46 images cannot tell a loss of two points from none"
    assert (can_decide(500, 0.01), can_decide(46, 0.01)) == (True, False)
    assert ask(sure(46), sure(46), max_drop=0.05).proven


def test_ties_that_fall_the_other_way_weigh_little_and_sure_answers_all():
    truth = sure(500)
    truth[:9] = [0.5, 0.49, 0.01]
    given = truth.copy()
    given[:9] = [0.49, 0.5, 0.01]
    assert ask(truth, given).proven
    lost = ask(truth, turned(truth, slice(9, 18)))
    assert not lost.passed and "9 of 500 answers changed, expected loss 1.7" in lost.why


def test_a_model_near_chance_does_not_pass_by_luck():
    generator = np.random.default_rng(0)
    truth = 0.25 + generator.normal(0, 1e-3, (500, 4))
    given = 0.25 + generator.normal(0, 1e-3, (500, 4))
    labels = generator.integers(0, 4, 46)
    # As it happens the file is right more often, and all answers are near ties.
    assert not ask(truth, given, np.r_[given[:46].argmax(1)]).passed
    assert not ask(truth, given, labels).passed


def test_labels_alone_refuse_a_file_whose_interval_lies_above_what_is_allowed():
    truth = sure(2000)
    truth[:60] = [0.4, 0.39, 0.21]
    given = truth.copy()
    given[:30] = [0.39, 0.4, 0.21]
    labels = np.r_[np.zeros(60, int), truth[60:].argmax(1)]
    assert ask(truth, given).proven
    refused = ask(truth, given, labels, 0.005)
    assert not refused.passed and "1.50 points of accuracy lost on 2000 labelled" in refused.why


def test_outputs_that_mean_other_probabilities_do_not_pass_with_the_same_labels():
    truth = sure(500)
    given = np.where(truth > 0.5, 0.6, 0.2).astype(np.float32)
    found = ask(truth, given)
    assert "0 of 500 answers changed" in found.why and not found.passed


def test_a_file_whose_outputs_are_no_numbers_does_not_pass():
    broken = sure(500)
    broken[3] = np.nan
    assert not ask(sure(500), broken).passed


def test_a_verdict_on_few_other_samples_refutes_only_by_its_interval():
    truth = sure(46)

    def refuted(rows):
        shown = Shown({}, truth.argmax(1), {})
        found = measure(truth, turned(truth, slice(0, rows)), shown, CLASSES, ())
        return is_refuted(found, 0.01)

    assert [refuted(rows) for rows in (0, 1, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("flips", "lost", "expected"), [(0.0075, 0.0, (0.95, 1)), (0.005, 0.02, (0, 0.1)),
                                    (0.005, 0.05, (0, 0.01))],
)  # fmt: skip
def test_the_gate_passes_what_loses_nothing_and_hardly_ever_what_loses_two_points(
    flips, lost, expected
):
    """Binomial flips of near ties, and of sure answers; the whole table: benchmarks/gate.py."""
    generator, proven = np.random.default_rng(0), 0
    for _ in range(200):
        truth = sure(546)
        kind = generator.choice(3, 546, p=[1 - flips - lost, flips, lost])
        truth[kind == 1] = [0.5, 0.45, 0.05]
        given = turned(truth, kind == 2)
        given[kind == 1] = [0.45, 0.5, 0.05]
        proven += ask(truth, given, truth[:46].argmax(1)).proven
    assert expected[0] <= proven / 200 <= expected[1]


def test_a_model_that_was_trained_on_is_judged_by_accuracy_alone():
    truth = sure(2000)
    labels = truth.argmax(1)
    labels[:100] = (labels[:100] + 1) % 3
    given = turned(truth, slice(0, 100))  # now these are right
    given[100:110] = np.roll(given[100:110], 1, axis=1)
    found = measure(truth, given, Shown({}, labels, {"test images": 2000}), CLASSES, ())
    assert judge_trained(found, 0.01).proven and not judge(found, 0.01).passed
    found = measure(truth, given, Shown({}, None, {"test images": 2000}), CLASSES, ())
    decision = judge_trained(found, 0.01)
    assert not decision.passed and "5.50 points lost" in decision.why
    assert "2000 test images" in decision.why


def test_answers_of_another_shape_are_refused(model):
    with pytest.raises(ExportError, match=r"\(4, 3\).*\(4, 2\)"):
        measure_agreement(TRUTH, TRUTH[:, :2], source(model, None))


SOURCE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)


def test_the_same_answers_pass_and_differ_by_nothing():
    comparison = compare(SOURCE, SOURCE.copy(), 0.0)
    assert comparison.passed
    assert (comparison.max_difference, comparison.agreed) == (0.0, 3)


def test_differences_are_measured_absolutely_over_all_outputs():
    artifact = SOURCE + np.array([[0.01, 0, 0], [0, -0.03, 0], [0, 0, 0]], np.float32)
    comparison = compare(SOURCE, artifact, 0.05)
    assert comparison.max_difference == pytest.approx(0.03, abs=1e-6)
    assert comparison.mean_difference == pytest.approx(0.04 / 9, abs=1e-6)
    assert comparison.passed
    assert compare(SOURCE, artifact, 0.02).differing == (1,)


@pytest.mark.parametrize("task", ["classes", "tags"])
def test_a_tie_may_be_broken_either_way(task):
    truth = np.array([[0.5, 0.4999999], [0.9, 0.1]], np.float32)
    comparison = compare(truth, truth[:, ::-1] * [[1, 1], [0, 0]] + truth * [[0], [1]], 1e-5, task)
    assert comparison.passed
    assert comparison.agreed == 2


def test_another_label_fails_where_the_source_does_not_tie():
    artifact = SOURCE.copy()
    artifact[0] = [0.44, 0.46, 0.1]
    comparison = compare(SOURCE, artifact, 0.2)
    assert comparison.differing == (0,), "differs by more than the tolerance, and so in label"
    assert comparison.agreed == 2


def test_nan_on_either_side_fails():
    broken = SOURCE.copy()
    broken[1] = np.nan
    assert not compare(SOURCE, broken, 1.0).passed
    assert not compare(broken, broken, 1.0).passed


def test_tags_are_compared_one_by_one():
    source = np.array([[0.6, 0.9], [0.6, 0.4]], np.float32)
    artifact = np.array([[0.6, 0.9], [0.6, 0.55]], np.float32)
    assert compare(source, artifact, 0.05, "tags").differing == (1,)
    assert compare(source, artifact, 0.16, "classes").passed


def test_large_values_are_compared_relatively():
    source, artifact = np.array([[2000.0]]), np.array([[2000.1]])
    assert compare(source, artifact, 1e-4, "values").passed
    assert not compare(source, artifact, 1e-6, "values").passed


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3, 1)])
def test_parity_of_another_shape_is_refused(shape):
    with pytest.raises(ExportError, match=r"\(3, 3\)"):
        compare(SOURCE, np.zeros(shape, np.float32), 1.0)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ExportError, match="at least one sample"):
        compare(SOURCE[:0], SOURCE[:0], 1.0)


def test_a_failure_names_the_first_pictures_and_counts_the_rest():
    source = np.tile(SOURCE, (4, 1))
    comparison = compare(source, source[:, ::-1], 1e-4)
    assert comparison.differing == (0, 2, 3, 5, 6, 8, 9, 11)
    with pytest.raises(ParityError, match=r"model\.onnx .* p0 .* p6 .* and 3 more"):
        require_parity(comparison, "model.onnx", [f"p{index}" for index in range(12)])
    require_parity(compare(source, source, 1e-4), "model.onnx", [])
