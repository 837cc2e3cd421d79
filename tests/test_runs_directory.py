from __future__ import annotations

import json
import shutil

import pytest

from tl_keras.errors import DataError, RunError
from tl_keras.runs.directory import SCHEMA, RunDirectory, refuse_existing


def make(path, **facts):
    return RunDirectory.create(path / "run", {"state": "incomplete", **facts})


def test_a_record_comes_back_as_it_was_written(tmp_path):
    run = make(tmp_path, classes=["红色 花", "a\udce9"], nested={"a": [1, None]})
    run.update(more=0.5)
    again = RunDirectory(run.path)
    assert again.record == run.record
    assert again.record["classes"] == ["红色 花", "a\udce9"]
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_labels_are_one_line_each_whatever_the_names(tmp_path):
    run = make(tmp_path)
    run.write_labels(("红色 花", "two\nlines", "[b] & <i>"))
    lines = (run.path / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["红色 花", "two lines", "[b] & <i>"]


def test_history_comes_back_row_by_row(tmp_path):
    run = make(tmp_path)
    run.write_history([{"stage": "head", "epoch": 0, "loss": 0.5, "unknown": 1}])
    assert run.history()[0]["stage"] == "head"
    assert "unknown" not in run.history()[0]


def test_an_older_history_has_its_rates_under_the_name_of_today(tmp_path):
    run = make(tmp_path)
    (run.path / "history.csv").write_text("stage,epoch,rate,loss\nhead,0,0.003,0.5\n")
    assert run.history()[0]["learning_rate"] == "0.003"


def test_a_finished_run_keeps_nothing_for_resuming(tmp_path):
    run = make(tmp_path)
    run.state.mkdir()
    run.finish()
    assert run.complete
    assert not run.state.exists()


def broken(name):
    def harm(run):
        (run / name).unlink()

    return harm


def write(name, text):
    return lambda run: (run / name).write_text(text)


HARMS = {
    "gone": (shutil.rmtree, "does not exist"),
    "no record": (broken("run.json"), "has no run.json"),
    "half a record": (write("run.json", '{"schema": 1, "sta'), "does not read"),
    "no record of a run": (write("run.json", "[]"), "is no record of a run"),
    "newer": (write("run.json", json.dumps({"schema": SCHEMA + 1})), "update tl_keras"),
    "thin": (write("run.json", '{"schema": 1, "state": "complete"}'), "lacks data.root"),
    "no model": (broken("model.keras"), "no such file"),
    "half a model": (write("model.keras", "PK"), "damaged or cut short"),
    "no splits": (broken("split.csv"), "does not read"),
    "other columns": (write("split.csv", "a,b\n1,2\n"), "lacks key or split"),
    "half a line": (write("split.csv", "key,split\n1\n"), "lacks key or split"),
}


@pytest.mark.parametrize(("harm", "message"), HARMS.values(), ids=HARMS)
def test_a_run_that_is_not_whole_says_what_is_wrong(trained, tmp_path, harm, message):
    path = shutil.copytree(trained, tmp_path / "run")
    harm(path)
    with pytest.raises(RunError, match=message):
        run = RunDirectory(path)
        run.splits()
        run.model()


def test_a_run_that_is_not_complete_gives_no_model_but_the_way_to_one(tmp_path):
    with pytest.raises(RunError, match="tl-keras resume"):
        make(tmp_path).model()


def test_a_picture_that_is_gone_is_named(trained, tmp_path):
    photos = shutil.copytree(trained.parent / "photos", tmp_path / "photos")
    lost = sorted(photos.rglob("3.png"))[0]
    lost.unlink()
    with pytest.raises(DataError, match=lost.name):
        RunDirectory(trained).splits(photos)


def test_a_split_that_a_run_lacks_is_refused(trained):
    assert len(RunDirectory(trained).samples("test"))
    with pytest.raises(DataError, match="no holdout split"):
        RunDirectory(trained).samples("holdout")


def test_a_new_run_goes_only_where_nothing_is(tmp_path):
    refuse_existing(tmp_path / "new" / "deep")
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match="--out"):
            refuse_existing(taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
