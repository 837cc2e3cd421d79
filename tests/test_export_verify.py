from __future__ import annotations

import numpy as np
import pytest

from export.verify import compare, require
from tl_keras.errors import ExportError, ParityError

SOURCE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)


def test_the_same_answers_pass_and_differ_by_nothing():
    comparison = compare(SOURCE, SOURCE.copy(), 0.0)
    assert comparison.passed
    assert (comparison.max_difference, comparison.labels_equal) == (0.0, 3)


def test_differences_are_measured_absolutely_over_all_outputs():
    artifact = SOURCE + np.array([[0.01, 0, 0], [0, -0.03, 0], [0, 0, 0]], np.float32)
    comparison = compare(SOURCE, artifact, 0.05)
    assert comparison.max_difference == pytest.approx(0.03, abs=1e-6)
    assert comparison.mean_difference == pytest.approx(0.04 / 9, abs=1e-6)
    assert comparison.passed
    assert compare(SOURCE, artifact, 0.02).differing == (1,)


def test_another_label_fails_even_within_the_tolerance():
    artifact = SOURCE.copy()
    artifact[2] = [0.3, 0.36, 0.34]
    comparison = compare(SOURCE, artifact, 0.1)
    assert comparison.max_difference < 0.1
    assert comparison.differing == (2,)
    assert comparison.labels_equal == 2


def test_nan_on_either_side_fails():
    broken = SOURCE.copy()
    broken[1] = np.nan
    assert not compare(SOURCE, broken, 1.0).passed
    assert not compare(broken, broken, 1.0).passed


def test_tags_are_compared_one_by_one():
    source = np.array([[0.6, 0.9], [0.6, 0.4]], np.float32)
    artifact = np.array([[0.6, 0.9], [0.6, 0.51]], np.float32)
    assert compare(source, artifact, 0.2, "tags").differing == (1,)
    assert compare(source, artifact, 0.2, "classes").passed


def test_large_values_are_compared_relatively():
    source, artifact = np.array([[2000.0]]), np.array([[2000.1]])
    assert compare(source, artifact, 1e-4, "values").passed
    assert not compare(source, artifact, 1e-6, "values").passed


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3, 1)])
def test_answers_of_another_shape_are_refused(shape):
    with pytest.raises(ExportError, match=r"\(3, 3\)"):
        compare(SOURCE, np.zeros(shape, np.float32), 1.0)


def test_nothing_to_compare_is_refused():
    with pytest.raises(ExportError, match="at least one picture"):
        compare(SOURCE[:0], SOURCE[:0], 1.0)


def test_a_failure_names_the_first_pictures_and_counts_the_rest():
    source = np.tile(SOURCE, (4, 1))
    comparison = compare(source, source[:, ::-1], 1e-4)
    assert comparison.differing == (0, 2, 3, 5, 6, 8, 9, 11)
    with pytest.raises(ParityError, match=r"model\.onnx .* p0 .* p6 .* and 3 more"):
        require(comparison, "model.onnx", [f"p{index}" for index in range(12)])
    require(compare(source, source, 1e-4), "model.onnx", [])
