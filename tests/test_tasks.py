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
