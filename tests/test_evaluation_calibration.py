"""Calibration is checked on predictions whose true calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from tl_keras.errors import DataError
from tl_keras.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)
from tl_keras.tasks import evaluate


def calibrated(n: int = 20000, classes: int = 4, seed: int = 0):
    """Labels drawn from the probabilities themselves: calibrated by construction."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.6), n)
    labels = (p.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, classes - 1)
    return p, labels


def test_temperature_of_calibrated_predictions_is_one():
    assert fit_temperature(*calibrated()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("wrong", [0.4, 2.5])
def test_temperature_undoes_a_known_distortion(wrong):
    p, y = calibrated()
    distorted = apply_temperature(p, 1 / wrong)
    assert fit_temperature(distorted, y) == pytest.approx(wrong, rel=0.03)


def test_calibration_error_of_calibrated_predictions_is_near_zero():
    p, y = calibrated()
    assert expected_calibration_error(p, y) < 0.02  # chance alone gives 0.01 here
    assert expected_calibration_error(apply_temperature(p, 0.3), y) > 0.1


def test_calibration_error_equals_a_hand_computation():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    y = np.array([0, 1, 0, 1])
    # bin of 0.9: accuracy 0.5, gap 0.4, half of all; bin of 0.6: accuracy 1, gap 0.4
    assert expected_calibration_error(p, y) == pytest.approx(0.4)
    assert [b["count"] for b in reliability_bins(p, y)] == [2, 2]


def test_every_picture_is_in_one_bin_borders_included():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2], [0.6, 0.4]])
    bins = reliability_bins(p, np.zeros(4, int))
    assert sum(b["count"] for b in bins) == 4
    assert all(b["low"] - 1e-9 <= b["confidence"] <= b["high"] + 1e-9 for b in bins)


def test_scaling_keeps_every_prediction_and_lowers_the_loss_on_real_data():
    from sklearn.datasets import load_digits
    from sklearn.naive_bayes import GaussianNB

    x, y = load_digits(return_X_y=True)
    model = GaussianNB().fit(x[:600], y[:600])  # naive Bayes is famously too sure of itself
    val, test = model.predict_proba(x[600:1200]), model.predict_proba(x[1200:])
    temperature = fit_temperature(val, y[600:1200])
    assert temperature > 1.5
    assert (apply_temperature(test, temperature).argmax(1) == test.argmax(1)).all()
    got = evaluate(test, y[1200:], [str(k) for k in range(10)], temperature=temperature)
    assert got["temperature"] == temperature
    assert got["nll_calibrated"] < 0.7 * got["nll"]
    assert got["ece_calibrated"] < got["ece"]


def test_the_temperature_found_is_the_best_on_a_grid():
    p, y = calibrated(500, seed=5)
    found = negative_log_likelihood(apply_temperature(p, fit_temperature(p, y)), y)
    grid = [negative_log_likelihood(apply_temperature(p, t), y) for t in np.geomspace(0.1, 9, 99)]
    assert found <= min(grid) + 1e-9


def test_zeros_in_the_probabilities_are_survived():
    p = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    y = np.array([0, 1, 2, 2])
    temperature = fit_temperature(p, y)
    assert np.isfinite(temperature) and temperature > 1
    assert np.isfinite(negative_log_likelihood(p, y))
    assert np.isfinite(apply_temperature(p, temperature)).all()


def test_a_model_without_a_mistake_is_not_made_surer():
    p, y = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([0, 1])
    assert fit_temperature(p, y) == 1.0


def test_the_loss_of_ignorance_is_log_of_the_classes():
    assert negative_log_likelihood(np.full((5, 8), 1 / 8), np.arange(5)) == pytest.approx(np.log(8))


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="expected 0 to 1"):
        fit_temperature(np.array([[0.5, 0.5]]), np.array([2]))
