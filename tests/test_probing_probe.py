from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import draw_folder
from training_models import coloured, small_model, splits

from tl_keras.errors import DataError, ModelError, PlanError, RunError, TLKerasError
from tl_keras.features.files import write_features
from tl_keras.features.places import (
    candidate_places,
    extract_features,
    feature_model,
    parse_places,
)
from tl_keras.probing.classifiers import CLASSIFIERS, fit
from tl_keras.probing.probe import ProbeOptions, attach_classifier, fit_probe
from tl_keras.runs.config import RunConfig
from tl_keras.workflows.probe import ProbeConfig, probe


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def data():
    return splits()


def quick(folder, **more):
    job = RunConfig.of(str(folder), "small_resnet", 16, "none")
    return ProbeConfig(job, **{"at": "last", "options": ProbeOptions("ridge"), **more})


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
@pytest.mark.parametrize("precision", ["float32", "onnxruntime"])
def test_features_are_those_of_a_keras_model(model, tmp_path, pooling, precision):
    import keras

    samples = coloured(40, 3)
    found = extract_features(
        model, ["block1_relu"], {"train": samples}, tmp_path, pooling=pooling, precision=precision
    )
    plain = keras.Model(model.inputs[0], model.get_layer("block1_relu").output)
    maps = plain.predict(np.asarray(samples.items, np.float32), verbose=0)
    flat = maps.reshape(40, -1, 4)
    expected = {"avg": flat.mean(1), "max": flat.max(1), "flatten": maps.reshape(40, -1)}[pooling]
    np.testing.assert_allclose(found.at("train", ("block1_relu",)), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "avg+max"])
def test_features_of_several_layers_stand_side_by_side_as_in_the_model(model, tmp_path, pooling):
    samples, place = coloured(10, 3), ("block2_relu", "block1_conv")
    found = extract_features(model, place, {"train": samples}, tmp_path, pooling=pooling)
    joined = feature_model(model, place, pooling)
    expected = joined.predict(np.asarray(samples.items, np.float32), verbose=0)
    np.testing.assert_allclose(found.at("train", place), expected, atol=1e-6)


def test_features_that_are_there_are_not_computed_again(model, tmp_path):
    parts, told = {"train": coloured(10, 3)}, []
    for _ in range(2):
        extract_features(
            model, ["block1_relu"], parts, tmp_path, progress=lambda *a: told.append(a)
        )
    assert told == [("features, train", 10, 10)]


def test_any_layer_is_a_place_and_the_default_ones_are_ends_of_blocks(model):
    assert parse_places("block1_conv+block2_bn, block1_relu", model) == [
        ("block1_conv", "block2_bn"), ("block1_relu",),
    ]  # fmt: skip
    ends = [place[0] for place in candidate_places(model)]
    assert ends[0] == "block1_relu"
    assert ends[-1] == "block2_relu"
    assert not [name for name in ends if name.startswith("head")]


def test_the_nearest_names_of_a_layer_that_is_not_there_are_offered(model):
    with pytest.raises(ModelError, match="no layer 'block2_rel'; the nearest are: block2_relu"):
        parse_places("block2_rel", model)
    with pytest.raises(ModelError, match="expected names"):
        parse_places("+,", model)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_model_predicts_what_the_classifier_does(model, tmp_path, name, classes):
    samples, held = coloured(60, 0, classes), coloured(30, 1, classes)
    place = ("block2_relu", "block1_relu")
    found = extract_features(model, place, {"train": samples, "val": held}, tmp_path)
    train, val = (found.at(split, place) for split in ("train", "val"))
    made = fit(name, (train, samples.labels), (val, held.labels), classes)
    whole = attach_classifier(model, place, "avg", made)
    predicted = whole.predict(np.asarray(held.items, np.float32), verbose=0)
    np.testing.assert_allclose(predicted, made.predict_proba(val), atol=1e-5)
    np.testing.assert_allclose(predicted.sum(1), 1, atol=1e-5)
    assert (predicted.argmax(1) == held.labels).mean() > 0.85


def test_neighbours_are_those_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    features = generator.normal(size=(80, 6)).astype(np.float32) + 0.7 * labels[:, None]
    others = generator.normal(size=(50, 6)).astype(np.float32)
    ours = fit("knn", (features, labels), (features[:0], labels[:0]), 2)
    theirs = KNeighborsClassifier(ours.count, metric="cosine").fit(features, labels)
    votes = theirs.predict_proba(others) * 0.99 + 0.005
    np.testing.assert_allclose(ours.predict_proba(others), votes, atol=1e-6)


def test_the_best_place_is_chosen_by_validation(model, data, tmp_path):
    places = [("scaling",), ("block2_relu",)]
    made = fit_probe(model, data, places, tmp_path, ProbeOptions("ridge"))
    scores = {score.place: score for score in made.compared}
    assert scores.keys() == {"scaling", "block2_relu"}
    assert made.compared[0].place == "+".join(made.place)
    assert made.compared[0].accuracy == max(score.accuracy for score in made.compared)


def test_the_base_is_left_as_it_was(model, data, tmp_path):
    before = [weight.numpy().copy() for weight in model.weights]
    fit_probe(model, data, [("block1_relu",)], tmp_path, ProbeOptions("lda"))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_features_are_written_for_other_tools(model, tmp_path, ending):
    if ending == "parquet":
        tables = pytest.importorskip("pyarrow.parquet")
    parts = {"train": coloured(7, 0), "val": coloured(3, 1)}
    found = extract_features(model, ["block1_relu"], parts, tmp_path / "features")
    path = tmp_path / f"features.{ending}"
    write_features(path, found, ("block1_relu",))
    expected = np.concatenate([found.at(split, ("block1_relu",)) for split in parts])
    if ending == "npz":
        read = np.load(path, allow_pickle=False)
        features, names, words = read["features"], list(read["label"]), list(read["split"])
    else:
        read = tables.read_table(path).to_pydict()
        features, names, words = np.array(read["features"]), read["label"], read["split"]
    np.testing.assert_array_equal(features, expected)
    assert words == ["train"] * 7 + ["val"] * 3
    assert names[:3] == ["red", "green", "blue"]
    with pytest.raises(PlanError, match="exists already"):
        write_features(path, found, ("block1_relu",))


def test_parquet_without_its_package_names_what_to_install(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match="pip install pyarrow"):
        write_features(tmp_path / "f.parquet", None, ("x",))


def test_a_probe_is_a_run_like_any_other(folder, tmp_path):
    from tl_keras.workflows.evaluate import evaluate_run, predict_files

    features = tmp_path / "features.npz"
    run, made = probe(quick(folder, features_out=features), tmp_path / "run")
    assert run.complete
    assert {path.name for path in tmp_path.iterdir()} == {"run", "photos", "features.npz"}
    assert "stopped" not in json.loads((run.path / "run.json").read_text())
    scores = evaluate_run(run.path, None, "val", lambda *_: None)
    assert scores["accuracy"]["value"] == run.record["metrics"]["val"]["accuracy"]["value"] == 1.0
    picture = next(folder.rglob("*.png"))
    row = predict_files(run.path, [picture], 1, lambda *_: None)[0]
    assert row["outputs"][0]["name"] == picture.parent.name
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Where the features are from" in report
    assert all(f"<code>{row['place']}</code>" in report for row in run.fact("probe", "compared"))
    assert (run.path / "plots" / "probe.png").stat().st_size > 2000
    assert len(np.load(features)["features"]) == 36


def test_a_saved_model_of_ones_own_is_probed_at_its_dense_layer(folder, tmp_path):
    from tl_keras.utils.quiet import start_tensorflow

    start_tensorflow()
    small_model(4).save(tmp_path / "own.keras")
    job = RunConfig.of(str(folder), str(tmp_path / "own.keras"))
    options = ProbeOptions("lda")
    run, made = probe(ProbeConfig(job, "head_logits+block2_relu", options), tmp_path / "run")
    assert made.compared[0].dimensions == 12
    assert run.model().output_shape == (None, 3)


WRONG = {
    "layer": ({"at": "stage3_block2_rel"}, "stage3_block2_relu"),
    "file": ({"features_out": "features.csv"}, "expected .npz or .parquet"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_leaves_nothing_behind(folder, tmp_path, change, message):
    if "features_out" in change:
        change = {"features_out": tmp_path / change["features_out"]}
    with pytest.raises(TLKerasError, match=message):
        probe(quick(folder, **change), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_names_that_there_are_not_are_refused():
    with pytest.raises(PlanError, match="unknown classifier 'svm', expected one of logistic"):
        ProbeOptions("svm")
    with pytest.raises(ModelError, match="got pooling 'mean'; expected one of avg"):
        ProbeOptions(pooling="mean")


def test_a_run_is_not_written_over_and_one_that_stops_is_withdrawn(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        probe(quick(folder), tmp_path / "full")

    def stop(task, done, total):
        if task == "scores, val":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(quick(folder), tmp_path / "run", stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "photos"]


def test_only_classes_are_probed(model, data, tmp_path):
    from dataclasses import replace

    tags = replace(data.train, task="tags", labels=np.eye(3, dtype=np.float32)[data.train.labels])
    with pytest.raises(DataError, match="needs one class"):
        fit_probe(model, replace(data, train=tags), [("block1_relu",)], tmp_path, ProbeOptions())


@pytest.mark.slow
def test_the_command_tells_what_was_found(tmp_path):
    from typer.testing import CliRunner

    from tl_keras.cli.app import app

    photos = draw_folder(tmp_path / "photos")
    words = ["probe", photos, "--base", "small_resnet", "--weights", "none", "--size", "16",
             "--out", tmp_path / "run", "--classifier", "lda"]  # fmt: skip
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "stage3_block2_relu" in result.stdout
    assert "shrinkage" in result.stdout
    again = CliRunner().invoke(app, [str(word) for word in words])
    assert again.exit_code == 2
    assert "exists already" in again.stderr
