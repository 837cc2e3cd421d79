"""The losses against independent computations in NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from export.distill.config import DistillationConfig as Config
from tl_keras.errors import ExportError
from tl_keras.models.logits import softmax as own_softmax
from tl_keras.utils.quiet import start_tensorflow

start_tensorflow()
CLASSES = 4


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    teacher, student = (3 * rng.normal(size=(6, CLASSES)).astype(np.float32) for _ in range(2))
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, 6)]
    return teacher, student, labels, rng.uniform(0.2, 2, 6).astype(np.float32)


def loss_of(config, packed, outputs, weights=None, smoothing=0.0):
    from export.distill.losses import DistillationLoss

    return float(DistillationLoss(config, CLASSES, smoothing)(packed, outputs, weights))


def hard(labels, logits):
    return -(labels * log_softmax(logits, axis=1)).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_divergence_of_softened_probabilities_times_the_square(batch, temperature):
    from export.distill.losses import softened_kl

    teacher, student, *_ = batch
    said, learned = (softmax(logits / temperature, axis=1) for logits in (teacher, student))
    expected = temperature**2 * entropy(said, learned, axis=1)
    np.testing.assert_allclose(softened_kl(teacher, student, temperature), expected, rtol=2e-5)


def test_the_square_keeps_the_gradients_size_at_high_temperatures(batch):
    import tensorflow as tf

    from export.distill.losses import softened_kl

    teacher, student = tf.constant(batch[0]), tf.Variable(batch[1])
    sizes = []
    for temperature in (100.0, 1000.0):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(softened_kl(teacher, student, temperature))
        sizes.append(np.linalg.norm(tape.gradient(loss, student)))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_dist_is_one_minus_pearsons_correlation_of_rows_and_of_columns(batch):
    from export.distill.losses import inter_class, intra_class

    teacher, student, *_ = batch
    said, learned = softmax(teacher / 2, axis=1), softmax(student / 2, axis=1)
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(said, learned, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(said.T, learned.T, strict=True)]
    ones = np.ones((6, 1), np.float32)
    np.testing.assert_allclose(inter_class(teacher, student, 2.0), rows, atol=1e-5)
    np.testing.assert_allclose(intra_class(teacher, student, 2.0, ones), columns, atol=1e-5)


def test_a_picture_of_weight_two_counts_as_two_pictures(batch):
    from export.distill.losses import intra_class

    teacher, student, *_ = batch
    doubled = [np.concatenate([rows, rows[:1]]) for rows in (teacher, student)]
    weights = np.array([2, 1, 1, 1, 1, 1], np.float32)[:, None]
    expected = intra_class(*doubled, 1.0, np.ones((7, 1), np.float32))
    np.testing.assert_allclose(intra_class(teacher, student, 1.0, weights), expected, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_sum_weighs_labels_teacher_and_features_and_every_picture(batch, smoothing):
    teacher, student, labels, weights = batch
    rng = np.random.default_rng(1)
    shown, seen = rng.normal(size=(2, 6, 5)).astype(np.float32)
    config = Config("kd+features", temperature=3.0, alpha=0.7, beta=0.5)
    soft = 9 * entropy(softmax(teacher / 3, axis=1), softmax(student / 3, axis=1), axis=1)
    smoothed = labels * (1 - smoothing) + smoothing / CLASSES
    each = 0.3 * hard(smoothed, student) + 0.7 * soft + 0.5 * ((shown - seen) ** 2).mean(1)
    packed, outputs = np.hstack([labels, teacher, shown]), np.hstack([student, seen])
    found = loss_of(config, packed, outputs, weights, smoothing)
    assert found == pytest.approx((each * weights).mean(), rel=1e-5)


def test_a_picture_of_no_weight_has_no_say(batch):
    teacher, student, labels, weights = (np.array(part) for part in batch)
    weights[2] = 0
    config = Config("kd+dist", temperature=2.0)
    before = loss_of(config, np.hstack([labels, teacher]), student, weights)
    teacher[2], student[2] = teacher[2][::-1] * 5, -student[2]
    after = loss_of(config, np.hstack([labels, teacher]), student, weights)
    assert after == pytest.approx(before, rel=1e-5)


def test_a_last_batch_of_one_picture_gives_a_number_and_a_gradient(batch):
    import tensorflow as tf

    from export.distill.losses import DistillationLoss

    teacher, student, labels, _ = (part[:1] for part in batch)
    logits = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = DistillationLoss(Config("dist"), CLASSES)(np.hstack([labels, teacher]), logits)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_in_validation_only_the_plain_labels_count(batch):
    from export.distill.losses import LabelAccuracy, LabelLoss

    teacher, student, labels, _ = batch
    plain = hard(labels, student).mean()
    assert loss_of(Config("kd+dist"), labels, student) == pytest.approx(plain, rel=1e-5)
    loss, accuracy = LabelLoss(CLASSES), LabelAccuracy(CLASSES)
    for metric in (loss, accuracy):
        metric.update_state(np.hstack([labels, teacher]), np.hstack([student, teacher]))
    assert float(loss.result()) == pytest.approx(plain, rel=1e-5)
    right = (student.argmax(1) == labels.argmax(1)).mean()
    assert float(accuracy.result()) == pytest.approx(right)


def test_labels_keep_what_the_teachers_answers_leave():
    assert (Config("kd", alpha=0.8).soft, Config("features", alpha=0.8).soft) == (0.8, 0.0)
    assert Config("kd+dist", alpha=0.8).share == 0.4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": "kdd"}, "Unknown loss 'kdd'.*Did you mean kd"),
        ({"loss": ""}, "expected some of kd, dist, features"),
        ({"temperature": 0}, "temperature is 0; expected a number above 0"),
        ({"alpha": 1.5}, "alpha is 1.5; expected a number from 0 to 1"),
        ({"beta": -1}, "beta is -1"),
        ({"layers": (("a", "b"),)}, "use the loss 'kd\\+features'"),
    ],
)
def test_a_config_checks_itself(values, words):
    with pytest.raises(ExportError, match=words):
        Config(**values)


def test_large_logits_give_probabilities():
    logits = np.array([[1000.0, 0.0], [-1000.0, -1000.0]])
    np.testing.assert_allclose(own_softmax(logits), [[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(own_softmax(logits, 1000.0)[0], softmax([1.0, 0.0]))
