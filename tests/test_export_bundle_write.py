from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
from bundle_models import FACTS, NAMES
from PIL import Image

from export.bundle.manifest import parse_manifest
from export.bundle.write import write_bundle
from export.runtime.runtimes import load
from tl_keras import modalities
from tl_keras.errors import ExportError, StorageError


def write(made, out, **changes):
    return write_bundle(*made, out, **{"default": "onnx-fp32", "facts": FACTS, **changes})


@pytest.fixture(scope="module")
def bundle(toys, tmp_path_factory):
    return write(toys, tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def record(bundle):
    return parse_manifest((bundle / "manifest.json").read_bytes(), "toy")


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_bundle_holds_models_proof_and_programs_and_nothing_else(bundle):
    golden = {f"golden/{index:02d}.png" for index in range(8)}
    probes = modalities.get("image").make_probes()
    golden |= {f"golden/probe-{name.split('.')[0]}.png" for name in probes}
    golden |= {f"originals/probe-{name}" for name in probes}
    models = {f"models/{name}" for name in ("tflite-fp32.tflite", "tflite-int8.tflite")}
    texts = {"README.md", "labels.txt", "manifest.json", "report.html", "golden/golden.json"}
    programs = {"run.py"}
    assert set(content(bundle)) == golden | models | {"models/onnx-fp32.onnx"} | texts | programs
    assert [path.name for path in bundle.parent.iterdir()] == ["toy"]


def test_the_manifest_lists_every_other_file_by_size_and_hash(bundle, record):
    found = content(bundle)
    del found["manifest.json"]
    assert [file["path"] for file in record["files"]] == sorted(found)
    for file in record["files"]:
        contents = found[file["path"]]
        assert file["bytes"] == len(contents)
        assert file["sha256"] == hashlib.sha256(contents).hexdigest()


def test_the_manifest_tells_what_goes_in_what_comes_out_and_how_good_it_is(record):
    assert record["classes"] == list(NAMES)
    assert (record["input"]["shape"], record["output"]["shape"]) == ([16, 16, 3], [3])
    assert (record["schema"], record["default"], record["name"]) == (1, "onnx-fp32", "toy")
    assert record["data"] == {"fingerprint": "ab" * 32}, "where the data lay stays private"
    assert record["versions"] == FACTS["versions"]
    assert record["facts"] == {"base": "small_resnet"}
    variant = record["variants"][1]
    assert (variant["name"], variant["input_dtype"]) == ("tflite-int8", "uint8")
    assert variant["verdict"]["accuracy"] == 0.75
    assert [attempt["passed"] for attempt in variant["attempts"]] == [False, True]
    assert variant["latencies"][0]["median_ms"] == 2.0


def test_the_same_arguments_give_the_same_bytes_in_a_folder_and_in_a_zip(toys, bundle, tmp_path):
    assert content(write(toys, tmp_path / "again")) == content(bundle)
    first, second = (write(toys, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == content(bundle)
        assert archive.namelist() == sorted(archive.namelist())


def test_golden_outputs_are_those_of_the_files_for_the_pictures_beside_them(bundle, toys):
    golden = json.loads((bundle / "golden/golden.json").read_text())
    files = [bundle / entry["file"] for entry in golden["samples"]]
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    for variant in toys[1]:
        answers = load(variant.path).predict(pictures)
        np.testing.assert_allclose(golden["outputs"][variant.name], answers, atol=1e-6)
    keys = [entry["key"] for entry in golden["samples"] if "original" not in entry]
    truth = [toys[0].inputs["image"][toys[0].keys.index(key)] for key in keys]
    assert np.array_equal(pictures[:8], truth)


@pytest.mark.parametrize("name", ["tflite-fp32", "onnx-fp32"])
def test_the_program_of_the_bundle_gives_the_golden_answers(bundle, name, tmp_path):
    golden = json.loads((bundle / "golden/golden.json").read_text())
    files = [str(bundle / entry["file"]) for entry in golden["samples"]]
    command = [sys.executable, bundle / "run.py", "--json", *files]
    command += ["--model", next((bundle / "models").glob(f"{name}.*"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    scores = [json.loads(line)["scores"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(scores, golden["outputs"][name], atol=1e-5)


def test_the_program_takes_another_file_and_prints_labels(bundle, tmp_path):
    command = [sys.executable, bundle / "run.py", bundle / "golden/00.png"]
    command += ["--model", bundle / "models/tflite-int8.tflite", "--top", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    golden = json.loads((bundle / "golden/golden.json").read_text())
    best = np.argmax(golden["outputs"]["tflite-int8"][0])
    assert re.search(rf"00\.png: {re.escape(NAMES[best])} 0\.\d+, \S", done.stdout)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]


def test_the_page_is_whole_and_shows_every_variant_side_by_side(bundle, toys):
    text = (bundle / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert [link[:10] for link in page.links] == ["data:image"]
    for words in ("tflite-int8", "more calibration", "slower than fp32 here", "512 pictures"):
        assert words in text
    assert all(f"{variant.bytes / 1000:.1f} kB" in text for variant in toys[1])


def test_the_model_card_has_a_head_that_a_hub_reads(bundle):
    yaml = pytest.importorskip("yaml")
    _, head, body = (bundle / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["pipeline_tag"] == "image-classification"
    assert {"tflite", "onnx"} <= set(facts["tags"])
    metrics = facts["model-index"][0]["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [0.75, 0.75, 0.75]
    assert "python run.py photo.jpg" in body
    assert "`tflite-int8`: slower than fp32 here" in body


def test_what_is_there_already_is_left_alone(toys, tmp_path):
    (tmp_path / "out.zip").write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        write(toys, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_text() == "mine"


def test_a_file_that_is_not_the_one_that_was_proven_is_refused(toys, tmp_path):
    source, variants = toys
    other = dataclasses.replace(variants[0], sha256="0" * 64)
    with pytest.raises(ExportError, match="tflite-fp32 has SHA-256"):
        write((source, [other, *variants[1:]]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("default", ["tflite-fp16", ""])
def test_the_default_is_one_of_the_variants(toys, tmp_path, default):
    with pytest.raises(ExportError, match="the default among them"):
        write(toys, tmp_path / "out", default=default)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_storage_error(toys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another folder"):
        write(toys, tmp_path / "file" / "out")


def test_a_task_without_labels_has_a_bundle_too(toys, tmp_path):
    source, variants = toys
    bare = dataclasses.replace(
        variants[2].verdict, accuracy=None, low=None, high=None, source_accuracy=None
    )
    variant = dataclasses.replace(variants[2], verdict=bare, latencies=())
    out = write((dataclasses.replace(source, task="values"), [variant]), tmp_path / "out")
    assert "accuracy of" not in (out / "README.md").read_text()
