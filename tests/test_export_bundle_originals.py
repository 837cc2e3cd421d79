"""Whole files in a bundle prove decoding, resizing and the model, each by itself."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from bundle_models import FACTS
from PIL import Image
from typer.testing import CliRunner

from export.bundle.golden import verify_bundle
from export.bundle.manifest import as_json
from export.bundle.originals import choose
from export.bundle.write import write_bundle
from export.cli.app import app
from export.device.run_image import decode_image, read_image
from export.pipeline import ExportConfig, export
from tl_keras import modalities
from tl_keras.data.samples import Samples
from tl_keras.errors import BundleError, ExportError
from tl_keras.modalities.image.decode import open_image
from tl_keras.modalities.image.steps import make_probes


def photo(path, seed, size=(90, 60), **how):
    grain = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(grain).resize(size).save(path, **how)
    return str(path)


@pytest.fixture(scope="module")
def filed(toys, tmp_path_factory):
    """The toy with samples that are files: JPEG, one of them turned, and PNG."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 8
    files = [photo(folder / f"{n:02d}.jpg", n) for n in range(9)]
    files += [photo(folder / "turned.jpg", 9, exif=exif), photo(folder / "wide.png", 10, (300, 40))]
    files += [photo(folder / "tall.png", 11, (40, 300))]
    source = toys[0]
    samples = Samples(files, np.zeros(12), ("",), tuple(files), source.modality)
    read = source.modality.reader(samples, dict(source.signature.inputs)).read(range(12))
    return dataclasses.replace(source, inputs=read, files=tuple(files))


@pytest.fixture(scope="module")
def original(filed, toys, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "toy"
    return write_bundle(filed, toys[1], out, default="tflite-fp32", facts=FACTS)


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "toy")


def golden(bundle):
    return json.loads((bundle / "golden/golden.json").read_bytes())


def replace_file(bundle, path, contents):
    """Put another file into a bundle, as if it had always been there."""
    (bundle / path).write_bytes(contents)
    record = json.loads((bundle / "manifest.json").read_bytes())
    for file in record["files"]:
        if file["path"] == path:
            file.update(bytes=len(contents), sha256=sha256(contents).hexdigest())
    (bundle / "manifest.json").write_bytes(as_json(record))


def test_a_bundle_carries_files_of_every_kind_as_they_are(original, filed):
    entries = [one for one in golden(original)["samples"] if "original" in one]
    own = [one for one in entries if not one["proves"]]
    assert len(own) == 8
    names = {Path(one["key"]).name for one in own}
    for one in own:
        before = Path(filed.files[filed.keys.index(one["key"])])
        assert (original / one["original"]).read_bytes() == before.read_bytes()
    kinds = {filed.modality.sketch(str(original / one["original"])) for one in own}
    assert len(kinds) == 4, names


def test_check_reads_every_whole_file_to_the_bit(original):
    found = verify_bundle(original)
    assert found.passed
    assert len(found.readings) == 17
    assert all(one.exact for one in found.readings)
    done = CliRunner().invoke(app, ["check", str(original)])
    assert "17 whole files: 17 right, 17 to the bit" in done.stdout


def test_the_program_of_the_bundle_proves_the_same_files_by_itself(original):
    for model in ("models/tflite-int8.tflite", "models/onnx-fp32.onnx"):
        command = [sys.executable, "run.py", "--check", "--model", model]
        done = subprocess.run(command, capture_output=True, text=True, cwd=original)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "17 of 17 whole files" in done.stdout


def crop(image):
    side = min(image.size)
    return image.crop((0, 0, side, side))


HARMS = {
    "a file decoded otherwise": (lambda image: image.rotate(180), "decode"),
    "a file cut": (crop, "decode"),
}


@pytest.mark.parametrize(("change", "step"), HARMS.values(), ids=HARMS)
def test_a_step_that_differs_is_named(bundle, change, step):
    entries = {one.get("proves"): one for one in golden(bundle)["samples"]}
    entry = entries["no crop, no bars"]
    change(Image.open(bundle / entry["original"])).save(bundle / "x.png")
    contents = (bundle / "x.png").read_bytes()
    (bundle / "x.png").unlink()
    replace_file(bundle, entry["original"], contents)
    done = CliRunner().invoke(app, ["check", str(bundle)])
    assert done.exit_code == 3
    assert f"(no crop, no bars): the step {step} DIFFERS" in done.stdout
    done = subprocess.run([sys.executable, "run.py", "--check"], capture_output=True, text=True,
                          cwd=bundle)  # fmt: skip
    assert done.returncode == 3
    assert f"the step {step} DIFFERS" in done.stdout


def test_a_resize_without_antialias_is_told_from_another_decoder(bundle, monkeypatch):
    """As OpenCV and Android resize: the decoded image is the same, what the model sees is not."""
    plain = Image.Image.resize

    def nearest(image, size, resample=None, **more):
        return plain(image, size, Image.Resampling.NEAREST, **more)

    monkeypatch.setattr(Image.Image, "resize", nearest)
    found = verify_bundle(bundle)
    assert not found.passed
    wrong = {one.proves: one.step for one in found.readings if one.step}
    assert wrong["antialias"] == "resize"
    assert set(wrong.values()) == {"resize"}


def test_a_file_that_is_no_image_is_a_difference_in_decoding(bundle):
    replace_file(bundle, "originals/probe-gray.png", b"no image")
    (wrong,) = (one for one in verify_bundle(bundle).readings if not one.passed)
    assert (wrong.file, wrong.step) == ("originals/probe-gray.png", "decode")
    assert "no image" in wrong.detail


def test_a_huge_image_in_a_bundle_is_not_decoded(bundle):
    wide = Image.new("1", (60_000, 2_000))
    wide.save(bundle / "x.png")
    contents = (bundle / "x.png").read_bytes()
    (bundle / "x.png").unlink()
    replace_file(bundle, "originals/probe-gray.png", contents)
    (wrong,) = (one for one in verify_bundle(bundle).readings if not one.passed)
    assert "at most 64,000,000" in wrong.detail


@pytest.mark.parametrize("harm", [{"trace": []}, {"original": "../x.png"}, {"proves": 1}], ids=str)
def test_a_description_of_files_that_is_damaged_is_refused(bundle, harm):
    record = golden(bundle)
    next(one for one in record["samples"] if "original" in one).update(harm)
    replace_file(bundle, "golden/golden.json", as_json(record))
    with pytest.raises(BundleError, match="golden.json does not read"):
        verify_bundle(bundle)


def test_nothing_of_the_data_set_is_in_a_bundle_that_must_not_show_it(filed, toys, tmp_path):
    source = dataclasses.replace(filed, originals="none")
    out = write_bundle(source, toys[1], tmp_path / "b", default="tflite-fp32", facts=FACTS)
    held = {path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert not held & {Path(file).read_bytes() for file in filed.files}
    seen = [np.asarray(Image.open(path)) for path in (out / "golden").glob("*.png")]
    assert len(seen) == 9
    shown = list(filed.inputs["image"])
    assert not any(np.array_equal(one, image) for one in seen for image in shown)
    assert not any(key in (out / "golden/golden.json").read_text() for key in filed.keys)
    assert verify_bundle(out).passed
    assert "No image of the data set is in this bundle" in (out / "README.md").read_text()


def test_other_files_may_be_given(filed, toys, tmp_path):
    (tmp_path / "given").mkdir()
    mine = photo(tmp_path / "given" / "mine.png", 99)
    source = dataclasses.replace(filed, originals=str(tmp_path / "given"))
    out = write_bundle(source, toys[1], tmp_path / "b", default="tflite-fp32", facts=FACTS)
    assert (out / "originals/00.png").read_bytes() == Path(mine).read_bytes()
    assert len([one for one in golden(out)["samples"] if not one["proves"]]) == 1
    assert verify_bundle(out).passed


@pytest.mark.parametrize(
    ("given", "message"),
    [("nowhere", "no file or folder"), ("", "no file or folder"), ("text.png", "no image"),
     ("empty", "no image"), ("large.bmp", "at most 2.1 MB")],
)  # fmt: skip
def test_files_that_cannot_be_carried_are_refused(filed, tmp_path, given, message):
    (tmp_path / "text.png").write_text("words")
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "large.bmp", 0, (1000, 900))
    with pytest.raises(ExportError, match=message):
        choose(dataclasses.replace(filed, originals=given and str(tmp_path / given)))


@pytest.mark.parametrize("size", [32, 224, 480])
@pytest.mark.parametrize("name", make_probes())
def test_training_and_the_program_read_every_probe_alike(tmp_path, name, size):
    file = tmp_path / name
    file.write_bytes(make_probes()[name][1])
    modality = modalities.get("image")
    samples = Samples([str(file)], np.zeros(1), ("",), (name,), modality)
    specs = {"image": modalities.base.InputSpec((size, size, 3), "uint8", "")}
    (expected,) = modality.reader(samples, specs).read([0])["image"]
    np.testing.assert_array_equal(read_image(str(file), size, size), expected)
    decoded = decode_image(str(file), size, size)
    assert np.array_equal(decoded, open_image(file, size))
    assert np.ptp(expected) > 100


LEFT_OUT = {
    "orientation.jpg": lambda file: Image.open(file),
    "background.png": lambda file: Image.open(file).convert("RGB"),
    "depth.png": lambda file: Image.fromarray(
        np.asarray(Image.open(file)).clip(0, 255).astype(np.uint8)
    ),
    "palette.gif": lambda file: Image.open(file).convert("RGB"),
    "aspect.png": lambda file: Image.open(file).crop((0, 130, 40, 170)),
    "large.jpg": lambda file: Image.open(file).resize((96, 64), Image.Resampling.NEAREST),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_probe_comes_out_otherwise_where_its_step_is_left_out(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(make_probes()[name][1])
    image = LEFT_OUT[name](file).convert("RGB")
    wrong = np.asarray(image.resize((96, 96), Image.Resampling.BILINEAR))
    right = read_image(str(file), 96, 96)
    far = np.abs(right.astype(float) - wrong).mean()
    assert far > 1.0 if name != "large.jpg" else far > 0


def test_files_that_resize_by_themselves_are_proven_on_the_decoded_files(filed, tmp_path):
    source = dataclasses.replace(filed, resize_in_graph=True)
    export(source, ExportConfig(("onnx",)), tmp_path / "b")
    record = json.loads((tmp_path / "b" / "manifest.json").read_bytes())
    assert record["resize_in_graph"] is True
    assert record["variants"][0]["input_dtype"] == "uint8"
    found = verify_bundle(tmp_path / "b")
    assert found.passed
    assert all(one.exact for one in found.readings)
    command = [sys.executable, "run.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "b")
    assert (done.returncode, "17 of 17 whole files" in done.stdout) == (0, True), done.stdout
    command = [sys.executable, "run.py", "--json", "originals/00.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "b", check=True)
    (expected,) = (one for one in golden(tmp_path / "b")["outputs"].values())
    np.testing.assert_allclose(json.loads(done.stdout)["scores"], expected[0], atol=1e-5)
    with pytest.raises(ExportError, match="for --to onnx alone"):
        export(source, ExportConfig(("tflite", "onnx")), tmp_path / "c")
    assert not (tmp_path / "c").exists()
