"""Whatever a command is given: one clear message, exit code 2 or 3, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_input import APPS, WRITING, Case, Child, children, table
from conftest import draw_folder
from typer.testing import CliRunner

CASES = table()
PATIENCE = 60
SMALL = ("small_resnet", 16, "none")

# The kit's few images are too few for the others, which refuse them before they have begun.
LONG = [name for name in WRITING if name[1] not in ("update", "verdict", "drift")]
KNOWN: dict[str, str] = {}
"""What is wrong and not yet mended: the case's name, and the reason."""


@pytest.fixture(scope="session")
def kit(toys, tmp_path_factory):
    """One sound thing of each kind that commands read, made once."""
    import keras
    from bundle_models import FACTS
    from export_models import small_model

    from export.bundle.write import write_bundle
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    place = tmp_path_factory.mktemp("kit")
    photos = draw_folder(place / "photos", count=6)
    draw_folder(place / "other", count=6, seed=1)
    for index, name in enumerate(("photo.png", "last.png")):
        shutil.copy(sorted(photos.rglob("*.png"))[index], place / name)
    job = RunConfig.of(
        str(photos), *SMALL, plan="lp-ft", epochs=(1, 2), test=0.2, val=0.3, save_every=0.0
    )  # fmt: skip
    train(job, place / "run")

    def stop(word, done, total):
        if word == "stage all" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, place / "halted", progress=stop)
    write_bundle(*toys, place / "bundle", default="tflite-fp32", facts=FACTS)
    for path in (place / "bundle" / "models").iterdir():
        if "fp32" in path.name:
            shutil.copy(path, place / f"toy{path.suffix}")
    small_model().save(place / "toy.keras")
    small_model(outputs=5).save(place / "five.keras")
    inputs = [keras.Input((16, 16, 3)) for _ in range(2)]
    joined = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()(inputs))
    keras.Model(inputs, keras.layers.Dense(3)(joined)).save(place / "two.keras")
    pixels = keras.Input((16, 16, 3))
    doubled = keras.layers.Lambda(lambda values: 2 * values)(pixels)
    means = keras.layers.GlobalAveragePooling2D()(doubled)
    keras.Model(pixels, keras.layers.Dense(3)(means)).save(place / "lambda.keras")
    return place


def bring(kit, place, words):
    """Copy to a place what a command line names, and all that this needs."""
    names = {word.split("/")[0] for word in words} | {"photos", "photo.png", "last.png"}
    names |= {"lambda.keras", "five.keras", "two.keras"} if names & {"run", "halted"} else set()
    names |= {"lambda.keras"} if any("odd.keras" in word for word in words) else set()
    for name in names & set(os.listdir(kit)):
        copy = shutil.copytree if (kit / name).is_dir() else shutil.copy
        copy(kit / name, place / name)
        if (record := place / name / "run.json").is_file():
            record.write_text(record.read_text("utf-8").replace(str(kit), str(place)), "utf-8")
            os.utime(record, ns=(0, 0))


def look(place):
    """What is in a folder: kind, size, contents and date of everything below it."""
    found = {}
    for folder, folders, files in os.walk(place):
        # ONNX Runtime leaves the last of these with temporary files.
        for path in (Path(folder, name) for name in (*folders, *files) if name != ".ses"):
            facts = path.lstat()
            plain = stat.S_ISREG(facts.st_mode)
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if plain else ""
            size, when = (facts.st_size, facts.st_mtime_ns) if plain else (0, 0)
            found[str(path.relative_to(place))] = (facts.st_mode, size, digest, when)
    return found


def refuse_clearly(code, stdout, stderr):
    """The claim about every case: the exit code, and one message that says something."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", stderr)
    assert "Traceback" not in stdout + said, said
    assert code in (2, 3), f"exit code {code}: {stdout[-2000:]} {said[-2000:]}"
    if code == 3:
        return
    assert len(re.findall("^Error:", said, re.M)) == 1, f"not one message: {said!r}"
    message = said.partition("Error:")[2].strip()
    assert 15 <= len(message) < 2500 and len(message.splitlines()) < 30, f"not clear: {message!r}"
    for word in ("Errno", "object at 0x", "NoneType", "<class '", "tensorflow::", "{{node"):
        assert word not in message, f"the word of a program, not of a person: {message!r}"


def params():
    for case in CASES:
        marks = [pytest.mark.slow] if case.slow else []
        if case.name in KNOWN:
            marks.append(pytest.mark.xfail(reason=KNOWN[case.name], strict=True))
        yield pytest.param(case, marks=marks, id=case.name)


@pytest.mark.parametrize("case", [*params()])
def test_bad_input_is_refused_with_one_message_and_costs_nothing(
    case: Case, kit, place, monkeypatch, capfd
):
    bring(kit, place, case.words)
    case.harm(place)
    if case.light:
        for name in ("tensorflow", "keras"):
            monkeypatch.setitem(sys.modules, name, None)
    before = look(place.parent)

    def late(number, frame):
        raise TimeoutError(f"hangs: no answer in {PATIENCE} s")

    kept = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        result = CliRunner().invoke(APPS[case.program], [case.command, *case.words])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, kept)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"a traceback: {result.exception!r}") from result.exception
    assert "Traceback" not in "".join(capfd.readouterr())
    refuse_clearly(result.exit_code, result.stdout, result.stderr)
    after = look(place.parent)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed, f"changed: {sorted(changed)}"


ROOMS = {"tl-keras": "tl_keras", "tl-export": "export"}
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
FIT = ("tl-keras", "fit")


def start(program, command, words, shell='exec "$@"', environment=None):
    """Start a command in a process of its own, as a shell would."""
    code = f"{START}from {ROOMS[program]}.cli.app import main; main()"
    changed = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    for key, value in (environment or {}).items():
        changed[key] = value
        if value is None:
            del changed[key]
    return subprocess.Popen(
        ["bash", "-c", shell, "bash", sys.executable, "-c", code, command, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=changed,
    )  # fmt: skip


def end(process):
    try:
        output, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it hangs: {process.args}")
    return process.returncode, output.decode("utf-8", "replace"), said.decode("utf-8", "replace")


@pytest.fixture
def place(kit, tmp_path, monkeypatch):
    """A folder of a case's own, the current one, with a folder for temporary files beside it."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "p").mkdir()
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path / "p"
    if os.path.ismount(tmp_path / "p" / "full"):
        subprocess.run(["umount", "-l", tmp_path / "p" / "full"], check=True)


NEW = ("new", "new.json", "new.png", "full")


def nothing_lost(code, place, before):
    """What was there is there; what is new is whole, or a run that can go on."""
    after = look(place.parent)
    for new in (place, place / "full"):
        for made in new.glob("new*") if code else ():
            assert (made / "run.json").exists(), f"half-written: {sorted(made.glob('*'))}"
    assert {name: facts for name, facts in after.items() if name in before} == before
    for name in after.keys() - before.keys():
        parts = Path(name).parts
        if parts[0] == "tmp" and parts[1].startswith("tmp"):
            continue  # Keras leaves it when it cannot save
        assert parts[0] == "p" and parts[1] in NEW, f"left: {name}"
        assert not any(part.startswith(".") for part in parts), f"left: {name}"
        if parts[-1] == "run.json":
            assert json.loads((place.parent / name).read_text("utf-8"))["state"]


def child_params():
    for child in children():
        marks = [pytest.mark.slow]
        if child.name in KNOWN:
            marks.append(pytest.mark.xfail(reason=KNOWN[child.name], strict=True))
        yield pytest.param(child, marks=marks, id=child.name)


@pytest.mark.parametrize("child", [*child_params()])
def test_wrong_surroundings_are_borne_or_refused_with_one_message(child: Child, kit, place):
    if "disk" in child.what and os.geteuid():
        pytest.skip("only root may mount a small disk")
    bring(kit, place, (*child.words, "bundle", "other", "toy.tflite"))
    child.harm(place)
    before = look(place.parent)
    code, output, said = end(
        start(child.program, child.command, child.words, child.shell, child.environment)
    )
    assert "Traceback" not in output + said, said
    assert code in child.codes, f"exit code {code}: {output[-2000:]} {said[-2000:]}"
    if code == 2:
        refuse_clearly(code, output, said)
    nothing_lost(code, place, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, (signal.SIGINT, signal.SIGTERM)[turn % 2]) for turn, name in enumerate(LONG)],
    ids=[" ".join(name) for name in LONG],
)
def test_a_signal_at_any_moment_stops_with_one_message_and_no_half_written_thing(
    name, number, kit, place
):
    bring(kit, place, (*WRITING[name], "other"))
    before, chance = look(place.parent), random.Random(f"{name} {number}")
    process = start(*name, WRITING[name])
    time.sleep(chance.uniform(2, 15))
    process.send_signal(number)
    code, output, said = end(process)
    assert "Traceback" not in output + said, said
    assert code in (0, 130), f"exit code {code}: {said}"
    assert code == 0 or "Stopped." in said
    nothing_lost(code, place, before)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, end(process)
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused_and_the_first_is_not_disturbed(kit, place):
    bring(kit, place, WRITING[FIT])
    first = start(*FIT, WRITING[FIT])
    wait_for(place / "new" / "run.json", first)
    for command, words in (("resume", ("new",)), ("fit", WRITING[FIT])):
        refuse_clearly(*end(start("tl-keras", command, words)))
    code, output, said = end(first)
    assert code == 0, said
    assert json.loads((place / "new" / "run.json").read_text("utf-8"))["state"] == "complete"
