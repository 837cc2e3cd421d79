"""A rung that a model does not allow is passed over; the ladder goes on and tells of it."""

from __future__ import annotations

import pytest
from test_export_quantize_search import job, quiet, spread_source  # noqa: F401

from export.quantize import strategies as rungs
from export.quantize.search import Limits, climb
from tl_keras.errors import ExportError, GateError, TrainingError


def failing(error):
    def rung(workshop, best):
        raise error
        yield best, ""

    return rung


def plain(workshop, best):
    yield best, ""


NO_TWIN = failing(ExportError("Layer 'odd' has no counterpart in tf_keras."))
NO_NUMBER = failing(TrainingError("The loss became nan while compressing."))


def test_rungs_that_fail_are_named_where_none_passes(spread_source, tmp_path):  # noqa: F811
    ladder = [("plain", plain), ("twin", NO_TWIN), ("training", NO_NUMBER)]
    with pytest.raises(GateError) as refused:
        climb(job(spread_source, tmp_path), Limits(0.0, 16, 16), quiet, ladder)
    said = str(refused.value)
    assert "twin: not possible, Layer 'odd' has no counterpart" in said
    assert "training: not possible, The loss became nan" in said


def test_a_later_rung_may_pass_after_one_that_failed(spread_source, tmp_path):  # noqa: F811
    names = ("sensitive layers in float", "equalization and bias correction")
    able = [pair for pair in rungs.RUNGS if pair[0] in names]
    ladder = [("plain", plain), ("twin", NO_TWIN), *able]
    made = climb(job(spread_source, tmp_path), Limits(0.05, 32, 32), quiet, ladder)
    assert [one.rung for one in made.attempts][0] == "plain"
    assert made.attempts[-1].passed and made.attempts[-1].rung in names


def test_a_first_rung_that_fails_is_the_models_own_error(spread_source, tmp_path):  # noqa: F811
    with pytest.raises(ExportError, match="no counterpart") as refused:
        climb(job(spread_source, tmp_path), Limits(0.0, 16, 16), quiet, [("twin", NO_TWIN)])
    assert not isinstance(refused.value, GateError)
