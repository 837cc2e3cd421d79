"""What is stopped, stops, and leaves nothing: Ctrl-C, SIGTERM, a full disk."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import tempfile

import pytest
from export_models import small_model
from test_export_cli import finished, flat, invoke, run  # noqa: F401
from typer.testing import CliRunner

from export import pipeline as stage
from export.cli.app import app
from tl_keras.utils.interrupt import stoppable

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def heed_ctrl_c():
    """A process that a shell put in the background ignores Ctrl-C from its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_swallowed_stops_the_next_step(number):
    before, seen = signal.getsignal(number), []
    with stoppable() as stopping:
        progress = stopping(lambda *step: seen.append(step))
        progress("one", 0, 1)
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            progress("two", 0, 1)
    assert seen == [("one", 0, 1)]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_an_export_that_is_stopped_while_converting_leaves_nothing(
    run, tmp_path, monkeypatch, number  # noqa: F811
):  # fmt: skip
    def convert(source, model):
        with contextlib.suppress(KeyboardInterrupt):  # as TensorFlow's converter may
            os.kill(os.getpid(), number)
        return stage.tflite.convert(model)

    broken = dataclasses.replace(stage.FORMATS["tflite"], convert=convert)
    monkeypatch.setitem(stage.FORMATS, "tflite", broken)
    place = tmp_path / "place"
    place.mkdir()
    result = invoke(run, "--to", "tflite", "--out", place / "out")
    assert result.exit_code == 130
    assert "Nothing was written" in flat(result.stderr)
    assert list(place.iterdir()) == []


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_zip_that_cannot_be_unpacked_says_where_and_what_helps(toys, tmp_path, monkeypatch):
    from bundle_models import FACTS

    from export.bundle.write import write_bundle

    out = write_bundle(*toys, tmp_path / "toy.zip", default="tflite-fp32", facts=FACTS)
    monkeypatch.setattr("export.bundle.read._check_stream", full)
    result = invoke("check", out)
    assert result.exit_code == 2
    said = flat(result.stderr)
    assert tempfile.gettempdir() in said and "TMPDIR" in said


def test_a_student_that_cannot_be_begun_leaves_no_half_of_a_run(trained, tmp_path, monkeypatch):
    student = tmp_path / "student.keras"
    small_model(size=16).save(student)
    monkeypatch.setattr("tl_keras.runs.lifecycle.save_model", full)
    words = ["distill", trained, "--student", student, "--out", tmp_path / "run"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2, result.output
    assert "disk is full" in result.stderr
    assert not (tmp_path / "run").exists()


def test_compression_asks_for_its_place_before_it_trains(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("export.compress.run.compress", lambda *args: pytest.fail("it trained"))
    (tmp_path / "file").write_text("")
    words = [trained, "--method", "prune", "--out", tmp_path / "file/out"]
    result = invoke("compress", *words)
    assert result.exit_code == 2, result.output
    assert "cannot be written" in flat(result.stderr)
