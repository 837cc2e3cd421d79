from __future__ import annotations

import numpy as np
import pytest

from tl_keras.continual.forgetting import transfer
from tl_keras.errors import DataError

R = [[0.9, 0.3, 0.1], [0.95, 0.8, 0.2], [0.6, 0.7, 0.85]]


def test_the_figures_are_those_of_the_papers_by_hand():
    found = transfer(R, [0.1, 0.1, 0.1])
    assert found["average"] == pytest.approx((0.6 + 0.7 + 0.85) / 3)
    assert found["backward"] == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)
    assert found["forward"] == pytest.approx(((0.3 - 0.1) + (0.2 - 0.1)) / 2)
    # Forgetting counts from the best there ever was: 0.95, not 0.9.
    assert found["forgetting"] == pytest.approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2)


def test_one_task_has_nothing_to_forget():
    assert transfer([[0.8]]) == {
        "average": 0.8, "forgetting": None, "backward": None, "forward": None,
    }  # fmt: skip


def test_what_was_not_measured_is_left_out():
    matrix = np.array(R)
    matrix[0, 1] = np.nan
    assert transfer(matrix, [0.1] * 3)["forward"] == pytest.approx(0.1)
    assert transfer(matrix)["forward"] is None


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(DataError, match="square"):
        transfer([[0.1, 0.2]])
