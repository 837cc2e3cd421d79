from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import NAMES, draw_folder
from typer.testing import CliRunner

from tl_keras.cli.app import app
from tl_keras.cli.console import bars, error_boundary
from tl_keras.errors import ParityError, RunError

SMALL = ("--base", "small_resnet", "--weights", "none", "--size", 16)
CALL = [sys.executable, "-c", "from tl_keras.cli.app import main; main()"]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def flat(text):
    return " ".join(text.split())


def child(*words, **options):
    # What silences TensorFlow must come from the command itself.
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    command = [*CALL, *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        # A suite that runs in the background of a shell was told to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **options,
    )  # fmt: skip


def processor_seconds(*words):
    # The processor's time, not the clock's: that depends on who else is at work.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--base" in child(*words).communicate()[0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_there_at_once():
    assert min(processor_seconds("fit", "--help") for _ in range(4)) < 0.2


WRONG = {
    "no folder": (("nowhere",), "nowhere does not exist"),
    "unknown base": (("photos", "--base", "mobilnet_v2"), "nearest are: mobilenet_v2"),
    "size": (("photos", "--base", "inception_v3", "--size", 64), "75 px or more"),
    "plan": (("photos", "--plan", "prob"), "Did you mean probe"),
    "augment": (("photos", "--augment", "flipp"), "Did you mean flip?"),
    "precision": (("photos", "--precision", "half"), "bfloat16"),
    "epochs": (("photos", "--epochs", "a,b"), "whole numbers"),
    "share": (("photos", "--val", 2), "above 0 and below 1"),
    "features": (("photos", *SMALL, "--features", "nolayer"), "no layer 'nolayer'"),
    "dropout": (("photos", "--dropout", 5), "0 to below 1"),
    "scale": (("photos", "--rate", 0), "above 0"),
    "devices": (("photos", "--devices", 64, *SMALL), "--devices"),
    "batch": (("photos", "--batch-size", 0), "--batch-size"),
    "no weights": (("photos", *SMALL, "--weights", "no.h5"), "no such file"),
    "text as weights": (("photos", *SMALL, "--weights", "no_split.csv"), "no HDF5 file"),
    "text as base": (("photos", "--base", "text.keras"), "no saved model"),
    "no column": (("no_label.csv",), "missing or repeated: label"),
    "unknown file": (("no_file.csv",), "line 2: photos/none.png"),
    "comma": (("comma.csv",), "put the label in quotes"),
    "one class": (("photos/one",), "expected two or more"),
    "bad pictures": (("bad", *SMALL), "zero bytes"),
    "out is a file": (("photos", "--out", "text.keras"), "is a file"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    draw_folder(place / "photos", count=6)
    draw_folder(place / "bad", count=6)
    (place / "bad" / NAMES[0] / "x.png").write_bytes(b"")
    (place / "text.keras").write_text("text")
    (place / "no_split.csv").write_text("path,label\n")
    (place / "no_label.csv").write_text("path,class\nphotos/a.png,a\n")
    (place / "no_file.csv").write_text("path,label\nphotos/none.png,a\n")
    (place / "comma.csv").write_text("path,label\nphotos/a.png,a,b\n")
    draw_folder(place / "photos" / NAMES[0] / "deep", ("one",), count=2)
    shutil.move(place / "photos" / NAMES[0] / "deep", place / "one")
    return place


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_gives_one_clear_message_and_leaves_nothing(place, monkeypatch, words, message):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    words = ("one", *words[1:]) if words[0] == "photos/one" else words
    out = () if "--out" in words else ("--out", "run")
    result = invoke("fit", *words, *out)
    assert result.exit_code == 2, result.output
    assert message in flat(result.stderr)
    assert "Traceback" not in result.stderr
    assert sorted(place.rglob("*")) == before


def test_all_bad_pictures_are_listed_at_once(place):
    (place / "bad" / NAMES[1] / "y.jpg").write_text("text")
    result = invoke("check-data", place / "bad")
    assert result.exit_code == 2
    assert "2 of 20 images" in flat(result.stderr)
    assert {"x.png: zero bytes", "y.jpg: no image"} <= {
        text for text in ("x.png: zero bytes", "y.jpg: no image") if text in result.stderr
    }


def test_sound_data_is_counted_and_copies_are_named(trained):
    broken = trained.parent / "photos" / NAMES[0] / "broken.jpg"
    photos = shutil.copytree(trained.parent / "photos", trained.parent / "sound")
    (photos / broken.relative_to(trained.parent / "photos")).unlink()
    result = invoke("check-data", photos)
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in NAMES)
    assert f"the same image: {NAMES[1]}/0.png, {NAMES[1]}/copy.png" in result.stdout
    facts = json.loads(invoke("check-data", photos, "--json").stdout)
    assert facts["duplicates"] == [[f"{NAMES[1]}/0.png", f"{NAMES[1]}/copy.png"]]
    assert sum(facts["classes"]["train"].values()) == facts["images"]["train"] > 0


def test_evaluation_of_a_run_repeats_the_scores_of_its_record(trained, tmp_path):
    result = invoke("evaluate", trained, "--split", "val", "--out", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    recorded = json.loads((trained / "run.json").read_text(encoding="utf-8"))["metrics"]["val"]
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["confusion"] == recorded["confusion"]
    assert scores["nll"] == pytest.approx(recorded["nll"], rel=1e-4)


def test_a_run_without_a_test_split_is_evaluated_on_validation_and_says_so(trained, tmp_path):
    assert json.loads(invoke("evaluate", trained, "--json").stdout)["split"] == "test"
    run = shutil.copytree(trained, tmp_path / "run")
    rows = (run / "split.csv").read_text(encoding="utf-8").splitlines()
    rows = [row for row in rows if ",test" not in row]
    (run / "split.csv").write_text("\n".join(rows), encoding="utf-8")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del record["data"]["pictures"]["test"]
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert "its val split" in flat(invoke("evaluate", run).stdout)
    assert "no test split" in invoke("evaluate", run, "--split", "test").stderr
    other = trained.parent / "photos"
    assert "no val split" in invoke("evaluate", run, "--data", other, "--split", "val").stderr


def test_pictures_of_other_classes_cannot_be_evaluated(trained, tmp_path):
    other = draw_folder(tmp_path / "other", ("cat", NAMES[0]), count=1)
    result = invoke("evaluate", trained, "--data", other)
    assert result.exit_code == 2
    assert "unknown to the run: cat; missing: " in flat(result.stderr)
    assert invoke("evaluate", trained, "--split", "tset").exit_code == 2


def test_predictions_are_json_with_the_classes_names(trained):
    picture = trained.parent / "photos" / NAMES[2] / "0.png"
    result = invoke("predict", trained, picture, "--json", "--top", 2)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["path"] == str(picture)
    values = [output["value"] for output in row["outputs"]]
    assert len(values) == 2 and values == sorted(values, reverse=True)
    assert {output["name"] for output in row["outputs"]} <= set(NAMES)


def test_predictions_are_shown_with_names_as_they_are(trained):
    result = invoke("predict", trained, trained.parent / "photos" / NAMES[2], "--top", 3)
    assert result.exit_code == 0, result.output
    assert "[b]天空" in result.stdout


def test_what_is_no_picture_cannot_be_predicted(trained, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty").mkdir()
    for given, message in (("text.jpg", "no image"), ("empty", "holds no"), ("no", "no file")):
        result = invoke("predict", trained, tmp_path / given)
        assert result.exit_code == 2
        assert message in result.stderr


def test_bases_are_listed_and_a_wrong_word_gets_the_nearest():
    assert "mobilenet_v2" in invoke("bases", "mobilenet").stdout
    result = invoke("bases", "mobilnet")
    assert result.exit_code == 2
    assert "mobilenet" in result.stderr
    (only,) = json.loads(invoke("bases", "vgg16", "--json").stdout)
    assert (only["name"], only["default_size"]) == ("vgg16", 224)


def test_a_rate_is_found_and_drawn(tmp_path):
    words = ("lr-find", "digits", *SMALL, "--steps", 12, "--out", tmp_path / "rates.png")
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    found, command = result.stdout.splitlines()
    (rate,) = re.findall(r"suggested learning rate (\S+);", found)
    assert command.startswith("tl-keras fit digits --base small_resnet --size 16 --weights none")
    # What it says to do is done: no more is missing than the pictures.
    words = [str(tmp_path / "no") if word == "digits" else word for word in command.split()[1:]]
    assert "no does not exist" in flat(invoke(*words).stderr)
    assert float(words[words.index("--learning-rate") + 1]) == pytest.approx(float(rate), rel=0.1)


FAILURES = {
    "a user's mistake": (RunError("no run"), 2, "Error: no run"),
    "an artifact that differs": (ParityError("it differs"), 3, "Error: it differs"),
    "no memory": (MemoryError("no"), 2, "the memory is too small"),
    "a full disk": (OSError(errno.ENOSPC, "No space left", "a/b"), 2, "Error: a/b: No space left"),
    "a fault": (KeyError("x"), 1, "KeyError: 'x'. This is a fault of the program"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "Stopped. All is well."),
}


@pytest.mark.parametrize(("error", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_every_error_becomes_a_line_and_an_exit_code(capsys, error, code, said):
    with pytest.raises(SystemExit) as stop, error_boundary(False, lambda: "All is well."):
        raise error
    captured = capsys.readouterr()
    assert stop.value.code == code
    assert said in captured.err and captured.out == ""
    assert len(captured.err.splitlines()) == 1
    with pytest.raises(SystemExit if code == 130 else type(error)), error_boundary(True):
        raise error


def test_tensorflow_without_memory_is_told_in_a_line(capsys):
    import tensorflow as tf

    with pytest.raises(SystemExit), error_boundary(False):
        tf.zeros((10**6, 10**6, 100))
    assert "the memory is too small" in capsys.readouterr().err


def test_a_stop_that_a_library_swallows_is_told_at_the_next_step(capsys):
    with pytest.raises(SystemExit) as stop, error_boundary(False, lambda: "So."), bars() as told:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        told("work", 1, 2)
        pytest.fail("nothing stopped")
    assert (stop.value.code, capsys.readouterr().err) == (130, "Stopped. So.\n")


@pytest.mark.parametrize("tail", ["| head -1", ">&-", "2>&-", "<&-"])
def test_a_stream_that_nobody_holds_is_no_error(tail):
    command = f"set -o pipefail; {shlex.join(CALL)} bases {tail}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


CASES = {"tags": ("a|b", "a", "b", ""), "values": ("0.5", "1", "-2", "3e1")}


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
def test_tags_and_values_go_the_whole_way(folder, tmp_path, task):
    from export.cli.app import app as export_app

    pictures = sorted(folder.rglob("*.png"))
    rows = [f"{path.relative_to(folder)},{CASES[task][i % 4]}" for i, path in enumerate(pictures)]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    run = tmp_path / "run"
    words = ("fit", table, "--task", task, "--out", run, *SMALL, "--plan", "probe", "--epochs", 1)
    for result in (
        invoke(*words, "--test", 0.2),
        invoke("evaluate", run),
        invoke("evaluate", run, "--data", table),
        invoke("predict", run, folder, "--json"),
        CliRunner().invoke(export_app, [str(run)]),
    ):
        assert result.exit_code == 0, result.output
    record = json.loads((run / "run.json").read_text())
    assert ("thresholds" in record) == (task == "tags")
    if task == "tags":
        changed = {**record, "thresholds": [0.0, 1.0]}
        (run / "run.json").write_text(json.dumps(changed))
        rows = json.loads(invoke("predict", run, folder, "--json").stdout)
        given = {one["name"]: one["given"] for one in rows[0]["outputs"]}
        assert given == {"a": True, "b": False}
        assert "a" in record["classes"] and "(given)" in invoke("predict", run, folder).stdout
        manifest = json.loads((run / "export" / "manifest.json").read_text())
        assert manifest["output"]["thresholds"] == record["thresholds"]
        (run / "run.json").write_text(json.dumps({**record, "thresholds": [0.5]}))
        refused = invoke("predict", run, folder)
        assert refused.exit_code == 2 and "expected 2 numbers" in refused.stderr


@pytest.mark.slow
def test_a_run_says_nothing_but_its_own_and_goes_on_after_ctrl_c(folder, tmp_path):
    run = tmp_path / "my run"
    words = ("fit", folder, "--out", run, *SMALL, "--plan", "lp-ft", "--epochs", "2,30")
    process = child(*words)
    while not (run / "state" / "best.npz").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, said = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert f"Go on with: tl-keras resume '{run}'" in said
    process = child("resume", run)
    output, said = process.communicate()
    assert process.returncode == 0, said
    assert "scores" in output
    strange = [line for line in said.splitlines() if line.strip() and " left " not in line]
    assert not strange
