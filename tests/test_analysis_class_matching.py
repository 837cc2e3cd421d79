from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tl_keras.analysis.class_matching import match_classes, matching_accuracy
from tl_keras.analysis.transferability import leep
from tl_keras.errors import DataError

NEEDS_FILES = pytest.mark.skipif(
    not {"TL_KERAS_REAL_WEIGHTS", "TL_KERAS_REAL_DATA"} <= set(os.environ),
    reason="TL_KERAS_REAL_WEIGHTS and TL_KERAS_REAL_DATA name no folders",
)


def answers(count=60, seed=0):
    """A classifier of five classes; 3 and 1 are mostly ours 0, 4 is ours 1, 0 and 2 are noise."""
    random, labels = np.random.default_rng(seed), np.arange(count) % 2
    source = random.dirichlet(np.ones(5), count)
    source[labels == 0, 3] += random.uniform(0.3, 2, count // 2)
    source[labels == 0, 1] += 0.3
    source[labels == 1, 4] += random.uniform(0.3, 2, count // 2)
    return source / source.sum(1, keepdims=True), labels


def test_each_class_of_the_classifier_goes_where_it_is_answered_most():
    source, labels = answers()
    found = match_classes(source, labels, 2)
    assert found.assigned[[1, 3, 4]].tolist() == [0, 0, 1]
    assert [index for index, _ in found.top(0, 2)] == [3, 1]
    assert found.top(1)[0] == (4, pytest.approx(source[labels == 1, 4].mean()))
    shares = found.predict_proba(source)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (shares.argmax(1) == labels).mean() > 0.9


def test_the_accuracy_leaves_each_sample_out_of_its_own_assignment():
    source, labels = answers(24)
    right = 0
    for i in range(24):
        others = np.arange(24) != i
        found = match_classes(source[others], labels[others], 2)
        right += found.predict_proba(source[i : i + 1]).argmax() == labels[i]
    assert matching_accuracy(source, labels, 2) == right / 24
    # Answers that are noise of so many classes that each sample has its own fit no label.
    noise = np.eye(24)
    assert (match_classes(noise, labels, 2).predict_proba(noise).argmax(1) == labels).all()
    assert matching_accuracy(noise, labels, 2) <= 0.5


def test_a_class_that_is_never_answered_stands_for_none():
    source, labels = answers()
    found = match_classes(np.pad(source, ((0, 0), (0, 1))), labels, 2)
    assert found.assigned[5] == -1
    with pytest.raises(DataError, match="add to 1"):
        match_classes(source * 2, labels, 2)


@pytest.mark.slow
@NEEDS_FILES
@pytest.mark.parametrize(("name", "least"), [("hymenoptera", 0.85), ("clothing10", 0.5)])
def test_a_real_classifier_knows_new_classes_without_training(name, least):
    import keras

    from tl_keras.data.sources import load_samples
    from tl_keras.features.extract import predict
    from tl_keras.workflows.advise import choose_samples

    path = Path(os.environ["TL_KERAS_REAL_WEIGHTS"], "efficientnet_lite0_imagenet.keras")
    theirs = keras.saving.load_model(path, compile=False)
    model = keras.Model(theirs.inputs[0], theirs.outputs[1])
    samples = load_samples(str(Path(os.environ["TL_KERAS_REAL_DATA"], name)))
    train = choose_samples(samples, 200)
    others = [i for i, key in enumerate(samples.keys) if key not in set(train.keys)]
    test = samples.take(others[:: max(1, len(others) // 200)])
    answered = predict(model, train)
    matching = match_classes(answered, train.labels, train.outputs)
    found = matching.predict_proba(predict(model, test)).argmax(1)
    accuracy = float((found == test.labels).mean())
    expected = matching_accuracy(answered, train.labels, train.outputs)
    print(name, accuracy, expected, leep(answered, train.labels, train.outputs))
    assert accuracy > least
    assert abs(accuracy - expected) < 0.12
    if name == "hymenoptera":  # ImageNet's 310 is the ant, 309 the bee
        tops = {k: matching.top(i)[0][0] for i, k in enumerate(train.class_names)}
        assert tops == {"ants": 310, "bees": 309}
