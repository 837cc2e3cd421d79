from __future__ import annotations

import numpy as np
import pytest
from training_models import small_model, weights_of

from tl_keras.continual.ewc import Anchor, anchor_weights, fisher, l2sp
from tl_keras.continual.growing import grow
from tl_keras.errors import ModelError


def linear(outputs=3, inputs=4, seed=0):
    import keras

    keras.utils.set_random_seed(seed)
    x = keras.Input((inputs,))
    logits = keras.layers.Dense(outputs, name="head_logits", kernel_initializer="normal")(x)
    return keras.Model(x, keras.layers.Softmax(name="head_predictions")(logits))


def rows(count=40, inputs=4):
    return np.random.default_rng(0).normal(size=(count, inputs)).astype(np.float32)


def test_the_empirical_fisher_of_a_linear_model_is_that_of_the_formula():
    model, x = linear(), rows()
    labels = np.arange(40) % 3
    found = fisher(model, x, labels=labels).importance
    off = np.asarray(model(x)) - np.eye(3)[labels]
    by_hand = np.mean((x[:, :, None] * off[:, None, :]) ** 2, 0)
    np.testing.assert_allclose(found["head_logits/kernel"], by_hand, rtol=1e-4)
    np.testing.assert_allclose(found["head_logits/bias"], (off**2).mean(0), rtol=1e-4)


def test_importance_is_the_expectation_over_what_the_model_says():
    model, x = linear(), 3 * rows(7)
    said = np.asarray(model(x))
    expected = sum(said[:, [c]] * (said - np.eye(3)[c]) ** 2 for c in range(3)).mean(0)
    found = fisher(model, x).importance["head_logits/bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_model_that_is_sure_has_its_importance_without_luck():
    model, x = linear(), np.zeros((1, 4), np.float32)
    model.set_weights([model.get_weights()[0], np.array([9.0, 0.0, 0.0], np.float32)])
    said = np.asarray(model(x))[0]
    found = fisher(model, x).importance["head_logits/bias"]
    np.testing.assert_allclose(found, said * (1 - said), rtol=1e-3)


def pull(model, anchor, strength=1.0):
    with anchor_weights(model, anchor, strength):
        return float(sum(model.losses))


def random_anchor(model, seed):
    generator = np.random.default_rng(seed)
    shapes = {name: value.shape for name, value in l2sp(model).centers.items()}
    draw = {n: generator.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    weights = {n: generator.random(s).astype(np.float32) for n, s in shapes.items()}
    return Anchor(draw, weights)


def test_the_pull_is_in_the_loss_of_plain_keras_and_gone_afterwards():
    model = linear()
    anchor = random_anchor(model, 1)
    now = l2sp(model).centers
    expected = sum(
        (anchor.importance[n] * (now[n] - anchor.centers[n]) ** 2).sum() for n in anchor.centers
    )
    assert pull(model, anchor, 3.0) == pytest.approx(1.5 * expected, rel=1e-5)
    assert model.losses == []


def test_nothing_of_the_pull_is_saved(tmp_path):
    import keras

    model = linear()
    plain = model.get_config()
    with anchor_weights(model, l2sp(model)):
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(rows(), np.arange(40) % 3, verbose=0)
    model.save(tmp_path / "model.keras", include_optimizer=False)
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert model.get_config() == plain
    assert again.losses == []
    assert all(variable.regularizer is None for variable in again.variables)


def test_the_pulls_of_two_anchors_are_that_of_their_sum_but_for_a_constant():
    model = linear()
    first, second = random_anchor(model, 1), random_anchor(model, 2)

    def gap():
        return pull(model, first) + pull(model, second) - pull(model, first + second)

    before = gap()
    model.set_weights([weight + 0.7 for weight in model.get_weights()])
    assert gap() == pytest.approx(before, rel=1e-4)


def test_a_grown_head_is_held_in_its_old_columns_alone():
    model = linear()
    grown = grow(model, 5)
    with anchor_weights(grown, l2sp(model)):
        kernel, bias = grown.get_weights()
        grown.set_weights([kernel + np.array([0, 0, 0, 9, 9]), bias])
        assert float(sum(grown.losses)) == 0.0
        grown.set_weights([kernel + np.array([1, 0, 0, 0, 0]), bias])
        assert float(sum(grown.losses)) == pytest.approx(2.0)


def test_statistics_of_batchnorm_are_not_weights():
    names = fisher(small_model(), np.zeros((2, 16, 16, 3), np.float32)).importance
    assert "block1_bn/gamma" in names
    assert not [name for name in names if "moving" in name]


def test_measuring_importance_changes_nothing():
    model = small_model()
    before = weights_of(model)
    fisher(model, np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8))
    assert all((before[name] == value).all() for name, value in weights_of(model).items())


def test_an_anchor_of_another_model_is_refused():
    for model, other, why in (
        (linear(), small_model(), "another model"), (linear(2), linear(3), "does not fit")
    ):  # fmt: skip
        with pytest.raises(ModelError, match=why), anchor_weights(model, l2sp(other)):
            pass


def test_a_base_without_a_head_has_no_answers_to_measure():
    from tl_keras.models.backbones.load import build_backbone

    base = build_backbone("small_resnet", size=16)
    with pytest.raises(ModelError, match="put a head on the base"):
        fisher(base, np.zeros((2, 16, 16, 3)))


def test_an_important_weight_stays_while_fit_moves_the_others():
    import keras

    model, x = linear(), rows()
    kernel = model.get_weights()[0]
    importance = np.zeros_like(kernel)
    importance[0] = 1.0
    anchor = Anchor({"head_logits/kernel": kernel}, {"head_logits/kernel": importance})
    with anchor_weights(model, anchor, 1000.0):
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        model.fit(x, np.arange(40) % 3, epochs=30, verbose=0)
    moved = np.abs(model.get_weights()[0] - kernel)
    assert moved[0].max() < 0.005 < moved[1:].max()
