"""The range test rises through the rates and leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
from training_models import small_model, splits, weights_of

from tl_keras.errors import PlanError, TrainingError
from tl_keras.training.lr_finder import lr_find, suggest


def test_a_search_gives_a_rate_and_puts_the_weights_back() -> None:
    model = small_model()
    before = weights_of(model)
    found = lr_find(model, splits(), ("all",), steps=40, batch_size=8)
    assert found.rates == sorted(found.rates)
    assert found.rates[0] < found.suggestion < 1.0
    assert found.losses[-1] > min(found.losses)
    after = weights_of(model)
    assert all((before[path] == after[path]).all() for path in before)


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-5, 1e-1, 41)
    losses = 1 / (1 + np.exp(4 * (np.log10(rates) + 3)))  # steepest at 1e-3
    assert suggest(list(rates), list(losses)) == pytest.approx(1e-3, rel=0.01)


def test_too_few_losses_are_an_error() -> None:
    with pytest.raises(TrainingError, match="3 steps only"):
        suggest([1e-5, 1e-4, 1e-3], [1.0, 0.9, 0.8])


def test_a_selector_without_a_match_is_an_error() -> None:
    with pytest.raises(PlanError, match="matches no layer"):
        lr_find(small_model(), splits(), ("nothing*",), steps=10)
