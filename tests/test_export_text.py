"""Bundles of text models: the tokenizer goes along, and is proven beside the model."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from text_models import NAMES, TEXTS, save_bert_folder, save_gpt2_folder, text_source
from typer.testing import CliRunner

from export.bundle.golden import verify_bundle
from export.bundle.read import read_bundle
from export.cli.app import app
from export.pipeline import ExportConfig, export
from tl_keras.errors import ExportError


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def shipped(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (save_bert_folder if request.param == "bert" else save_gpt2_folder)(folder / "net")
    source = text_source(request.param, folder / "net")
    made = export(source, ExportConfig(("tflite", "onnx"), ("fp16",), fresh=False), folder / "out")
    return source, made, folder / "out"


def test_the_vocabulary_and_the_tokenizer_are_in_the_bundle(shipped):
    source, _, out = shipped
    for name, contents in source.modality.files.items():
        assert (out / name).read_bytes() == contents
    manifest = json.loads((out / "manifest.json").read_bytes())
    step = next(one for one in manifest["steps"] if one["step"] == "tokenize")
    assert step["files"] == sorted(source.modality.files)
    assert {"tokenizer.py", "run.py", *step["files"]} <= {one["path"] for one in manifest["files"]}


def test_texts_are_read_and_answered_to_the_bit(shipped):
    found = verify_bundle(shipped[2])
    assert found.passed and len(found.readings) == 16
    assert all(one.exact for one in found.readings)


def test_the_golden_texts_are_those_of_the_data_set_and_probes(shipped):
    golden = json.loads((shipped[2] / "golden/golden.json").read_bytes())
    own = [one for one in golden["samples"] if not one["proves"]]
    assert len(own) == 8
    for one in own:
        text = TEXTS[int(one["key"].split()[1])]
        assert (shipped[2] / one["original"]).read_text(encoding="utf-8") == text
    probes = {one["proves"] for one in golden["samples"]} - {""}
    assert {"accents and capitals", "the cut to the length", "byte order mark"} <= probes


def test_a_tflite_file_carries_the_vocabulary_that_mediapipe_reads(shipped):
    source, made, out = shipped
    contents = (out / "models/tflite-fp32.tflite").read_bytes()
    names = zipfile.ZipFile(io.BytesIO(contents)).namelist()
    pieces = source.modality.word_pieces
    assert names == ["labels.txt", *(["vocab.txt"] if pieces else [])]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert ("text.TextClassifier" in card) == bool(pieces)
    assert "tokenizer.py" in card and "pillow" not in card and "decode, tokenize, model" in card


def run_program(out, *words):
    command = [sys.executable, "-I", str(out / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_the_program_of_the_bundle_proves_and_answers_by_itself(shipped, tmp_path):
    source, made, out = shipped
    for variant in made:
        model = out / "models" / f"{variant.name}.{variant.format}"
        done = run_program(out, "--check", "--model", str(model))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "16 of 16 whole files" in done.stdout
    assert verify_bundle(out).passed  # it left nothing behind
    (tmp_path / "a.txt").write_text(TEXTS[4], encoding="utf-8")
    done = run_program(out, "--json", str(tmp_path / "a.txt"), "--text", TEXTS[5])
    given = [json.loads(line)["scores"] for line in done.stdout.splitlines()]
    truth = source.model.predict(source.inputs["token_ids"][4:6], verbose=0)
    np.testing.assert_allclose(given, truth, atol=0.01)


def test_the_step_that_differs_is_named(shipped, tmp_path):
    out = shutil.copytree(shipped[2], tmp_path / "out")
    program = (out / "tokenizer.py").read_text(encoding="utf-8")
    (out / "tokenizer.py").write_text(
        program.replace("start = 0\n", "start, text = 0, text.lstrip('aW')\n", 1), encoding="utf-8")
    done = run_program(out, "--check")
    assert done.returncode == 3 and "the step tokenize DIFFERS" in done.stdout
    (out / "originals/00.txt").write_text("other", encoding="utf-8")
    said = run_program(out, "--check").stdout
    assert "originals/00.txt (text 0): the step decode DIFFERS" in said


def test_predict_reads_texts_as_training_did(shipped, tmp_path):
    source, _, out = shipped
    (tmp_path / "a.txt").write_text(TEXTS[2], encoding="utf-8")
    with read_bundle(out) as found:
        ids = found.read_samples([tmp_path / "a.txt"])["token_ids"]
    np.testing.assert_array_equal(ids[0], source.inputs["token_ids"][2])
    done = CliRunner().invoke(app, ["predict", str(out), str(tmp_path / "a.txt")])
    assert done.exit_code == 0 and any(name in done.stdout for name in NAMES)


def test_nothing_of_the_data_set_goes_along_where_it_is_asked_to_stay(shipped, tmp_path):
    import dataclasses

    source = dataclasses.replace(shipped[0], originals="none")
    export(source, ExportConfig(("onnx",), fresh=False), tmp_path / "out")
    assert verify_bundle(tmp_path / "out").passed
    for file in (tmp_path / "out").rglob("*.txt"):
        assert not any(text in file.read_text(encoding="utf-8") for text in TEXTS)


@pytest.mark.slow
def test_a_student_of_fewer_blocks_learns_from_a_text_run(tmp_path):
    from export.distill.run import distill
    from export.distill.students import Distillation
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    save_bert_folder(tmp_path / "net", num_hidden_layers=3)
    texts = [text for text in TEXTS * 6 if "," not in text]
    rows = [f"{text},{NAMES[n % 2]}" for n, text in enumerate(texts)]
    rows = [f"{n} {row}" for n, row in enumerate(rows)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    config = RunConfig.of(source=str(tmp_path / "a.csv"), modality="text", plan="probe",
                          backbone=f"bert:{tmp_path / 'net'}", epochs=(1,))  # fmt: skip
    train(config, tmp_path / "run")
    small = f"bert:{tmp_path / 'net'}?blocks=1"
    run = distill(Distillation(str(tmp_path / "run"), small, epochs=(1, 1)), tmp_path / "student")
    assert run.complete and run.modality.files["vocab.txt"]
    save_gpt2_folder(tmp_path / "other", n_positions=64)
    with pytest.raises(ExportError, match="another vocabulary"):
        distill(Distillation(str(tmp_path / "run"), f"gpt2:{tmp_path / 'other'}"), tmp_path / "no")
