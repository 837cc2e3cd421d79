from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import zipfile
from hashlib import sha256

import numpy as np
import pytest
from bundle_models import FACTS
from PIL import Image
from typer.testing import CliRunner

from export.bundle.golden import verify_bundle
from export.bundle.manifest import as_json
from export.bundle.read import read_bundle
from export.bundle.write import write_bundle
from export.cli.app import app
from export.device.run_image import read_image
from tl_keras.errors import BundleError, TLKerasError
from tl_keras.modalities.image.modality import ImageModality

ONNX = "models/onnx-fp32.onnx"
GOLDEN = "golden/golden.json"


@pytest.fixture(scope="module")
def original(toys, tmp_path_factory):
    return write_bundle(
        *toys, tmp_path_factory.mktemp("bundles") / "toy", default="tflite-fp32", facts=FACTS
    )


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "toy")


def edit(folder, change):
    record = json.loads((folder / "manifest.json").read_bytes())
    change(record)
    (folder / "manifest.json").write_bytes(as_json(record))


def put(folder, path, contents):
    """Write a file that the manifest agrees with."""
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(contents)
    facts = {"bytes": len(contents), "sha256": sha256(contents).hexdigest()}

    def change(record):
        record["files"] = [one for one in record["files"] if one["path"] != path]
        record["files"].append({"path": path, **facts})
        for variant in record["variants"]:
            if variant["file"] == path:
                variant.update(facts)

    edit(folder, change)


def wide_picture():
    from PIL import Image

    stream = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(stream, "PNG")
    return stream.getvalue()


def keras_variant(folder):
    put(folder, "models/any.keras", b"x")
    facts = {"file": "models/any.keras", "sha256": sha256(b"x").hexdigest()}
    edit(folder, lambda record: record["variants"][0].update(facts))


def fewer_classes(folder):
    golden = json.loads((folder / GOLDEN).read_bytes())
    golden["outputs"] = {k: [row[:-1] for row in v] for k, v in golden["outputs"].items()}
    put(folder, GOLDEN, as_json(golden))
    labels = (folder / "labels.txt").read_text().splitlines()[:-1]
    put(folder, "labels.txt", "".join(f"{name}\n" for name in labels).encode())
    edit(folder, lambda record: record["classes"].pop())


HARMS = {
    "deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 99_999), "does not read"),
    "deep golden": (lambda f: put(f, GOLDEN, b"[" * 99_999), "does not read"),
    "wide golden picture": (lambda f: put(f, "golden/00.png", wide_picture()), "does not read"),
    "unknown task": (lambda f: edit(f, lambda r: r.update(task="x")), "task"),
    "variant for another program": (keras_variant, "variants"),
    "fewer classes than outputs": (fewer_classes, "do not belong together"),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), "is no plain file"),
}


@pytest.mark.parametrize(("harm", "message"), HARMS.values(), ids=HARMS)
def test_a_bundle_made_to_harm_is_refused_with_the_reason(folder, harm, message):
    harm(folder)
    with pytest.raises(BundleError, match=message):
        verify_bundle(folder)


def test_answers_that_the_classes_do_not_fit_get_no_labels(folder):
    fewer_classes(folder)
    result = CliRunner().invoke(app, ["predict", str(folder), str(folder / "golden/00.png")])
    assert result.exit_code == 2
    assert "do not belong together" in " ".join(result.stderr.split())


@pytest.mark.parametrize("contents", [b"", b"garbage" * 99], ids=["empty", "garbage"])
@pytest.mark.parametrize("path", [ONNX, "models/tflite-int8.tflite"])
def test_a_model_that_no_runtime_loads_is_one_clear_message(folder, path, contents):
    put(folder, path, contents)
    with pytest.raises(TLKerasError, match="cannot be loaded by"):
        verify_bundle(folder)


def zipped(folder, method=zipfile.ZIP_STORED):
    out = folder.with_suffix(".zip")
    with zipfile.ZipFile(out, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return out


@pytest.mark.parametrize(
    "names", [["x" * 300], ["q", "q/r"], ["q/r", "q"], ["labels.txt/x"], ["manifest.json/x"]]
)
def test_names_that_no_disk_takes_together_are_refused(folder, names):
    facts = {"bytes": 0, "sha256": sha256(b"").hexdigest()}
    edit(folder, lambda r: r["files"].extend({"path": name, **facts} for name in names))
    out = zipped(folder)
    with zipfile.ZipFile(out, "a") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(BundleError, match="damaged"):
        verify_bundle(out)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_damaged_anywhere_is_refused_whatever_packed_it(folder, method):
    out = zipped(folder, method)
    whole, draw = out.read_bytes(), np.random.default_rng(0)
    for place in draw.integers(0, len(whole) - 200, 12):
        harmed = bytearray(whole)
        harmed[place : place + 200] = draw.bytes(200)
        out.write_bytes(harmed)
        with pytest.raises(BundleError):
            verify_bundle(out)
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError):
        verify_bundle(out)


def test_files_are_read_with_what_was_decided_for_the_data_it_was_trained_on(toys, tmp_path):
    """Of 12 bits in a 16-bit file all looked black on the device."""
    levels = {"integer": (0.0, 4095.0)}
    source = dataclasses.replace(toys[0], modality=ImageModality(levels))
    bundle = write_bundle(source, toys[1], tmp_path / "b", default="onnx-fp32", facts=FACTS)
    gray = (np.linspace(0, 1, 400).reshape(20, 20) * 4095).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    with read_bundle(bundle) as found:
        (pixels,) = found.read_samples([tmp_path / "deep.png"])["image"]
        settings = found.manifest["settings"]
    assert pixels.max() > 240
    seen = read_image(str(tmp_path / "deep.png"), 16, 16, settings["levels"])
    np.testing.assert_array_equal(seen, pixels)
