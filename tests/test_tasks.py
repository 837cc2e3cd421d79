from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import r2_score

from tl_keras import tasks
from tl_keras.data.samples import from_arrays
from tl_keras.data.splits import split
from tl_keras.errors import DataError
from tl_keras.features.extract import predict
from tl_keras.models.build import build_model
from tl_keras.models.heads import Head
from tl_keras.training.plan import named_plan
from tl_keras.training.trainer import fit


def brightness(units, mean=0.0, count=80):
    """Gray images, and their brightness in some units."""
    generator = np.random.default_rng(0)
    levels = generator.integers(20, 235, count)
    noise = generator.integers(-15, 16, (count, 16, 16, 3))
    images = np.clip(levels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    return from_arrays(images, levels / 255 * units + mean, task="values")


@pytest.mark.parametrize(("units", "mean"), [(1.0, 0.0), (50_000.0, 0.0), (0.01, 3000.0)])
def test_a_regression_learns_whatever_the_units_of_its_labels(units, mean):
    data = split(brightness(units, mean), 0.25)
    keras.utils.set_random_seed(0)
    model = build_model("small_resnet", 1, head=Head(activation="linear"), size=16)
    plan = named_plan("lp-ft", augment="none")
    fit(model, data, plan, seed=0)
    said = predict(model, data.val)
    assert r2_score(data.val.labels, said) > 0.8


def test_a_regression_goes_on_from_where_it_stood():
    data = split(brightness(500.0, 1000.0), 0.25)
    keras.utils.set_random_seed(0)
    model = build_model("small_resnet", 1, head=Head(activation="linear"), size=16)
    fit(model, data, named_plan("lp-ft", augment="none"), seed=0)
    before = np.abs(predict(model, data.val) - data.val.labels).mean()
    fit(model, data, named_plan("probe", augment="none"), seed=0)
    assert np.abs(predict(model, data.val) - data.val.labels).mean() < 1.5 * before


def test_targets_are_scaled_and_folded_back_whatever_they_are():
    from tl_keras.training.scaling import scaled_output

    labels = np.stack([np.full(30, 7e6), np.linspace(1e12, 1e12 + 5e9, 30),
                       np.linspace(-1e-12, 1e-12, 30)], axis=1).astype(np.float32)  # fmt: skip
    scale = tasks.get("values").scale(labels)
    targets = scale.apply(labels)
    assert np.abs(targets[:, 0]).max() == 0 and scale.spread[0] == 1
    np.testing.assert_allclose(targets[:, 1:].std(axis=0), 1, rtol=1e-3)
    assert np.abs(targets).max() < 2
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="head_logits")])
    with scaled_output(model, scale):
        model.set_weights([np.eye(3), np.zeros(3)])  # gives the scaled targets back
    found = model.predict(targets, verbose=0)
    np.testing.assert_allclose(found, labels, rtol=1e-5, atol=1e-17)


def test_a_prediction_worse_than_the_mean_is_told():
    task = tasks.get("values")
    labels = np.arange(10.0)[:, None]
    assert task.warn(task.evaluate(labels[::-1], labels, ["weight"]))[0].startswith("'weight'")
    assert task.warn(task.evaluate(labels + 0.1, labels, ["weight"])) == []


@pytest.mark.parametrize("name", ["classes", "tags", "values"])
def test_a_model_agrees_with_itself_and_not_with_nan(name):
    outputs = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    task = tasks.get(name)
    assert task.agree(outputs, outputs).all() and task.agree_within(outputs, outputs, 0).all()
    broken = outputs.copy()
    broken[3, 1] = np.nan
    assert not task.agree(outputs, broken)[3] and not task.agree_within(outputs, broken, 1)[3]


def test_numbers_that_float32_cannot_hold_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="line 2.*1e39"):
        tasks.get("values").parse(["1e39"], lambda row: f"t.csv, line {row + 2}")
    with pytest.raises(DataError, match="finite"):
        tasks.get("values").check(np.array([1.0, 1e39]), None)


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(DataError, match="boxes.*classes, tags, values"):
        tasks.get("boxes")


def test_a_command_tells_of_a_prediction_worse_than_the_mean(capsys):
    from tl_keras.cli.console import show_scores

    labels = np.arange(10.0)[:, None]
    show_scores("scores", {"val": tasks.evaluate(labels[::-1], labels, ["weight"], task="values")})
    assert "warning: 'weight' is predicted worse" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["classes", "tags", "values"])
def test_two_models_answers_are_as_far_apart_as_scipy_says(name):
    from scipy.stats import bernoulli, entropy, norm

    generator, task = np.random.default_rng(0), tasks.get(name)
    p, q = generator.dirichlet(np.full(3, 5.0), (2, 40))
    if name == "classes":
        expected = [entropy(a, b) for a, b in zip(p, q)]
    elif name == "tags":
        expected = [
            np.mean([entropy(bernoulli.pmf([0, 1], a), bernoulli.pmf([0, 1], b))
                     for a, b in zip(*pair)]) for pair in zip(p, q)
        ]  # fmt: skip
    else:
        grid = np.linspace(-1.5, 2.5, 40_001)
        wide = p.std(axis=0)
        expected = [
            np.mean([entropy(norm.pdf(grid, a, s), norm.pdf(grid, b, s))
                     for a, b, s in zip(*pair, wide)]) for pair in zip(p[:3], q[:3])
        ]  # fmt: skip
    found = task.divergences(p, q)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-4)
    assert (task.divergences(p, p) == 0).all()
    assert np.isinf(task.divergences(p, np.full_like(p, np.nan))).all()


@pytest.mark.parametrize("name", ["classes", "tags"])
def test_the_expected_loss_is_the_drop_of_accuracy_where_probabilities_are_true(name):
    generator, task = np.random.default_rng(1), tasks.get(name)
    p = generator.dirichlet(np.ones(3), 200_000)
    others = np.clip(p + generator.normal(0, 0.1, p.shape), 0, 1)
    drawn = generator.uniform(size=(len(p), 1))
    labels = (p.cumsum(1) < drawn).sum(1)
    if name == "tags":
        labels = generator.uniform(size=p.shape) < p
    drop = task.correct(p, labels).mean() - task.correct(others, labels).mean()
    lost = task.expected_losses(p, others)
    assert drop == pytest.approx(lost.mean(), abs=0.003)
    assert ((lost == 0) | ~task.agree(p, others)).all()
    assert (task.expected_losses(p[:2], np.full((2, 3), np.nan)) == 1).all()


def test_numbers_that_changed_their_meaning_are_lost():
    p = np.random.default_rng(2).normal(size=(50, 1))
    others = p.copy()
    others[:4] += 1
    assert tasks.get("values").expected_losses(p, others).sum() == 4
