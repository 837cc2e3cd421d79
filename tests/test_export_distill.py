"""A distillation ends as an ordinary run; a mistake leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import NAMES, draw_folder
from training_models import small_model
from typer.testing import CliRunner

from export.cli.app import app
from export.distill.comparison import choose_student
from export.distill.run import Distillation, distill
from tl_keras.errors import RunError
from tl_keras.runs.directory import RunDirectory
from tl_keras.workflows.fit import resume


def invoke(*words):
    result = CliRunner().invoke(app, ["distill", *[str(word) for word in words]])
    return result, " ".join(result.output.split())


def request(teacher, student, **more):
    values = {"epochs": (2, 2), "precision": "float32", "settings": {"views": 2}, **more}
    return Distillation(str(teacher), str(student), **values)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A classifier of three classes in a file; its softmax lies within its last layer."""
    import keras

    model = small_model(dropout=0.2)
    soft = keras.layers.Dense(3, activation="softmax", name="head_last")
    made = keras.Model(model.inputs, soft(model.get_layer("head_dropout_1").output))
    path = tmp_path_factory.mktemp("student") / "student.keras"
    made.save(path)
    return path


@pytest.fixture(scope="module")
def distilled(trained, student, tmp_path_factory):
    out = tmp_path_factory.mktemp("distilled") / "run"
    words = ["--epochs", "2,2", "--precision", "float32", "--views", 2, "--plan", "lp-ft"]
    result, text = invoke(trained, "--student", student, "--out", out, *words, "--mixup")
    assert result.exit_code == 0, result.output
    return out, text


@pytest.mark.slow
def test_the_table_says_what_the_teacher_and_both_students_are_worth(distilled):
    out, text = distilled
    facts = RunDirectory(out).record["distillation"]
    assert list(facts["scores"]) == ["teacher", "alone", "distilled"]
    for name in ("teacher", "student alone", "student, distilled"):
        assert name in text
    assert facts["why"] in text
    assert facts["kept"] in ("alone", "distilled")
    assert facts["lesson"]["mixup"] == 1.0
    assert set(facts["seconds"]) == {"teacher", "alone", "distilled"}


@pytest.mark.slow
def test_what_is_handed_on_scores_as_the_record_says(distilled):
    run = RunDirectory(distilled[0])
    facts = run.record["distillation"]
    scores, kept = run.record["metrics"], facts["scores"][facts["kept"]]
    for split in ("val", "test"):
        assert scores[split]["accuracy"]["value"] == kept[split]["accuracy"]["value"]


@pytest.mark.slow
def test_the_teachers_scores_are_those_of_its_own_run(trained, distilled):
    before = RunDirectory(trained).record["metrics"]
    found = RunDirectory(distilled[0]).record["distillation"]["scores"]["teacher"]
    assert found["val"]["accuracy"]["value"] == before["val"]["accuracy"]["value"]
    assert found["val"]["nll"] == pytest.approx(before["val"]["nll"], rel=1e-4)


@pytest.mark.slow
def test_it_is_a_run_like_any_other(trained, distilled, tmp_path):
    from tl_keras.workflows.evaluate import evaluate_run, predict_files

    out, _ = distilled
    run, teacher = RunDirectory(out), RunDirectory(trained)
    names = {"model.keras", "run.json", "labels.txt", "history.csv", "split.csv", "report.html"}
    assert names | {"plots"} == {path.name for path in out.iterdir()}
    assert (out / "split.csv").read_text() == (trained / "split.csv").read_text()
    assert run.fact("data", "fingerprint") == teacher.fact("data", "fingerprint")
    scores = evaluate_run(out, None, "test", lambda *_: None)
    assert scores["accuracy"]["value"] == run.record["metrics"]["test"]["accuracy"]["value"]
    picture = next((trained.parent / "photos" / NAMES[0]).glob("*.png"))
    assert len(predict_files(run.path, [picture], 3, lambda *_: None)[0]["outputs"]) == 3


@pytest.mark.slow
def test_the_saved_student_ends_in_a_softmax_and_has_nothing_of_the_distillation(distilled):
    import keras

    model = keras.saving.load_model(distilled[0] / "model.keras")
    sums = np.asarray(model(np.full((2, 16, 16, 3), 128, np.float32))).sum(1)
    assert sums == pytest.approx(np.ones(2), abs=1e-6)
    assert len(model.layers) == len(small_model(dropout=0.2).layers)


def test_a_student_by_name_from_a_teacher_in_a_file(trained, tmp_path):
    asked = request(
        trained / "model.keras", "small_resnet", data=str(tmp_path / "photos"), weights="none",
        plan="probe", epochs=(1,), baseline=False,
    )  # fmt: skip
    draw_folder(tmp_path / "photos")
    run = distill(asked, tmp_path / "run")
    facts = run.record["distillation"]
    assert run.complete
    assert (facts["kept"], facts["clear"]) == ("distilled", None)
    assert list(facts["scores"]) == ["teacher", "distilled"]
    assert run.fact("config", "model", "backbone") == "small_resnet"
    assert run.fact("size") == 16


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_distillation_stopped_anywhere_ends_with_the_same_bits(trained, student, tmp_path):
    asked = request(trained, student, settings={"views": 2, "augment": "affine"})
    whole = distill(asked, tmp_path / "whole")
    for task in ("teacher, view 2 of 2", "alone: stage all", "distilled: stage all"):

        def progress(name, done, total, task=task):
            if name == task:
                raise KilledError

        with pytest.raises(KilledError):
            distill(asked, tmp_path / "stopped", progress=progress)
        with pytest.raises(RunError, match="the same command ends it"):
            resume(tmp_path / "stopped")
    with pytest.raises(RunError, match="student.*then.*'other.keras' now"):
        distill(request(trained, "other.keras"), tmp_path / "stopped")
    again = distill(asked, tmp_path / "stopped")
    for left, right in zip(whole.model().get_weights(), again.model().get_weights(), strict=True):
        assert (left == right).all()
    assert not again.state.exists()


@pytest.mark.slow
def test_a_student_that_learned_by_lora_is_handed_on_without_its_branches(trained, tmp_path):
    from tl_keras.models.build import build_model

    build_model("small_resnet", 3, size=16, weights=None).save(tmp_path / "student.keras")
    student = tmp_path / "student.keras"
    asked = request(trained, student, plan="lora", epochs=(1, 1), baseline=False)
    run = distill(asked, tmp_path / "run")
    names = [layer.name for layer in run.model().layers]
    assert not [name for name in names if "lora" in name]
    assert (run.path / "adapter.npz").exists()


MISTAKES = [
    (["--student", "mobilnet_v2"], "the nearest are: mobilenet_v2"),
    (["--loss", "kdd"], "Unknown loss 'kdd'"),
    (["--temperature", 0], "not in its range, above 0"),
    (["--plan", "lp-fy"], "Did you mean lp-ft"),
    (["--plan", "auto"], "got auto; give --plan lp-ft"),
    (["--plan", "probe", "--loss", "kd+features"], "trains the head alone"),
    (["--epochs", "²"], "not whole numbers"),
    (["--loss", "features", "--features", "relu9:block1_relu"], "The teacher has no layer 'relu9'"),
    (["--loss", "kd", "--features", "a:b"], "use the loss 'kd+features'"),
    (["--loss", "features", "--features", "a:"], None),
    (["--data", "nowhere"], "nowhere"),
    (["--soup"], "several runs"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[str(m[0][-1]) for m in MISTAKES])
def test_a_mistake_is_told_and_nothing_is_left(trained, student, tmp_path, words, said):
    given = words if "--student" in words else ["--student", student, *words]
    result, text = invoke(trained, "--out", tmp_path / "run", *given)
    assert result.exit_code == 2, result.output
    assert (said or "no layer 'a'") in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_classes_is_refused(trained, tmp_path):
    small_model(outputs=5).save(tmp_path / "five.keras")
    words = ["--student", tmp_path / "five.keras", "--out", tmp_path / "run"]
    result, text = invoke(trained, *words)
    assert result.exit_code == 2
    assert "The student has 5 outputs and the data 3 classes" in text
    draw_folder(tmp_path / "photos", ("a", "b"))
    words = ["--student", "small_resnet", "--out", tmp_path / "run", "--data", tmp_path / "photos"]
    result, text = invoke(trained / "model.keras", *words)
    assert result.exit_code == 2
    assert "The teacher has 3 outputs and the data 2 classes" in text
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_logits_is_refused_before_anything_is_written(student, tmp_path):
    import keras

    model = small_model()
    last = keras.layers.Activation("sigmoid")(model.get_layer("head_logits").output)
    keras.Model(model.inputs, last).save(tmp_path / "tags.keras")
    draw_folder(tmp_path / "photos")
    words = ["--student", student, "--out", tmp_path / "run", "--data", tmp_path / "photos"]
    result, text = invoke(tmp_path / "tags.keras", *words)
    assert result.exit_code == 2
    assert "leaves no logits to learn from; give a model that ends in a softmax" in text
    result, text = invoke(tmp_path / "tags.keras", *words[:4])
    assert (result.exit_code, "say which with --data FOLDER" in text) == (2, True)
    assert not (tmp_path / "run").exists()


def test_an_unfinished_teacher_and_a_folder_that_exists_are_refused(trained, student, tmp_path):
    copied = shutil.copytree(trained, tmp_path / "teacher")
    record = json.loads((copied / "run.json").read_text(encoding="utf-8"))
    (copied / "run.json").write_text(json.dumps({**record, "state": "incomplete"}))
    result, text = invoke(copied, "--student", student, "--out", tmp_path / "run")
    assert (result.exit_code, "is not complete; finish it with" in text) == (2, True)
    result, text = invoke(trained, "--student", student, "--out", copied)
    assert (result.exit_code, "exists already and was not changed" in text) == (2, True)


def test_pictures_that_moved_are_asked_for_and_taken_where_they_are(trained, student, tmp_path):
    copied = shutil.copytree(trained, tmp_path / "teacher")
    record = json.loads((copied / "run.json").read_text(encoding="utf-8"))
    gone = {**record, "data": {**record["data"], "root": str(tmp_path / "gone")}}
    (copied / "run.json").write_text(json.dumps(gone))
    words = [copied, "--student", student, "--out", tmp_path / "run"]
    result, text = invoke(*words)
    assert result.exit_code == 2
    assert f"samples were at {tmp_path / 'gone'}, where nothing is now" in text
    assert "give --data" in text
    # Found again, they are not what stops it any more: an unknown layer is.
    moved = trained.parent / "photos"
    result, text = invoke(*words, "--data", moved, "--loss", "features", "--features", "x:y")
    assert (result.exit_code, "The teacher has no layer 'x'" in text) == (2, True)


def test_the_better_student_is_the_more_accurate_then_the_surer_one():
    labels = np.eye(2)[[0, 1] * 20]
    good, sure = labels * 0.6 + 0.2, labels * 0.9 + 0.05
    bad = good.copy()
    bad[:12] = bad[:12, ::-1]
    verdict = choose_student(bad, good, labels)
    assert (verdict["kept"], verdict["clear"]) == ("distilled", True)
    assert "Distilled 100.0 %, alone 70.0 % of 40 validation samples" in verdict["why"]
    assert choose_student(good, bad, labels)["kept"] == "alone"
    verdict = choose_student(sure, good, labels)
    assert verdict["kept"] == "alone"
    assert "loss 0.223 and 0.051" in verdict["why"]
    three, two = good.copy(), good.copy()
    three[:3], two[3:5] = good[:3, ::-1], good[3:5, ::-1]
    verdict = choose_student(three, two, labels)
    assert (verdict["kept"], verdict["clear"]) == ("distilled", False)


@pytest.mark.slow
def test_the_report_shows_teacher_and_students_side_by_side(distilled):
    page = (distilled[0] / "report.html").read_text(encoding="utf-8")
    facts = RunDirectory(distilled[0]).record["distillation"]
    assert "What the teacher gave" in page
    assert facts["why"] in page
    assert f"{facts['teacher']['name']}</bdi> has" in page or facts["teacher"]["name"] in page
    assert page.count("(this run)") == 1
