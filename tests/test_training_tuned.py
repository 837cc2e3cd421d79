"""Plan tuned: the head at its optimum, what follows chosen on folds, an honest estimate."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tl_keras import tasks
from tl_keras.data.samples import from_arrays
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError, TrainingError
from tl_keras.features.extract import predict
from tl_keras.models.build import build_model
from tl_keras.models.heads import Head
from tl_keras.runs.config import RunConfig
from tl_keras.training.plan import Plan, Stage, named_plan
from tl_keras.training.solved_head import apply_head, solve_head
from tl_keras.training.trainer import fit
from tl_keras.workflows.evaluate import evaluate_run
from tl_keras.workflows.fit import train

RNG = np.random.default_rng(0)


def _folds(count, many=4):
    parts = np.arange(count) % many
    return [(np.flatnonzero(parts != k), np.flatnonzero(parts == k)) for k in range(many)]


def _solve(features, targets, activation, task, **more):
    weights = more.pop("weights", np.ones(len(targets), np.float32))
    losses = tasks.get(task).sample_losses
    return solve_head([features], targets, weights, activation, _folds(len(targets)), losses)


def _clouds(classes, count=120, wide=30, spread=1.5):
    labels = np.arange(count) % classes
    centers = np.random.default_rng(1).normal(size=(classes, wide))
    noise = np.random.default_rng(2).normal(size=(count, wide))
    return (centers[labels] + spread * noise).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("wide", [30, 300])
def test_a_solved_head_is_the_optimum_that_scikit_learn_finds(classes, wide):
    from sklearn.linear_model import LogisticRegression

    x, labels = _clouds(classes, wide=wide)
    found = _solve(x, np.eye(classes, dtype=np.float32)[labels], "softmax", "classes")
    moved = x - x.mean(0)
    moved /= np.sqrt((moved**2).sum(1).mean())
    model = LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8).fit(moved, labels)
    ours = apply_head(x, found.weights, "softmax")
    assert np.abs(ours - model.predict_proba(moved)).max() < 0.03


def test_what_a_head_says_out_of_fold_is_of_samples_it_has_not_seen():
    labels = RNG.integers(0, 2, 80)  # labels of pure chance
    x = RNG.normal(size=(80, 200)).astype(np.float32)
    found = _solve(x, np.eye(2, dtype=np.float32)[labels], "softmax", "classes")
    for (_, held), weights in zip(_folds(80), found.folded, strict=True):
        said = apply_head(x[held], weights, "softmax")
        assert said == pytest.approx(found.outputs[held], abs=1e-4)
    assert (found.outputs.argmax(1) == labels).mean() < 0.7


def test_a_solved_head_of_values_is_ridge_regression():
    from sklearn.linear_model import Ridge

    x = RNG.normal(size=(60, 8)).astype(np.float32)
    y = (x @ RNG.normal(size=(8, 2)) + 3).astype(np.float32)
    found = _solve(x, y, "linear", "values")
    scale = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    ridge = Ridge(alpha=1 / found.strength).fit((x - x.mean(0)) / scale, y)
    expected = ridge.predict((x - x.mean(0)) / scale)
    assert apply_head(x, found.weights, "linear") == pytest.approx(expected, abs=1e-3)


def test_a_solved_head_of_tags_solves_each_tag_and_survives_one_that_never_occurs():
    x, labels = _clouds(3, spread=0.5)
    tags = np.eye(4, dtype=np.float32)[labels]
    found = _solve(x, tags, "sigmoid", "tags")
    assert ((found.outputs > 0.5) == tags).mean() > 0.97
    assert found.outputs[:, 3].max() < 0.1


def test_features_that_are_no_numbers_and_labels_that_are_all_one_are_refused():
    x, labels = _clouds(2)
    targets = np.eye(2, dtype=np.float32)[labels]
    with pytest.raises(TrainingError, match="no numbers"):
        _solve(np.where(x > 2, np.nan, x), targets, "softmax", "classes")
    with pytest.raises(DataError, match="one label"):
        _solve(x, np.eye(2, dtype=np.float32)[np.zeros(120, int)], "softmax", "classes")


@pytest.fixture(scope="module")
def digits():
    samples = load_samples("digits")
    return samples.where("train"), samples.where("test").take(range(300))


@pytest.fixture(scope="module")
def tuned(digits):
    train_part, test = digits
    model = build_model("small_resnet", 10)
    stages = (named_plan("tuned").stages[0], _short(("upper",)))
    result = fit(model, Splits(train_part, train_part.take([]), test), Plan("tuned", stages))
    return model, result


def _short(train_layers):
    return Stage("upper", train_layers, 2, 4e-4, factors=(1.0, 0.25))


def test_the_estimate_out_of_fold_is_what_the_test_says_within_chance(tuned, digits):
    (model, result), (known, test) = tuned, digits
    rows, outputs = result.out_of_fold
    assert sorted(rows) == list(range(len(known)))
    estimate = (outputs.argmax(1) == known.labels[rows]).mean()
    truth = (predict(model, test).argmax(1) == test.labels).mean()
    assert abs(estimate - truth) < 0.08
    assert truth > 0.9


def test_nothing_is_kept_that_is_not_better_out_of_fold_than_the_head_alone(tuned):
    choice = tuned[1].stages[-1]["choice"]
    alone = next(one for one in choice["tried"] if one["alpha"] == 0)
    kept = [
        one for one in choice["tried"]
        if (one["factor"], one["alpha"]) == (choice["factor"], choice["alpha"])
    ]  # fmt: skip
    assert choice["alpha"] == 0 or kept[0]["loss"] < alone["loss"]
    # Every factor on two folds, the better one on all four.
    assert {one["folds"] for one in choice["tried"]} == {2, 4}


def test_with_validation_samples_these_decide_and_are_not_learned_from(digits):
    known, test = digits
    model = build_model("small_resnet", 10)
    result = fit(model, Splits(known, test.take(range(40)), None), "solved")
    assert result.out_of_fold is None
    assert result.history[0]["val_accuracy"] > 0.85


def test_a_head_with_hidden_layers_is_not_solved_but_trained(digits):
    known, test = digits
    model = build_model("small_resnet", 10, head=Head(dense=(8,)))
    with pytest.raises(PlanError, match="cannot be solved"):
        fit(model, Splits(known, known.take([]), None), "solved")
    assert RunConfig.of("digits", "small_resnet", dense=(8,)).with_defaults().plan.name == "lp-ft"


def test_numbers_in_large_units_are_solved_and_judged_in_these_units():
    images = RNG.integers(0, 255, (40, 32, 32, 3)).astype(np.uint8)
    values = 1e6 + 1e4 * images[:, :16].mean((1, 2, 3))
    samples = from_arrays(images, values, task="values")
    model = build_model("small_resnet", 1, head=Head(activation="linear"))
    result = fit(model, Splits(samples, samples.take([]), None), "solved")
    rows, outputs = result.out_of_fold
    assert abs(outputs.mean() - values.mean()) < 3 * values.std()
    assert abs(predict(model, samples).mean() - values.mean()) < values.std()


def test_a_default_run_learns_from_all_and_ends_with_an_honest_estimate(tmp_path):
    samples = load_samples("digits").where("train")
    folder = tmp_path / "digits"
    from PIL import Image

    for i, (item, label) in enumerate(zip(samples.items, samples.labels, strict=True)):
        place = folder / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.squeeze(item)).save(place / f"{i}.png")
    config = RunConfig.of(str(folder), "small_resnet", epochs=(1, 1), settings={"views": 2})
    run = train(config, tmp_path / "run")
    assert run.fact("data", "pictures")["val"] == 0
    assert run.fact("data", "pictures")["train"] == len(samples)
    told = evaluate_run(run.path, None, None, lambda *_: None)
    assert told["split"] == "out_of_fold"
    assert told["count"] == len(samples)
    assert told["accuracy"]["low"] <= told["accuracy"]["value"] <= told["accuracy"]["high"]
    with np.load(run.path / "out_of_fold.npz") as kept:
        right = kept["outputs"].argmax(1) == run.splits().train.labels[kept["rows"]]
    assert right.mean() == pytest.approx(told["accuracy"]["value"])
    assert "out of fold" in (run.path / "report.html").read_text()
    json.dumps(run.record)


@pytest.mark.parametrize("counts", [(1, 5), (1, 1), (3, 0)])
def test_too_few_images_to_judge_on_folds_are_refused_before_anything_is_written(tmp_path, counts):
    from PIL import Image

    for name, count in zip("ab", counts, strict=True):
        for i in range(count):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(RNG.integers(0, 255, (32, 32, 3), np.uint8))
            image.save(tmp_path / "data" / name / f"{i}.png")
    with pytest.raises(DataError):
        train(RunConfig.of(str(tmp_path / "data"), "small_resnet"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_minutes_that_are_too_few_leave_the_head_alone(digits):
    known, _ = digits
    model = build_model("small_resnet", 10)
    stages = (named_plan("tuned").stages[0], _short(("upper",)))
    data = Splits(known, known.take([]), None)
    result = fit(model, data, Plan("tuned", stages), minutes=1e-3)
    choice = result.stages[-1]["choice"]
    assert "minutes were over" in choice["note"]
    assert len(result.out_of_fold[0])


def test_the_report_says_what_the_folds_decided(tuned, tmp_path):
    from tl_keras.reports.run_report import write_report

    stages = tuned[1].stages
    run = {"stages": stages, "plan": {"stages": []}, "task": "classes"}
    page = write_report(tmp_path / "r.html", run=run, history=[], evaluations={}, plots={})
    text = " ".join(page.read_text().split())
    assert f"C = {stages[0]['solved']['strength']:g} was best" in text
    alpha = stages[1]["choice"]["alpha"]
    assert ("better out of fold than the head alone" if not alpha else f"{alpha:.0%}") in text
