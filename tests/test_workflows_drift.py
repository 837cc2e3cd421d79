from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import NAMES, draw_folder
from PIL import Image
from typer.testing import CliRunner

from tl_keras.cli.app import app
from tl_keras.reports.drift_report import headline
from tl_keras.runs.directory import RunDirectory

runner = CliRunner()


def call(*words):
    return runner.invoke(app, ["drift", *map(str, words)])


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def darker(tmp_path):
    """The same kind of pictures, at a third of their light."""
    root = draw_folder(tmp_path / "darker", count=14, seed=5)
    for file in root.rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(file)) * 0.3).astype(np.uint8)).save(file)
    return root


def facts_of(folder):
    return json.loads((folder / "drift.json").read_text())


def test_darker_pictures_are_a_shift_and_the_page_shows_it(run, darker):
    before = (run / "run.json").read_bytes()
    done = call(run, darker)
    assert done.exit_code == 0, done.output
    facts = facts_of(run / "drift")
    assert facts["shifted"] and facts["mmd"]["p_value"] < 0.01
    assert facts["accuracy"]["true"] is not None
    page = (run / "drift" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == 13
    assert "--remedy batchnorm" in page
    assert "p = 0.001" in done.output or "p < 0.001" in done.output
    assert (run / "run.json").read_bytes() == before


def test_bad_images_are_all_named_or_skipped(run, darker):
    for name in NAMES[:2]:
        (darker / name / "bad.png").write_text("text")
    done = call(run, darker)
    assert done.exit_code == 2
    assert "2 of 44" in done.stderr and done.stderr.count("bad.png") == 2
    assert call(run, darker, "--skip-bad").exit_code == 0
    assert facts_of(run / "drift")["pictures"]["new"] == 42


@pytest.mark.parametrize(
    ("shifted", "true", "said"),
    [
        (True, 0.6, "(p = 0.02); 30 points of accuracy are lost."),
        (True, None, "(p = 0.02); an estimated 20 points of accuracy are lost."),
        (True, 0.95, "(p = 0.02); the accuracy holds."),
        (False, 0.6, "new ones are classified correctly, of the known ones 90.0\u202f%."),
        (False, None, "No shift that chance would not explain (p = 0.02)."),
    ],
)
def test_the_headline_tells_the_true_accuracy_where_there_is_one(shifted, true, said):
    accuracy = {"reference": 0.9, "estimated": {"value": 0.7}, "true": true}
    facts = {"shifted": shifted, "mmd": {"p_value": 0.02}, "accuracy": accuracy}
    assert headline(facts).endswith(said)


def test_pictures_of_the_same_kind_are_none(run, tmp_path):
    same = draw_folder(tmp_path / "same", count=14, seed=9)
    done = call(run, same, "--out", tmp_path / "told")
    assert done.exit_code == 0, done.output
    assert facts_of(tmp_path / "told")["mmd"]["p_value"] > 0.05
    assert "No shift that chance would not explain" in done.output
    assert not (run / "drift").exists()


def test_pictures_that_nobody_labelled_get_an_estimate_and_a_word_about_it(run, darker, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted(darker.rglob("*.png"))):
        shutil.copy(file, flat / f"{number}.png")
    done = call(run, flat)
    assert done.exit_code == 0, done.output
    assert "No true accuracy" in done.output
    accuracy = facts_of(run / "drift")["accuracy"]
    assert accuracy["true"] is None
    assert 0 <= accuracy["estimated"]["value"] <= 1


def test_other_classes_are_told_and_the_rest_goes_on(run, darker):
    (darker / NAMES[0]).rename(darker / "yellow")
    done = call(run, darker)
    assert done.exit_code == 0, done.output
    assert "classes that the run does not know, yellow" in " ".join(done.output.split())


def test_three_pictures_are_too_few_and_nothing_is_written(run, tmp_path):
    few = draw_folder(tmp_path / "few", count=1)
    done = call(run, few)
    assert done.exit_code == 2
    assert "holds 3 pictures" in done.output and "at least 10" in done.output
    assert not (run / "drift").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--corrupt", "blurr:3"], "Did you mean blur"),
        (["--corrupt", "blur:9"], "expected 1 to 5"),
        ([], "either other pictures or --corrupt"),
        (["nowhere"], "No data at 'nowhere'"),
        (["--corrupt", "blur", "--remedy", "lp-ft"], "give OTHER"),
        (["nowhere", "--remedy", "lpft"], "Did you mean lp-ft"),
        (["nowhere", "--to", "new"], "give --remedy, or leave it out"),
        (["nowhere", "--remedy", "lp-ft", "--to", "new", "--out", "new"], "cannot hold both"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(run, words, said):
    done = call(run, *words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert {path.name for path in run.parent.iterdir()} == {"run"}
    assert not (run / "drift").exists()


def test_a_report_replaces_its_like_and_nothing_else(run, darker, tmp_path):
    report = run / "report.html"
    before = report.read_bytes()
    done = call(run, darker, "--out", run)
    assert done.exit_code == 2 and "choose another --out" in " ".join(done.output.split())
    assert report.read_bytes() == before and not (run / "drift.json").exists()
    for _ in range(2):
        assert call(run, darker, "--out", tmp_path / "told").exit_code == 0


def test_an_unfinished_run_is_refused_with_the_way_on(run, darker):
    RunDirectory(run).update(state="incomplete")
    done = call(run, darker)
    assert done.exit_code == 2
    assert "tl-keras resume" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("remedy", ["batchnorm", "first-block", "lp-ft"])
def test_a_remedy_writes_a_new_run_and_says_before_and_after(run, darker, remedy):
    kept = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    done = call(run, darker, "--remedy", remedy)
    assert done.exit_code == 0, done.output
    made = RunDirectory(run.with_name(f"run-{remedy}"))
    facts = made.record["remedy"]
    assert made.complete and facts["name"] == remedy
    assert {"before", "after", "change", "pictures"} == facts["new"].keys()
    assert facts["new"]["pictures"] == made.record["data"]["pictures"]["test"]
    assert facts["new"]["after"] == made.record["metrics"]["test"]["accuracy"]["value"]
    assert facts_of(run / "drift")["remedy"] == facts
    assert kept == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    changed = {
        one.path for one, old in zip(made.model().weights, RunDirectory(run).model().weights)
        if not np.array_equal(one.numpy(), old.numpy())
    }  # fmt: skip
    moving = {path for path in changed if "moving" in path}
    assert (changed == moving != set()) if remedy == "batchnorm" else not moving
    if remedy == "first-block":
        assert all(path.startswith(("stem", "stage1")) for path in changed)


def test_without_labels_batchnorm_can_be_had_and_lp_ft_cannot(run, darker):
    (darker / NAMES[0]).rename(darker / "yellow")
    done = call(run, darker, "--remedy", "lp-ft")
    assert done.exit_code == 2
    assert "Without labels there is --remedy batchnorm" in " ".join(done.output.split())
    assert {path.name for path in run.parent.iterdir()} == {"run", "darker"}
    done = call(run, darker, "--remedy", "batchnorm")
    assert done.exit_code == 0, done.output
    facts = RunDirectory(run.with_name("run-batchnorm")).record["remedy"]
    assert "new" not in facts and "known" in facts


def test_a_remedys_run_that_exists_is_refused_before_anything_is_done(run, darker):
    done = call(run, darker, "--remedy", "batchnorm", "--to", darker)
    assert done.exit_code == 2
    assert not (run / "drift").exists()
