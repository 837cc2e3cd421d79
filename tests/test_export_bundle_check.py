from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from bundle_models import FACTS, NAMES
from typer.testing import CliRunner

from export.bundle.golden import choose_tolerance, compare_golden, verify_bundle
from export.bundle.manifest import as_json
from export.bundle.read import read_bundle
from export.bundle.write import write_bundle
from export.cli.app import app
from tl_keras.errors import BundleError

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = Path(os.environ.get("TL_KERAS_CLIENTS", ROOT / ".venv" / "clients"))
MODEL = "models/tflite-int8.tflite"


@pytest.fixture(scope="module")
def original(toys, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles")
    for name in ("toy", "toy.zip"):
        write_bundle(*toys, place / name, default="tflite-fp32", facts=FACTS)
    return place


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original / "toy", tmp_path / "toy")


def packed(folder, out, extra=()):
    """A zip of a folder, with entries of any kind."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        for entry, contents in extra:
            archive.writestr(entry, contents)
    return out


def edit(folder, change):
    record = json.loads((folder / "manifest.json").read_bytes())
    change(record)
    (folder / "manifest.json").write_bytes(as_json(record))


def listed(record, path):
    return next(file for file in record["files"] if file["path"] == path)


def sign(folder, path):
    """Make the manifest say that a changed file is as it should be."""
    contents = (folder / path).read_bytes()

    def change(record):
        facts = {"bytes": len(contents), "sha256": sha256(contents).hexdigest()}
        listed(record, path).update(facts)
        for variant in record["variants"]:
            if variant["file"] == path:
                variant.update(facts)

    edit(folder, change)


@pytest.mark.parametrize("name", ["toy", "toy.zip"])
def test_an_untouched_bundle_passes(original, name):
    found = verify_bundle(original / name)
    assert found.passed
    assert found.files == 17 + 18
    assert len(found.readings) == 9
    assert all(one.exact for one in found.readings)
    assert {one.name for one in found.outcomes} == {"tflite-fp32", "tflite-int8", "onnx-fp32"}
    assert all(one.max_difference < 1e-5 for one in found.outcomes)


def test_a_zip_packed_by_another_program_with_entries_for_folders_passes(folder, tmp_path):
    out = packed(folder, tmp_path / "other.zip", [("models/", ""), ("golden/", "")])
    assert verify_bundle(out).passed


def link(name, target="labels.txt"):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry, target


def deflated(name):
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


OUTSIDE = {
    "up": ("../evil.txt", "x"),
    "up within": ("models/../../evil.txt", "x"),
    "absolute": ("/tmp/evil.txt", "x"),
    "backslash": ("..\\evil.txt", "x"),
    "drive": ("C:/evil.txt", "x"),
    "dots": ("./models//x", "x"),
    "link": link("models/link"),
}


@pytest.mark.parametrize("entry", OUTSIDE.values(), ids=OUTSIDE)
def test_a_zip_with_a_path_outside_itself_is_refused_and_nothing_is_written(
    folder, tmp_path, entry
):
    place = tmp_path / "place"
    place.mkdir()
    out = packed(folder, place / "bad.zip", [entry])
    with pytest.raises(BundleError, match="outside the bundle|is a link"):
        verify_bundle(out)
    assert [path.name for path in place.iterdir()] == ["bad.zip"]
    assert not (tmp_path / "evil.txt").exists()


def test_a_name_that_is_there_twice_is_refused(folder, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        out = packed(folder, tmp_path / "bad.zip", [("labels.txt", "other")])
    with pytest.raises(BundleError, match="is there twice"):
        verify_bundle(out)


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def nothing_in(folder):
    (folder / "manifest.json").write_bytes(b"{}")


HARMS = {
    "missing": (lambda f: (f / MODEL).unlink(), "int8.tflite' is missing"),
    "changed": (lambda f: flip(f / MODEL), "was changed"),
    "longer": (lambda f: (f / MODEL).open("ab").write(b"\0"), "is larger than the"),
    "shorter": (lambda f: os.truncate(f / MODEL, 100), "was changed"),
    "extra": (lambda f: (f / "models/more.onnx").write_text("x"), "is not in the manifest"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
    "half a manifest": (lambda f: os.truncate(f / "manifest.json", 50), "does not read"),
    "another manifest": (nothing_in, "has no schema"),
    "newer": (lambda f: edit(f, lambda r: r.update(schema=2)), "update tl_keras"),
    "no shape": (lambda f: edit(f, lambda r: r["input"].pop("shape")), "input.shape"),
    "a shape that no memory holds": (
        lambda f: edit(f, lambda r: r["input"].update(shape=[60000, 60000, 3])),
        "input.shape",
    ),
    "default": (lambda f: edit(f, lambda r: r.update(default="x")), "default"),
    "classes": (lambda f: edit(f, lambda r: r["classes"].reverse()), "the classes of"),
    "golden": (
        lambda f: ((f / "golden/golden.json").write_text("{}"), sign(f, "golden/golden.json")),
        "golden.json does not read",
    ),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("harm", "message"), HARMS.values(), ids=HARMS)
def test_a_harmed_bundle_is_refused_with_the_reason(folder, tmp_path, harm, message, zipped):
    harm(folder)
    with pytest.raises(BundleError, match=message):
        verify_bundle(packed(folder, tmp_path / "harmed.zip") if zipped else folder)


def test_a_link_in_a_folder_is_refused(folder, tmp_path):
    model = folder / MODEL
    model.rename(tmp_path / "elsewhere.tflite")
    model.symlink_to(tmp_path / "elsewhere.tflite")
    with pytest.raises(BundleError, match="is a link"):
        verify_bundle(folder)


@pytest.fixture
def small_disk():
    """No file of more than 1 MB can be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("lies", [False, True], ids=["true header", "false header"])
def test_a_bomb_is_not_unpacked_further_than_the_manifest_says(folder, tmp_path, small_disk, lies):
    size, bomb = (folder / MODEL).stat().st_size, 200_000_000
    (folder / MODEL).unlink()
    out = packed(folder, tmp_path / "bomb.zip", [(deflated(MODEL), bytes(bomb))])
    if lies:
        told = out.read_bytes().replace(bomb.to_bytes(4, "little"), size.to_bytes(4, "little"))
        out.write_bytes(told)
    with pytest.raises(BundleError, match="damaged|is larger than the"):
        verify_bundle(out)


def test_a_bomb_that_its_own_manifest_admits_is_refused(folder, tmp_path):
    """As a bundle of 6.8 MB that unpacked 1.26 GB did."""
    (folder / "models/onnx-fp32.onnx").write_bytes(bytes(200_000_000))
    sign(folder, "models/onnx-fp32.onnx")
    out = packed(folder, tmp_path / "bomb.zip")
    assert out.stat().st_size < 1e6
    with pytest.raises(BundleError, match=r"would unpack 0\.\d MB to 200 MB"):
        verify_bundle(out)


def test_a_file_that_is_no_zip_and_a_name_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK\3\4 and then nothing")
    for name in ("model.zip", "nowhere.zip"):
        with pytest.raises(BundleError, match="no zip|no bundle"):
            verify_bundle(tmp_path / name)


def test_a_model_that_answers_otherwise_is_told_by_exit_code_3(folder):
    shutil.copy(folder / "models/tflite-fp32.tflite", folder / MODEL)
    golden = json.loads((folder / "golden/golden.json").read_bytes())
    golden["outputs"]["onnx-fp32"][0].reverse()
    (folder / "golden/golden.json").write_bytes(as_json(golden))
    sign(folder, "golden/golden.json")
    sign(folder, MODEL)
    result = CliRunner().invoke(app, ["check", str(folder)])
    assert result.exit_code == 3
    rows = {line.split()[1]: line for line in result.stdout.splitlines() if "of 17" in line}
    assert "DIFFERENT" in rows["onnx-fp32"]
    assert "as expected" in rows["tflite-fp32"]


def test_a_damaged_bundle_is_one_message_and_exit_code_2(folder):
    flip(folder / MODEL)
    result = CliRunner().invoke(app, ["check", str(folder)])
    assert result.exit_code == 2
    assert "tflite-int8.tflite' was changed" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_what_a_zip_was_unpacked_to_is_gone_afterwards(original):
    with read_bundle(original / "toy.zip") as found:
        assert found.model().name == "tflite-fp32.tflite"
        assert found.model("onnx-fp32").is_file()
        with pytest.raises(BundleError, match="it has: tflite-fp32"):
            found.variant("tflite-fp16")
    assert not found.folder.exists()


WITHOUT = """
import sys
blocked = sys.argv.pop(1).split(",")
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Blocked())
from export.cli.app import main
main()
"""
ALL_BUT_RUNTIMES = (
    "tensorflow,keras,tf_keras,tensorflow_model_optimization,tf2onnx,onnx,sklearn,"
    "scipy,matplotlib,h5py,jax,torch,jinja2"
)


def without(modules, *words):
    command = [sys.executable, "-c", WITHOUT, modules, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_bundle_is_checked_and_used_where_there_is_no_tensorflow(original):
    done = without(ALL_BUT_RUNTIMES, "check", original / "toy.zip")
    assert (done.returncode, done.stdout.count("as expected")) == (0, 3), done.stderr
    photo = original / "toy/golden/00.png"
    done = without(ALL_BUT_RUNTIMES, "predict", original / "toy.zip", photo, "--top", 1)
    assert done.returncode == 0, done.stderr
    golden = json.loads((original / "toy/golden/golden.json").read_bytes())
    scores = golden["outputs"]["tflite-fp32"][0]
    assert NAMES[int(np.argmax(scores))] in done.stdout
    assert f"{max(scores):.3f}" in done.stdout


def test_a_missing_runtime_is_named_with_the_command_that_installs_it(original):
    done = without("ai_edge_litert", "check", original / "toy.zip")
    assert done.returncode == 2
    assert "pip install ai-edge-litert" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_environment_with_the_runtimes_alone_checks_a_bundle(original):
    if not (CLIENTS / "bin" / "tl-export").exists():
        pytest.skip(f"no tl-export in {CLIENTS}; `make clients` installs it")
    listed = subprocess.run(
        [CLIENTS / "bin/python", "-c", "import tensorflow"], capture_output=True
    )
    assert listed.returncode != 0, "it has TensorFlow, which would prove nothing"
    command = [CLIENTS / "bin/tl-export", "check", original / "toy.zip"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=original)
    assert (done.returncode, done.stdout.count("as expected")) == (0, 3), done.stderr


def draw(peak, classes, count=8, seed=0):
    """Answers of a classifier whose largest probability is about `peak`."""
    logits = np.random.default_rng(seed).normal(size=(count, classes))
    top = np.arange(count) % classes
    logits[np.arange(count), top] += np.log(peak * classes / (1 - peak) + 1)
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "expected",
    [
        draw(0.02, 1000), draw(0.5, 1000), draw(0.9, 2), 0.01 * draw(0.5, 3),
        3e4 * draw(0.5, 2)[:, :1],
    ],
    ids=["1000 classes", "1000 classes, sure", "2 classes", "tags near 0.01", "large values"],
)
def test_golden_answers_of_any_size_tell_another_model_from_another_processor(expected, recipe):
    tolerance = choose_tolerance(expected, recipe)
    task = "values" if expected.shape[1] == 1 else "classes"
    noise = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.04}[recipe] * np.ptp(expected, axis=0).max()
    near = expected + np.random.default_rng(1).uniform(-noise, noise, expected.shape)
    assert compare_golden("another processor", expected, near, tolerance, task).passed
    mean = expected.mean(axis=0)
    for other in (np.roll(expected, 1, axis=0), mean + 0.5 * (expected - mean)):
        assert not compare_golden("another model", expected, other, tolerance, task).passed
