from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tl_keras.analysis.accuracy_estimate import (
    confidence,
    estimate_accuracy,
    negative_entropy,
    transport_cost,
)
from tl_keras.data.samples import from_arrays
from tl_keras.errors import DataError
from tl_keras.modalities.image.corruptions import CORRUPTIONS, corrupt, corrupted, parse_corruption


def answers(count, strength, seed, classes=3):
    """Calibrated answers: labels are drawn from the probabilities themselves."""
    generator = np.random.default_rng(seed)
    logits = strength * generator.normal(size=(count, classes))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    values = odds / odds.sum(1, keepdims=True)
    labels = np.array([generator.choice(classes, p=row) for row in values])
    return values, labels


@pytest.mark.parametrize("method", ["atc", "cott", "mean"])
@pytest.mark.parametrize("strength", [3.0, 4.0, 6.0])
def test_the_estimate_follows_calibrated_answers_as_they_get_more_or_less_sure(method, strength):
    known, new = answers(900, 4.0, 0), answers(900, strength, 1)
    found = estimate_accuracy(*known, new[0], method=method)
    true = (new[0].argmax(1) == new[1]).mean()
    assert found.value == pytest.approx(true, abs=0.08)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("method", ["atc", "cott", "mean"])
def test_on_the_known_pictures_themselves_the_estimate_is_their_accuracy(method):
    values, labels = answers(200, 2.0, 0)
    found = estimate_accuracy(values, labels, values, method=method)
    assert found.value == pytest.approx((values.argmax(1) == labels).mean(), abs=1e-9)


def test_transport_sees_a_model_that_takes_all_for_one_class_with_confidence():
    known, labels = answers(300, 6.0, 0, classes=2)
    stuck = np.tile([0.99, 0.01], (300, 1))
    assert estimate_accuracy(known, labels, stuck, method="atc").value > 0.9
    assert estimate_accuracy(known, labels, stuck, method="cott").value < 0.65


def test_the_mean_lies_between_both_with_an_interval_of_its_own():
    known, new = answers(150, 4.0, 0), answers(120, 1.0, 1)[0]
    found = {name: estimate_accuracy(*known, new, method=name) for name in ("atc", "cott", "mean")}
    either = (found["atc"].value + found["cott"].value) / 2
    assert found["mean"].value == pytest.approx(either, abs=1e-12)
    assert found["atc"].value != found["cott"].value
    assert found["mean"].low < either < found["mean"].high
    lowest, highest = (min(f.low for f in found.values()), max(f.high for f in found.values()))
    assert lowest <= found["mean"].low <= found["mean"].high <= highest


def test_transport_gives_every_class_its_share_at_the_least_cost():
    values = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    costs, rows = transport_cost(values, np.array([0.5, 0.5]))
    assert dict(zip(rows.tolist(), costs.round(6), strict=True)) == {0: 0.1, 1: 0.2, 2: 0.6, 3: 0.7}


def test_all_right_and_all_wrong_answers_have_a_threshold_too():
    values, _ = answers(50, 2.0, 0)
    right, wrong = values.argmax(1), (values.argmax(1) + 1) % 3
    assert estimate_accuracy(values, right, values).value == 1.0
    assert estimate_accuracy(values, wrong, values).value == 0.0


def test_entropy_and_confidence_are_the_textbook_ones():
    values = np.array([[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(negative_entropy(values), [np.log(0.5), 0.0])
    np.testing.assert_allclose(confidence(values), [0.5, 1.0])


def test_what_does_not_fit_is_refused():
    values, labels = answers(20, 1.0, 0)
    with pytest.raises(DataError, match="same classes"):
        estimate_accuracy(values, labels, values[:, :2])
    with pytest.raises(DataError, match="no picture"):
        estimate_accuracy(values, labels, values[:0])
    with pytest.raises(DataError, match="expected mean or atc or cott"):
        estimate_accuracy(values, labels, values, method="guess")


def photo(size=64):
    rows = np.linspace(0, 255, size)
    pixels = np.stack(np.broadcast_arrays(rows[None], rows[:, None], 128.0), axis=-1)
    pixels[size // 4 : size // 2, size // 4 : size // 2] = 255 - pixels[0, 0]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_changes_a_picture_more_and_always_alike(kind):
    plain = np.asarray(photo(), float)
    changed = [np.asarray(corrupt(photo(), kind, severity), float) for severity in (1, 3, 5)]
    gaps = [np.abs(pixels - plain).mean() for pixels in changed]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert changed[1].shape == plain.shape
    np.testing.assert_array_equal(changed[1], np.asarray(corrupt(photo(), kind, 3), float))


def test_samples_are_corrupted_when_they_are_read_and_not_before():
    samples = from_arrays(np.asarray(photo())[None], [0], ["a"])
    dark = corrupted(samples, "dark", 5)
    assert dark.keys == samples.keys
    assert np.mean(dark.modality.open(dark.items[0], 32)) < 0.3 * np.mean(photo())
    assert np.asarray(samples.modality.open(samples.items[0])).mean() == np.asarray(photo()).mean()


def test_noise_on_a_large_photo_is_seen_at_the_models_size():
    samples = corrupted(from_arrays(np.full((1, 600, 400, 3), 128, np.uint8), [0], ["a"]), "noise")
    image = samples.modality.open(samples.items[0], 40)
    assert min(image.size) == 40
    assert np.asarray(image).std() > 30


@pytest.mark.parametrize(
    ("text", "said"),
    [("blurr", "Did you mean blur"), ("blur:6", "expected 1 to 5"), ("blur:x", "1 to 5")],
)
def test_unknown_corruptions_and_severities_are_refused(text, said):
    with pytest.raises(DataError, match=said):
        parse_corruption(text)


def test_a_corruption_without_a_number_is_of_severity_three():
    assert parse_corruption("noise") == ("noise", 3)
