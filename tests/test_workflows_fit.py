from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import NAMES, draw_folder

from tl_keras.data.sources import load_samples
from tl_keras.data.splits import split
from tl_keras.errors import (
    DataError,
    PlanError,
    RunError,
    StorageError,
    TLKerasError,
    TrainingError,
)
from tl_keras.modalities.image.decode import ImageError
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import prepare
from tl_keras.workflows.fit import resume, train


def quiet(*_):
    pass


def small(data, **more):
    values = {"weights": "none", "plan": "probe", "epochs": (1,), **more}
    return RunConfig.of(str(data), "small_resnet", 16, **values)


def test_a_run_holds_all_that_its_readers_expect(trained):
    names = {"model.keras", "run.json", "labels.txt", "history.csv", "split.csv", "report.html"}
    assert names | {"plots"} == {path.name for path in trained.iterdir()}
    assert (trained / "labels.txt").read_text(encoding="utf-8").splitlines() == sorted(NAMES)
    with open(trained / "history.csv") as handle:
        assert [row["stage"] for row in csv.DictReader(handle)] == ["head", "head", "all"]


def test_the_record_says_what_was_done_with_what(trained):
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    data = record["data"]
    assert record["state"] == "complete"
    assert record["classes"] == sorted(NAMES)
    assert [stage["epochs"] for stage in record["plan"]["stages"]] == [2, 1]
    assert sum(data["pictures"].values()) == 37
    assert {name: sum(count.values()) for name, count in data["counts"].items()} == data["pictures"]
    timings = dict(record["timings"])
    assert timings.pop("total") == pytest.approx(sum(timings.values()), abs=0.05)
    assert {"tensorflow", "keras", "python"} <= record["versions"].keys()
    assert set(record["metrics"]) == {"val", "test"}


def test_what_was_left_out_and_what_is_there_twice_is_recorded(trained):
    data = json.loads((trained / "run.json").read_text(encoding="utf-8"))["data"]
    assert len(data["left_out"]) == 1
    assert data["left_out"][0]["path"].endswith("broken.jpg")
    assert "no image" in data["left_out"][0]["reason"]
    assert [sorted(keys) for keys in data["duplicates"]] == [
        [f"{NAMES[1]}/0.png", f"{NAMES[1]}/copy.png"]
    ]


def test_the_command_and_the_python_api_split_a_folder_alike(folder):
    config = small(folder, test=0.2)
    there, here = prepare(config, quiet).splits, split(load_samples(folder), test=0.2)
    for name in ("train", "val", "test"):
        assert sorted(getattr(there, name).keys) == sorted(getattr(here, name).keys)


def test_copies_of_a_picture_stay_in_one_split(trained):
    with open(trained / "split.csv", encoding="utf-8") as handle:
        splits = {row["key"]: row["split"] for row in csv.DictReader(handle)}
    assert splits[f"{NAMES[1]}/0.png"] == splits[f"{NAMES[1]}/copy.png"]


LOAD_PLAIN = """
import sys
sys.modules["tl_keras"] = None
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False)
pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("float32")
np.save(sys.argv[2], model.predict(pictures, verbose=0))
"""


@pytest.mark.slow
def test_the_saved_model_needs_keras_alone_and_gives_the_same_answers(trained, tmp_path):
    command = [sys.executable, "-c", LOAD_PLAIN, trained / "model.keras", tmp_path / "out.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("float32")
    ours = np.asarray(RunDirectory(trained).model()(pictures))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, atol=1e-6)


def test_the_fingerprint_changes_with_a_pixel_and_not_with_a_date(folder):
    before = prepare(small(folder), quiet).fingerprint
    picture = folder / NAMES[0] / "0.png"
    os.utime(picture, (1, 1))
    assert prepare(small(folder), quiet).fingerprint == before
    shutil.copy(folder / NAMES[0] / "1.png", picture)
    assert prepare(small(folder), quiet).fingerprint != before


@pytest.mark.parametrize(
    ("weights", "plan", "expected"),
    [("none", "", "scratch"), ("default", "", "tuned"), ("none", "probe", "probe")],
)
def test_a_base_without_weights_is_trained_from_scratch_unless_told(weights, plan, expected):
    assert RunConfig.of("x", weights=weights, plan=plan).with_defaults().plan.name == expected


WRONG = {
    "plan": ({"plan": "prob"}, "probe"),
    "augment": ({"settings": {"augment": "flipp"}}, "flip"),
    "setting": ({"settings": {"batchsize": 3}}, "batchsize"),
    "base": ({"backbone": "mobilnet_v2"}, "mobilenet_v2"),
    "size": ({"backbone": "inception_v3", "size": 64}, "75"),
    "dropout": ({"dropout": 5.0}, "0 to below 1"),
    "pooling": ({"pooling": "mean"}, "avg"),
    "shares": ({"val": 0.5, "test": 0.5}, "left to train on"),
    "factor": ({"lr_scale": float("nan")}, "above 0"),
    "learning rate": ({"learning_rate": (0.0,)}, "above 0"),
    "rate of auto": ({"learning_rate": (0.1,), "plan": "auto"}, "lr-scale"),
    "minutes": ({"minutes": float("inf")}, "above 0"),
    "modality": ({"modality": "smell"}, "image"),
    "precision": ({"precision": "half"}, "bfloat16"),
    "task": ({"task": "class"}, "classes, tags, values"),
    "devices": ({"devices": 0}, "1 or more"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused_without_a_look_at_the_data(change, message):
    with pytest.raises(TLKerasError, match=message):
        RunConfig.of(**{"source": "/no/such/folder", **change})


def test_what_the_model_tells_is_refused_before_pictures_are_checked(folder, tmp_path):
    (folder / NAMES[0] / "broken.png").write_bytes(b"")
    with pytest.raises(PlanError, match="2 stages, plan 'probe' has 1: head"):
        train(small(folder, epochs=(1, 1)), tmp_path / "run")
    with pytest.raises(PlanError, match="64 devices asked for"):
        train(small(folder, devices=64), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_left_without_pictures_is_named(folder):
    for picture in (folder / NAMES[0]).iterdir():
        picture.write_bytes(b"")
    with pytest.raises(DataError, match=f"no image of {NAMES[0]} is left"):
        prepare(small(folder, skip_bad=True), quiet)


@pytest.mark.slow
def test_a_full_disk_leaves_a_run_that_resumes(folder, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    job = RunConfig.of(str(folder), "small_resnet", 64, "none", plan="top", epochs=(1, 1))
    try:
        # More than the model takes, less than the features of the second stage.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
        with pytest.raises(StorageError, match="resume the run"):
            train(job, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not RunDirectory(tmp_path / "run").complete
    assert resume(tmp_path / "run").complete


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_whose_pictures_moved_resumes_where_they_are_now(folder, tmp_path):
    def stop(task, done, total):
        if task == "stage head":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(folder), tmp_path / "run", progress=stop)
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="give --data"):
        resume(tmp_path / "run")
    assert resume(tmp_path / "run", data=str(moved)).record["data"]["root"] == str(moved)


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(folder, tmp_path):
    import keras

    with pytest.raises(TLKerasError, match="--lr-scale 1,.*last_good.keras"):
        train(small(folder, epochs=(3,), lr_scale=1e30), tmp_path / "run")
    kept = keras.saving.load_model(tmp_path / "run" / "last_good.keras", compile=False)
    assert all(np.isfinite(weight).all() for weight in kept.get_weights())
    with pytest.raises(RunError, match="would stop again"):
        resume(tmp_path / "run")


def test_a_run_is_not_written_over(trained):
    before = (trained / "run.json").read_bytes()
    with pytest.raises(RunError, match="exists already and was not changed"):
        train(small("digits"), trained)
    assert (trained / "run.json").read_bytes() == before


def test_two_splits_that_share_a_picture_are_refused_or_mended(tmp_path):
    root = draw_folder(tmp_path / "data" / "train", ("a", "b")).parent
    draw_folder(root / "val", ("a", "b"), seed=1)
    shutil.copy(root / "train" / "a" / "0.png", root / "val" / "a" / "copy.png")
    with pytest.raises(DataError, match=r"train/a/0.png \(train: a\) = val/a/copy.png"):
        prepare(small(root), quiet)
    checked = prepare(small(root, skip_bad=True), quiet)
    assert checked.left_out == [{"path": "train/a/0.png", "reason": "shared"}]


def test_12_bit_images_are_read_by_what_the_set_uses_in_the_run_and_ever_after(tmp_path):
    from PIL import Image

    from tl_keras.workflows.evaluate import predict_files

    generator = np.random.default_rng(0)
    for label, top in enumerate((1500, 4096)):
        (tmp_path / "photos" / "ab"[label]).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, top, (16, 16), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / "photos" / "ab"[label] / f"{number}.png")
    run = train(small(tmp_path / "photos"), tmp_path / "run")
    assert run.record["data"]["reading"] == {"levels": {"integer": [0, 4095]}}
    assert "4095 white" in run.record["data"]["notes"][0]
    val = run.samples("val")
    stored = np.asarray(Image.open(val.items[0])).astype(float)
    seen = np.asarray(val.modality.open(val.items[0]))[..., 0]
    assert np.array_equal(seen, np.rint(stored * 255 / 4095))
    model, spec = run.model(), val.modality.specs(run.model())
    expected = model.predict(val.modality.reader(val, spec).read([0])["image"], verbose=0)[0]
    (given,) = predict_files(run.path, [Path(val.items[0])], 2, quiet)
    assert given["outputs"][0]["value"] == pytest.approx(expected.max(), abs=1e-5)


def test_a_second_process_on_a_run_is_refused_and_readers_are_not(folder, tmp_path):
    refused = []

    def stop(task, done, total):
        if task == "stage head":
            with pytest.raises(RunError, match="written by another process"):
                resume(tmp_path / "run")
            refused.append(RunDirectory(tmp_path / "run").record["state"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(folder), tmp_path / "run", progress=stop)
    assert refused == ["incomplete"]
    assert not (tmp_path / "run/lock").exists()


@pytest.fixture
def stopped(folder, tmp_path):
    """A run that was stopped in training, from the folder."""

    def stop(task, done, total):
        if task == "stage head":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(folder, epochs=(1,), plan="probe"), tmp_path / "run", progress=stop)
    return tmp_path / "run"


def test_a_run_goes_on_only_with_the_data_it_began_with(folder, stopped):
    picture = folder / NAMES[0] / "0.png"
    kept = picture.read_bytes()
    shutil.copy(folder / NAMES[0] / "1.png", picture)
    with pytest.raises(RunError, match="0 labels and 1 contents changed, such as: .*0.png"):
        resume(stopped)
    picture.write_bytes(kept)  # another time, the same pixels
    assert resume(stopped).complete


def test_a_run_does_not_go_on_when_the_labels_of_its_table_changed(tmp_path):
    folder = draw_folder(tmp_path / "photos", ("a", "b"))
    files = sorted(str(path) for path in folder.rglob("*.png"))

    def write(names):
        rows = [f"{path},{names[Path(path).parent.name]}" for path in files]
        (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")

    def stop(task, done, total):
        if task == "stage head":
            raise KeyboardInterrupt

    write({"a": "a", "b": "b"})
    with pytest.raises(KeyboardInterrupt):
        train(small(tmp_path / "table.csv"), tmp_path / "run", progress=stop)
    write({"a": "b", "b": "a"})
    with pytest.raises(RunError, match=f"{len(files)} labels and 0 contents changed.* was a"):
        resume(tmp_path / "run")


def test_what_the_machine_cannot_give_is_told_in_one_way(folder, stopped):
    import tensorflow as tf

    run = RunDirectory(stopped)
    told = [
        (MemoryError(), RunError, "memory is too small"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), RunError, "memory"),
        (RuntimeError("std::bad_alloc"), RunError, "memory is too small"),
        (OSError(28, "No space left on device"), StorageError, "disk is full"),
        (tf.errors.UnknownError(None, None, "No space left on device"), StorageError, "full"),
        (ImageError("a.png", "zero bytes"), DataError, "a.png: zero bytes; put it back and res"),
        (TrainingError("the loss is nan."), TrainingError, "nan. Start a new run with --lr-scale"),
    ]
    for error, kind, message in told:
        with pytest.raises(kind, match=message), guard(run):
            raise error
    with pytest.raises(KeyError), guard():
        raise KeyError


def test_a_file_that_vanishes_in_training_is_named_and_the_run_goes_on_with_it(folder, tmp_path):
    picture = folder / NAMES[0] / "0.png"
    kept = picture.read_bytes()

    def lose(task, done, total):
        if task == "stage head":
            for path in folder.rglob("*.png"):
                path.rename(path.with_suffix(".gone"))

    with pytest.raises(DataError, match="put it back and resume"):
        train(small(folder, plan="lp-ft", epochs=(1, 1)), tmp_path / "run", progress=lose)
    for path in folder.rglob("*.gone"):
        path.rename(path.with_suffix(".png"))
    assert picture.read_bytes() == kept and resume(tmp_path / "run").complete
