from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from export_models import pictures, small_model

from export import stage
from export.errors import ExportError, ParityError
from export.runtimes import load
from tl_keras.errors import StorageError


@pytest.fixture(scope="module")
def source():
    keys = tuple(f"cats/{index}.jpg" for index in range(20))
    return stage.Source(small_model(), ("a", "b", "c d"), pictures(20), keys, name="toy")


@pytest.fixture(scope="module")
def shipped(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy" / "export"
    return out, stage.export(source, ["tflite", "onnx"], out)


def break_format(monkeypatch, name, convert):
    broken = dataclasses.replace(stage.FORMATS[name], convert=convert)
    monkeypatch.setitem(stage.FORMATS, name, broken)


def convert_another_model(source):
    """A faithful conversion, of a model with other weights."""
    import keras

    other = keras.models.clone_model(source.model)
    other.set_weights([-weight for weight in source.model.get_weights()])
    return stage.tflite.convert(other)


def test_both_formats_leave_with_labels_and_record_and_nothing_else(shipped):
    out, made = shipped
    names = ["export.json", "labels.txt", "model.onnx", "model.tflite"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == ["export"]
    assert (out / "labels.txt").read_text() == "a\nb\nc d\n"
    assert [artifact.format for artifact in made] == ["tflite", "onnx"]


def test_the_record_describes_the_very_files_that_lie_beside_it(shipped, source):
    out, _ = shipped
    record = json.loads((out / "export.json").read_text())
    assert (record["schema"], record["name"], record["classes"][2]) == (1, "toy", "c d")
    for facts in record["artifacts"]:
        contents = (out / facts["file"]).read_bytes()
        assert facts["sha256"] == hashlib.sha256(contents).hexdigest()
        assert facts["bytes"] == len(contents)
        assert facts["comparison"]["labels_equal"] == facts["comparison"]["pictures"] == 20
        assert facts["comparison"]["max_difference"] <= facts["comparison"]["tolerance"]


def test_the_recorded_difference_is_that_of_the_shipped_file(shipped, source):
    out, made = shipped
    truth = source.model.predict(source.pictures.astype("float32"), verbose=0)
    for artifact in made:
        difference = np.abs(load(out / artifact.file).predict(source.pictures) - truth).max()
        assert artifact.comparison.max_difference == pytest.approx(difference, abs=1e-6)


def test_an_artifact_with_other_answers_fails_loudly_and_nothing_is_left(
    source, monkeypatch, tmp_path
):
    break_format(monkeypatch, "tflite", convert_another_model)
    with pytest.raises(ParityError, match=r"model\.tflite does not give .* cats/\d+\.jpg"):
        stage.export(source, ["onnx", "tflite"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_survives_a_failure(source, monkeypatch, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.tflite").write_bytes(b"the last good one")
    break_format(monkeypatch, "tflite", convert_another_model)
    with pytest.raises(ParityError):
        stage.export(source, ["tflite"], out, force=True)
    assert [path.name for path in out.iterdir()] == ["model.tflite"]
    assert (out / "model.tflite").read_bytes() == b"the last good one"


def test_a_file_that_no_runtime_reads_is_not_shipped(source, monkeypatch, tmp_path):
    break_format(monkeypatch, "onnx", lambda source: b"cut short")
    with pytest.raises(ExportError, match="cannot be loaded by ONNX Runtime"):
        stage.export(source, ["onnx"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_by_force(source, tmp_path):
    (tmp_path / "labels.txt").write_text("mine\n")
    with pytest.raises(ExportError, match=r"holds labels\.txt already.*--force"):
        stage.export(source, ["tflite"], tmp_path)
    assert (tmp_path / "labels.txt").read_text() == "mine\n"
    stage.export(source, ["tflite"], tmp_path, force=True)
    assert (tmp_path / "labels.txt").read_text() == "a\nb\nc d\n"


@pytest.mark.parametrize(
    ("formats", "message"), [(["onxx"], "onxx.*tflite, onnx"), ([], "No format")]
)
def test_formats_that_are_unknown_or_missing_are_refused(source, tmp_path, formats, message):
    with pytest.raises(ExportError, match=message):
        stage.export(source, formats, tmp_path / "out")


def test_a_destination_that_cannot_be_made_is_a_storage_error(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--out"):
        stage.export(source, ["tflite"], tmp_path / "file" / "out")


def test_a_label_with_a_line_break_stays_on_one_line(source, tmp_path):
    odd = dataclasses.replace(source, class_names=("a\nb", "c", "d"))
    stage.export(odd, ["tflite"], tmp_path / "out")
    assert (tmp_path / "out" / "labels.txt").read_text() == "a b\nc\nd\n"


def test_progress_names_each_step_and_reaches_its_end(source, tmp_path):
    seen = []
    stage.export(source, ["tflite"], tmp_path / "out", progress=lambda *step: seen.append(step))
    words = list(dict.fromkeys(word for word, _, _ in seen))
    assert words == ["asking Keras", "converting to tflite", "asking model.tflite"]
    assert seen[-1] == ("asking model.tflite", 20, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("a", "b")}, "3 outputs and 2 class names"),
        ({"pictures": np.zeros((20, 8, 8, 3), np.uint8)}, r"\(20, 8, 8, 3\).*\(16, 16, 3\)"),
        ({"keys": ("one",)}, "1 keys"),
        ({"pictures": np.zeros((0, 16, 16, 3), np.uint8), "keys": ()}, "no picture"),
    ],
)
def test_a_source_whose_parts_do_not_belong_together_is_refused(source, change, message):
    with pytest.raises(ExportError, match=message):
        dataclasses.replace(source, **change)
