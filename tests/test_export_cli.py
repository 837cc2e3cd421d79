from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from export_models import settle, small_model
from typer.testing import CliRunner

from export import pipeline as stage
from export.cli.app import app
from tl_keras.data.builtin import builtin
from tl_keras.data.splits import split
from tl_keras.modalities.image.reader import ImageReader
from tl_keras.runs.directory import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on digits whose model was never trained, but answers differently."""
    samples = builtin("digits")
    splits = split(samples)
    facts = {"root": "builtin:digits", "task": "classes"}
    record = {"state": "incomplete", "data": facts, "classes": list(samples.class_names)}
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / "digits", record)
    model = small_model(outputs=len(samples.class_names))
    settle(model, ImageReader(splits.train, 16).images(range(16), 0))
    model.save(run.path / "model.keras")
    run.write_split(splits)
    run.write_labels(samples.class_names)
    run.finish()
    return run.path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "digits")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text):
    return " ".join(text.split())


def test_a_finished_run_leaves_as_a_bundle_with_a_closing_table(run):
    result = invoke(run, "--quantize", "fp16,dynamic_int4", "--max-drop", 0.5)
    assert result.exit_code == 0, result.output
    models = {path.name for path in (run / "export" / "models").iterdir()}
    float_, half = (
        {"tflite-fp32.tflite", "onnx-fp32.onnx"},
        {"tflite-fp16.tflite", "onnx-fp16.onnx"},
    )
    assert models == {*float_, *half, "tflite-dynamic_int4.tflite"}
    splits = RunDirectory(run).splits()
    test, val = len(splits.test), len(splits.val)
    assert result.stdout.count(f"{test} of {test}") >= 2
    said = f"figures: {test} test images; quantized files were chosen by {val} validation images"
    assert said in flat(result.stdout)
    for heading in ("size", "accuracy", "drop", "labels equal", "ms"):
        assert heading in result.stdout
    assert "onnx has no recipe dynamic_int4: skipped." in flat(result.stdout)
    assert (run / "export" / "labels.txt").read_text() == (run / "labels.txt").read_text()


def test_images_without_labels_decide_where_they_are_given(run, tmp_path):
    from PIL import Image

    shown = tmp_path / "shown"
    shown.mkdir()
    for index, image in enumerate(builtin("digits").items[:9]):
        Image.fromarray(np.repeat(image[..., :1], 3, -1)).save(shown / f"{index}.png")
    words = ("--to", "tflite", "--quantize", "fp16", "--samples", 20, "--max-drop", 0.5)
    result = invoke(run, *words, "--unlabeled", shown, "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    said = "20 validation images and 9 unlabeled images and 20 training images"
    assert said in flat(result.stdout)
    assert invoke(run, "--unlabeled", shown).exit_code == 2, "nothing is decided"


def test_formats_and_a_zip_can_be_chosen(run, tmp_path):
    result = invoke(run, "--to", "onnx", "--out", tmp_path / "out.zip", "--samples", 3)
    assert result.exit_code == 0, result.output
    names = zipfile.ZipFile(tmp_path / "out.zip").namelist()
    assert [name for name in names if name.startswith("models/")] == ["models/onnx-fp32.onnx"]
    assert not (run / "export").exists()


def test_an_artifact_that_differs_gives_exit_code_3_and_no_file(run, monkeypatch):
    def convert(source, model):
        model.set_weights([-weight for weight in model.get_weights()])
        return stage.onnx.convert(model)

    broken = dataclasses.replace(stage.FORMATS["onnx"], convert=convert)
    monkeypatch.setitem(stage.FORMATS, "onnx", broken)
    before = sorted(run.iterdir())
    result = invoke(run, "--to", "onnx", "--samples", 5)
    assert result.exit_code == 3
    assert "model.onnx does not give the answers of the Keras model" in flat(result.stderr)
    assert sorted(run.iterdir()) == before


def edit(run, **facts):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **facts}))


MISTAKES = {
    "missing": (lambda run: shutil.rmtree(run), "does not exist"),
    "no record": (lambda run: (run / "run.json").unlink(), "has no run.json"),
    "half a record": (lambda run: (run / "run.json").write_text('{"sta'), "does not read"),
    "not complete": (lambda run: edit(run, state="incomplete"), "tl-keras resume"),
    "too new": (lambda run: edit(run, schema=99), "update tl_keras"),
    "no model": (lambda run: (run / "model.keras").unlink(), "does not load"),
    "cut model": (lambda run: (run / "model.keras").write_bytes(b"PK\3\4x"), "does not load"),
    "data moved": (
        lambda run: edit(run, data={"root": "/nowhere/at/all", "task": "classes"}),
        "/nowhere/at/all",
    ),
    "exported": (lambda run: (run / "export").mkdir(), "--force"),
}


@pytest.mark.parametrize(("harm", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gives_one_clear_message_and_exit_code_2(run, harm, message):
    harm(run)
    before = sorted(run.rglob("*"))
    result = invoke(run)
    assert result.exit_code == 2, result.output
    assert message in flat(result.stderr)
    assert "Traceback" not in result.stderr
    assert sorted(run.rglob("*")) == before


def test_an_unknown_format_is_refused_with_those_that_there_are(run):
    result = invoke(run, "--to", "coreml")
    assert result.exit_code == 2
    assert "coreml" in result.stderr
    assert "tflite, onnx" in result.stderr


@pytest.mark.parametrize("option", [("--quantize", "int7"), ("--max-drop", "3")])
def test_an_order_that_makes_no_sense_is_refused_before_work(run, option):
    result = invoke(run, *option)
    assert result.exit_code == 2
    assert ("expected" in result.stderr) != ("not in its range" in result.stderr)
    assert not (run / "export").exists()


def test_debug_shows_where_an_error_came_from(run):
    (run / "run.json").unlink()
    result = invoke(run, "--debug")
    assert result.exit_code == 1
    assert "no run.json" in str(result.exception)


@pytest.mark.parametrize("name", ["run", "check", "bench"])
def test_a_run_in_a_folder_called_like_a_command_is_exported(run, tmp_path, monkeypatch, name):
    (tmp_path / name).symlink_to(run, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for words in ([name], ["run", f"./{name}"], ["--", name], [name, "--to", "coreml"]):
        edit(run, state="incomplete")
        result = invoke(*words)
        assert result.exit_code == 2
        assert ("resume" in result.stderr) != ("coreml" in result.stderr), result.output
    # Another word shows that the command is meant.
    assert "has no manifest.json" in flat(invoke("check", run).stderr)


def test_a_first_word_that_is_neither_run_nor_command_gets_the_nearest(tmp_path):
    result = invoke("chekc", tmp_path / "bundle.zip")
    assert result.exit_code == 2
    assert "'chekc' is no command and no run. Did you mean check?" in flat(result.stderr)


@pytest.mark.slow
def test_the_command_says_its_table_and_what_stands_behind_it(run):
    program = "from export.cli.app import main; main()"
    command = [sys.executable, "-c", program, run, "--samples", "4"]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    *table, figures, proof = done.stdout.splitlines()
    assert len(table) <= 7, done.stdout
    assert figures.startswith("figures:") and "--originals none" in proof
