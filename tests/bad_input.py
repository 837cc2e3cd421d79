"""Every command and what may be wrong with what it is given: the table of test_bad_input.

Most cases come from the programs' own options, so that a new command or option is swept without a
line here: numbers that are out of range, words that mean nothing, inputs and outputs that are no
files, folders that may not be written. The others harm one of the things that commands read (a run,
a bundle, a model, photos, a CSV file) and give it to every command that reads such a thing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import shutil
import socket
import subprocess
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import typer
from conftest import NAMES
from PIL import Image

from export.cli.app import app as export_app
from tl_keras.cli.app import app as keras_app

APPS = {"tl-keras": keras_app, "tl-export": export_app}

SOUND = {
    "data": "photos", "run": "run", "teacher": "run", "other": "other", "pictures": "photo.png",
    "photos": "photo.png", "images": "photo.png", "bundle": "bundle", "file": "toy.tflite",
    "files": "bundle", "student": "small_resnet", "bases": "small_resnet", "method": "prune",
    "out": "new",
}  # fmt: skip
"""What a required argument of that name is given where it is not the one that is wrong."""

SMALL = {"base": "small_resnet", "weights": "none", "size": "16", "bases": "small_resnet"}
READS = {
    "data", "run", "teacher", "other", "pictures", "photos", "images", "bundle", "file", "files",
    "unlabeled",
}  # fmt: skip
"""Arguments that name something to read."""
MODELS = {"base", "weights", "student"}
"""Arguments that name something to read if they look like a file."""
WRITES_FOLDER = {"out", "to"}
WRITES_FILE = {
    ("evaluate", "out"), ("lr-find", "out"), ("probe", "features_out"), ("bench", "as_json"),
    ("bench", "plot"), ("check-data", "out"),
}  # fmt: skip
NUMBERS = {"epochs", "dense", "memory", "learning_rate"}
"""Texts that hold numbers."""
FREE = {"license", "words", "new_class"}
"""Texts of which every one is right."""
NEEDS_MODEL = {"at", "train", "adapt", "features", "bases", "student", "base"}
"""Texts that can only be looked up in a model."""

ABSURD = ("0", "-1", "nan", "1e99", "1000000000000", "many")
ZERO = {
    "seed", "test", "dropout", "alpha", "beta", "strength", "max_drop", "memory", "sparsity",
}  # fmt: skip
"""Numbers that may be 0."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One call with something wrong in it.

    Attributes:
        program, command: which.
        what: what is wrong, for the case's name.
        words: the rest of the command line; the first part of a path names what the kit holds.
        harm: does what is wrong to the case's own folder.
        light: must be refused before TensorFlow is loaded.
        slow: not among the quick tests.
    """

    program: str
    command: str
    what: str
    words: tuple[str, ...]
    harm: Callable[[Path], object] = lambda place: None
    light: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.program} {self.command}: {self.what}"


@dataclasses.dataclass(frozen=True)
class Option:
    """A parameter of a command: `flag` is None for an argument."""

    program: str
    command: str
    name: str
    flag: str | None
    kind: type
    required: bool
    switch: bool


@functools.cache
def options(program: str, command: str) -> list[Option]:
    """The parameters of a command, in the order in which they are declared."""
    tree = typer.main.get_command(APPS[program]).commands[command]
    hints = typing.get_type_hints(inspect.unwrap(tree.callback))
    found = []
    for one in tree.params:
        kind = hints[one.name]
        for _ in range(2):  # Path | None, list[Path] | None
            kinds = [part for part in typing.get_args(kind) if part is not type(None)]
            kind = kinds[0] if kinds else kind
        flag = one.opts[0] if one.param_type_name == "option" else None
        found.append(Option(program, command, one.name, flag, kind, one.required, kind is bool))
    return found


def commands() -> Iterator[tuple[str, str]]:
    """Every command of both programs; a hidden one is another's old name."""
    for program, app in APPS.items():
        for name, command in typer.main.get_command(app).commands.items():
            if not command.hidden:
                yield program, name


def call(program: str, command: str, **given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The words of a call that is right but for what is given."""
    words: list[str] = []
    known = options(program, command)
    if command == "check-data":
        words.append("--labels")
    small = {} if "student" in {one.name for one in known} else SMALL
    if command == "verdict":
        small = {**SMALL, "weights": "default"}
    for one in known:
        value = given.get(one.name)
        if value is None and (one.required or one.name in ("other",)):
            value = SOUND[one.name]
        elif value is None and one.kind in (str, int):
            value = {"student": "16"}.get(one.name) or small.get(one.name)
        if value is not None:
            values = (value,) if isinstance(value, str) else value
            words += [one.flag, *values] if one.flag else values
    return tuple(words)


# --- numbers, words, paths: from the programs' own options --------------------------------------


def wrong_numbers() -> Iterator[Case]:
    """Each number of each command out of its range."""
    for program, command in commands():
        for one in options(program, command):
            if one.kind not in (int, float) and one.name not in NUMBERS:
                continue
            for value in ABSURD:
                if value == "0" and one.name in ZERO:
                    continue
                words = call(program, command, **{one.name: value})
                yield Case(program, command, f"{one.flag} {value}", words, light=True)


def wrong_words() -> Iterator[Case]:
    """Each word of each command that means nothing."""
    for program, command in commands():
        for one in options(program, command):
            skip = READS | MODELS | NUMBERS | FREE
            if one.kind is not str or one.name in skip or one.switch:
                continue
            words = call(program, command, **{one.name: "no-such-thing"})
            name, light = f"{one.flag or one.name} no-such-thing", one.name not in NEEDS_MODEL
            yield Case(program, command, name, words, light=light)


def pipe(place: Path) -> None:
    os.mkfifo(place / "odd")


def door(place: Path) -> None:
    sock(place / "odd")


def loop(place: Path) -> None:
    (place / "odd").symlink_to("odd")


def dangling(place: Path) -> None:
    (place / "odd").symlink_to("nowhere/at/all")


def text(place: Path) -> None:
    (place / "odd").write_text("hello")


def empty(place: Path) -> None:
    (place / "odd").mkdir()


def full_folder(place: Path) -> None:
    (place / "odd").mkdir()
    (place / "odd" / "precious.txt").write_text("hello")


NO_FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("odd", lambda place: None),
    "a text": ("odd", text),
    "an empty folder": ("odd", empty),
    "a pipe": ("odd", pipe),
    "a socket": ("odd", door),
    "a device": ("/dev/zero", lambda place: None),
    "a link to itself": ("odd", loop),
    "a link to nowhere": ("odd", dangling),
    "a long name": ("x" * 300, lambda place: None),
    "no name": ("", lambda place: None),
    "a name that is no UTF-8": ("\udcff\udcfe", lambda place: None),
    "below a file": ("photo.png/odd", lambda place: None),
}


def wrong_inputs() -> Iterator[Case]:
    """Each thing to read that is none."""
    for program, command in commands():
        for one in options(program, command):
            if one.name not in READS or one.kind not in (str, Path):
                continue
            for what, (value, harm) in NO_FILES.items():
                if not value and one.name in ("pictures", "images") and program == "tl-keras":
                    continue  # the current folder
                more = {"quantize": "fp16"} if one.name == "unlabeled" else {}
                yield Case(
                    program, command, f"{one.flag or one.name} is {what}",
                    call(program, command, **{one.name: value, **more}), harm,
                )  # fmt: skip


MODEL_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("hello"),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a zip of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "a Lambda": lambda path: shutil.copy("lambda.keras", path),
}


def wrong_models() -> Iterator[Case]:
    """Each model or file of weights that is none."""
    for program, command in commands():
        for one in options(program, command):
            if one.name not in MODELS:
                continue
            suffix = ".weights.h5" if one.name == "weights" else ".keras"
            for what, harm in MODEL_FILES.items():
                if what == "a Lambda" and one.name == "weights":
                    continue
                name = f"odd{suffix}"
                yield Case(
                    program, command, f"{one.flag} is {what}",
                    call(program, command, **{one.name: name}),
                    lambda place, harm=harm, name=name: harm(place / name),
                )  # fmt: skip


def tensors(name: str, begin: int = 0, end: int = 4) -> bytes:
    """A safetensors file of four bytes, and a header that says where they are."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [begin, end]}
    header = json.dumps({name: entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


TORCH_FILES: dict[str, tuple[str, str, bytes]] = {
    "a text called safetensors": ("efficientnet_lite0", "odd.safetensors", b"hello"),
    "tensors behind the end": ("efficientnet_lite0", "odd.safetensors", tensors("a", 0, 400)),
    "of another network": ("efficientnet_lite0", "odd.safetensors", tensors("conv1.weight")),
    "for a base of none": ("small_resnet", "odd.safetensors", tensors("conv1.weight")),
    "a pickle": ("small_resnet", "odd.pth", b"\x80\2}."),
}


def wrong_torch_files() -> Iterator[Case]:
    """Each file of torch, or called so, where weights may be given."""
    for program, command in commands():
        for one in options(program, command):
            if one.name != "weights":
                continue
            for what, (base, name, content) in TORCH_FILES.items():
                given = {"weights": name, "base": base, "size": "32"}
                yield Case(
                    program, command, f"{one.flag} is {what}", call(program, command, **given),
                    lambda place, name=name, content=content: (place / name).write_bytes(content),
                )  # fmt: skip


ELSEWHERE: dict[str, str] = {
    "a SavedModel that is not there": "hub:missing",
    "a folder that is no SavedModel": "hub:photos",
    "a file called a SavedModel": "hub:photo.png",
    "a SavedModel that is cut short": "hub:net",
    "a range that there is not": "hub:net?range=0..2",
    "a source without a place": "hub:",
    "a folder that is no preset": "keras_hub:./photos",
}


def wrong_sources() -> Iterator[Case]:
    """Each base from elsewhere that is not there or not whole, where a base may be given."""
    def cut_short(place: Path) -> None:
        (place / "net").mkdir(exist_ok=True)
        (place / "net" / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff")

    for program, command in commands():
        for one in options(program, command):
            if one.name not in ("base", "bases", "student"):
                continue
            for what, base in ELSEWHERE.items():
                words = call(program, command, **{one.name: base, "weights": "default"})
                yield Case(program, command, f"{one.name} is {what}", words, cut_short)


def wrong_outputs() -> Iterator[Case]:
    """Each thing to write that cannot be, or would cost what is there."""
    for program, command in commands():
        known = options(program, command)
        for one in known:
            if one.kind is not Path or one.name in READS:
                continue
            file = (command, one.name) in WRITES_FILE
            suffix = {"as_json": ".json", "features_out": ".npz", "plot": ".png"}.get(one.name, "")
            suffix = ".html" if command == "check-data" else suffix
            suffix = suffix or (".json" if command == "evaluate" else ".png" if file else "")
            places = {
                "below a file": (f"photo.png/new{suffix}", lambda place: None),
                "in /proc": (f"/proc/new{suffix}", lambda place: None),
                "a long name": (f"{'x' * 300}{suffix}", lambda place: None),
                "no name": ("", lambda place: None),
                "a pipe": (f"odd{suffix}", lambda place, s=suffix: os.mkfifo(place / f"odd{s}")),
                "a folder that holds something": ("odd", full_folder),
            }
            if file:
                reads_photos = ("lr-find", "probe", "evaluate", "check-data")
                within = "photos" if command in reads_photos else "bundle"
                places["within its input"] = (f"{within}/new{suffix}", lambda place: None)
            else:
                places["a file"] = ("odd", text)
                places["a device"] = ("/dev/null", lambda place: None)
                places["a link to nowhere"] = ("odd", dangling)
                places["within its input"] = (f"photos/{NAMES[0]}/new", lambda place: None)
            for what, (value, harm) in places.items():
                more = {"remedy": "batchnorm"} if one.name == "to" else {}
                words = call(program, command, **{one.name: value, **more})
                name = f"{one.flag} is {what}"
                yield Case(program, command, name, words, harm, light=True)


# --- runs ---------------------------------------------------------------------------------------


def edit(run: Path, **facts: object) -> None:
    file = run / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    for way, value in facts.items():
        *above, key = way.split("__")
        part = record
        for step in above:
            part = part[step]
        part.pop(key) if value is KeyError else part.update({key: value})
    file.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def cut(path: Path, share: float = 0.5) -> None:
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * share)])


def flip(path: Path, count: int = 200, seed: int = 0) -> None:
    draw, contents = np.random.default_rng(seed), bytearray(path.read_bytes())
    for place in draw.integers(0, len(contents), count):
        contents[place] ^= 1 << int(draw.integers(8))
    path.write_bytes(bytes(contents))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def within_zip(path: Path, name: str, contents: bytes) -> None:
    """Put other contents under a name of a zip."""
    with zipfile.ZipFile(path) as old:
        parts = {one: old.read(one) for one in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for one, kept in {**parts, name: contents}.items():
            new.writestr(one, kept)


def write(name: str, contents: str | bytes) -> Callable[[Path], object]:
    raw = contents.encode() if isinstance(contents, str) else contents
    return lambda folder: (folder / name).write_bytes(raw)


WRONG_FACTS: dict[str, tuple[object, ...]] = {
    "schema": (KeyError, "1", None, 0, -1, 99, True),
    "state": (KeyError, 5, "odd", None),
    "classes": (KeyError, None, 5, "ab", [], [1, 2, 3], ["a", "a", "b"]),
    "data": (KeyError, None, 5, []),
    "data__root": (KeyError, None, 5, "", "/nowhere/at/all"),
    "data__task": (KeyError, None, 5, "odd"),
    "seed": (None, "x", -1, 1.5),
    "size": ("x", 0, -1, 10**9),
    "temperature": ("x", -1.0, [], 0),
}

def said(value: object) -> str:
    return "missing" if value is KeyError else json.dumps(value)


HARMED_RUNS: dict[str, Callable[[Path], object]] = {
    "gone": shutil.rmtree,
    "no run.json": lambda run: (run / "run.json").unlink(),
    "empty run.json": write("run.json", ""),
    "cut run.json": lambda run: cut(run / "run.json"),
    "run.json of bytes": write("run.json", bytes(range(256))),
    "run.json in UTF-16": lambda run: (run / "run.json").write_text(
        (run / "run.json").read_text("utf-8"), "utf-16"
    ),
    "run.json is a list": write("run.json", "[]"),
    "run.json is a number": write("run.json", "7"),
    "run.json is null": write("run.json", "null"),
    "run.json is deep": write("run.json", "[" * 99_999),
    "run.json is a folder": lambda run: replace(run / "run.json", Path.mkdir),
    "run.json is a pipe": lambda run: replace(run / "run.json", os.mkfifo),
    "run.json is a link to itself": lambda run: replace(
        run / "run.json", lambda path: path.symlink_to(path.name)
    ),
    "run.json is endless": lambda run: replace(
        run / "run.json", lambda path: path.symlink_to("/dev/zero")
    ),
    **{
        f"run.json: {key.replace('__', '.')} is {said(value)}":
            lambda run, key=key, value=value: edit(run, **{key: value})
        for key, values in WRONG_FACTS.items() for value in values
    },
}  # fmt: skip
"""Harm that every command that reads a run must notice."""

HARMED_MODELS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": cut,
    "a text": lambda path: path.write_text("hello"),
    "a folder": lambda path: replace(path, Path.mkdir),
    "a pipe": lambda path: replace(path, os.mkfifo),
    "a zip of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "full of wrong bits": lambda path: flip(path, 2000),
    "without weights": lambda path: within_zip(path, "model.weights.h5", b""),
    "with cut weights": lambda path: within_zip(path, "model.weights.h5", b"\x89HDF\r\n\x1a\n"),
    "with no config": lambda path: within_zip(path, "config.json", b""),
    "with a config of another kind": lambda path: within_zip(path, "config.json", b"[1]"),
    "a Lambda": lambda path: shutil.copy("lambda.keras", path),
    "of other outputs": lambda path: shutil.copy("five.keras", path),
    "of two inputs": lambda path: shutil.copy("two.keras", path),
}

HARMED_SPLITS: dict[str, Callable[[Path], object]] = {
    "missing": lambda run: (run / "split.csv").unlink(),
    "empty": write("split.csv", ""),
    "of other columns": write("split.csv", "a,b\n1,2\n"),
    "of NUL bytes": write("split.csv", b"key,split\n\0\0,train\n"),
    "of other images": write("split.csv", "key,split\nno.png,train\nno.png,val\n"),
    "of odd words": lambda run: (run / "split.csv").write_text(
        (run / "split.csv").read_text("utf-8").replace(",val", ",odd"), "utf-8"
    ),
    "without validation": lambda run: (run / "split.csv").write_text(
        (run / "split.csv").read_text("utf-8").replace(",val", ",train"), "utf-8"
    ),
    "a pipe": lambda run: replace(run / "split.csv", os.mkfifo),
}


def readers(*names: str) -> Iterator[tuple[str, str, Option]]:
    for program, command in commands():
        for one in options(program, command):
            if one.name in names:
                yield program, command, one


def harmed_runs() -> Iterator[Case]:
    """A run that was harmed, given to every command that reads one."""
    for index, (program, command, one) in enumerate(readers("run", "teacher")):
        harms = [
            (what, harm, "nowhere" not in what and "missing" not in what)
            for what, harm in HARMED_RUNS.items()
            if command != "predict" or "data.root" not in what  # which needs no data
        ]  # fmt: skip
        if command != "resume":
            harms += [
                (f"model.keras is {what}", lambda run, h=harm: h(run / "model.keras"), False)
                for what, harm in HARMED_MODELS.items()
            ]
        if command not in ("resume", "predict"):
            harms += [
                *((f"split.csv is {what}", harm, False) for what, harm in HARMED_SPLITS.items()),
                ("state is incomplete", lambda run: edit(run, state="incomplete"), True),
                ("images are gone", lambda run: shutil.rmtree(run.parent / "photos"), False),
                ("a class is gone",
                 lambda run: shutil.rmtree(run.parent / "photos" / NAMES[0]), False),
            ]  # fmt: skip
        words = call(program, command, **{one.name: "run"})
        for turn, (what, harm, light) in enumerate(harms):
            yield Case(
                program, command, what, words, lambda place, h=harm: h(place / "run"), light,
                slow=(turn + index) % 6 > 0,
            )  # fmt: skip


def harmed_halts() -> Iterator[Case]:
    """A run that was stopped half way and then harmed, which resume is to go on with."""
    state = {
        **{f"state/{name} is {what}": lambda run, name=name, harm=harm: harm(run / "state" / name)
           for name in ("initial.keras",)
           for what, harm in HARMED_MODELS.items()},
        **{f"split.csv is {what}": harm for what, harm in HARMED_SPLITS.items()},
        "no state": lambda run: shutil.rmtree(run / "state"),
        "state is a file": lambda run: replace(run / "state", lambda path: path.write_text("x")),
        "images are gone": lambda run: shutil.rmtree(run.parent / "photos"),
        "stopped for good": lambda run: edit(run, stopped="the loss is not a number"),
        **{f"config {name} is {json.dumps(value)}":
           lambda run, name=name, value=value: edit(run, **{f"config__{name}": value})
           for name, value in (
               ("plan__epochs", "x"), ("plan__epochs", [0]), ("plan__epochs", ["a"]),
               ("plan__epochs", [1, 2, 3]), ("plan__lr_scale", "x"), ("plan__lr_scale", -1),
               ("plan__name", 5), ("plan__name", "odd"), ("plan__settings", 5),
               ("plan__settings", {"views": "x"}), ("plan__odd", 5), ("plan", []),
               ("model__backbone", None), ("model__backbone", "odd"), ("model__size", "x"),
               ("model__dense", 5), ("model", None), ("run__seed", -1), ("run__seed", "x"),
               ("run__precision", 5), ("run__devices", "x"), ("data__task", "odd"),
               ("data__source", 5), ("data__val", "x"), ("data__modality", "odd"), ("odd", 5),
               ("version", 99), ("version", "x"),
           )},
        "no config": lambda run: edit(run, config=KeyError),
        "config is a list": lambda run: edit(run, config=[]),
    }  # fmt: skip
    for what, harm in state.items():
        yield Case("tl-keras", "resume", what, ("halted",), lambda p, h=harm: h(p / "halted"))


# --- bundles and model files --------------------------------------------------------------------


def manifest(bundle: Path, **facts: object) -> None:
    file = bundle / "manifest.json"
    record = json.loads(file.read_text("utf-8"))
    for way, value in facts.items():
        *above, key = way.split("__")
        part = record
        for step in above:
            part = part[int(step) if step.isdigit() else step]
        part[key] = value
    file.write_text(json.dumps(record), "utf-8")


def put(bundle: Path, path: str, contents: bytes) -> None:
    """Write a file that the manifest agrees with."""
    from hashlib import sha256

    (bundle / path).parent.mkdir(exist_ok=True)
    (bundle / path).write_bytes(contents)
    facts = {"bytes": len(contents), "sha256": sha256(contents).hexdigest()}
    record = json.loads((bundle / "manifest.json").read_text("utf-8"))
    record["files"] = [one for one in record["files"] if one["path"] != path]
    record["files"].append({"path": path, **facts})
    for one in record["variants"]:
        if one["file"] == path:
            one.update(facts)
    (bundle / "manifest.json").write_text(json.dumps(record), "utf-8")


def every_model(harm: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def harmed(bundle: Path) -> None:
        for file in sorted((bundle / "models").iterdir()):
            put(bundle, f"models/{file.name}", harm(file.read_bytes()))

    return harmed


def zipped(bundle: Path, change: Callable[[zipfile.ZipFile], object]) -> None:
    """Make the folder a zip of the same name, with something more in it."""
    made = bundle.with_name("made.zip")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(bundle).as_posix())
        change(archive)
    shutil.rmtree(bundle)
    made.rename(bundle)


def bomb(bundle: Path) -> None:
    """A file of zeros that the manifest agrees with: 1 GB in 1 MB."""
    from hashlib import sha256

    zeros, count = bytes(2**20), 1024
    digest = sha256()
    for _ in range(count):
        digest.update(zeros)
    record = json.loads((bundle / "manifest.json").read_text("utf-8"))
    facts = {"path": "zeros.bin", "bytes": len(zeros) * count, "sha256": digest.hexdigest()}
    record["files"].append(facts)
    (bundle / "manifest.json").write_text(json.dumps(record), "utf-8")

    def add(archive: zipfile.ZipFile) -> None:
        with archive.open("zeros.bin", "w") as stream:
            for _ in range(count):
                stream.write(zeros)

    zipped(bundle, add)


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


HARMED_BUNDLES: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda bundle: (bundle / "manifest.json").unlink(),
    "empty manifest": write("manifest.json", ""),
    "cut manifest": lambda bundle: cut(bundle / "manifest.json"),
    "deep manifest": write("manifest.json", "[" * 99_999),
    "manifest of bytes": write("manifest.json", bytes(range(256))),
    "manifest is a list": write("manifest.json", "[]"),
    "manifest is a pipe": lambda bundle: replace(bundle / "manifest.json", os.mkfifo),
    **{
        f"{key.replace('__', '.')} is {json.dumps(value)}":
            lambda bundle, key=key, value=value: manifest(bundle, **{key: value})
        for key, values in {
            "schema": (99, "1", None, -1),
            "classes": (None, [], [1, 2, 3], ["a", "a", "a"], ["a"]),
            "task": ("odd", 5),
            "default": ("odd", None),
            "modality": ("odd", 5),
            "settings": (5, "odd"),
            "inputs": (None, {}, [], [{}]),
            "inputs__0__shape": (
                None, [], [0, 16, 3], [-1, 16, 3], [60000, 60000, 3],
                [10**12, 16, 3], [16.5, 16, 3], ["16", 16, 3],
            ),
            "inputs__0__name": (5,),
            "inputs__0__dtype": (5, "odd"),
            "variants": (None, [], [{}]),
            "variants__0__file": ("../outside.tflite", "/etc/passwd", "models/none.tflite", 5),
            "variants__0__format": ("keras", 5),
            "files": (None, [], [{}]),
            "files__0__path": ("../outside", "/etc/passwd", ""),
            "files__0__bytes": (-1, 10**12, "x"),
            "files__0__sha256": ("", 5),
        }.items() for value in values
    },
    "models are empty": every_model(lambda contents: b""),
    "models are a text": every_model(lambda contents: b"hello" * 99),
    "models are cut short": every_model(lambda contents: contents[: len(contents) // 2]),
    "models were changed": lambda bundle: [
        flip(file) for file in sorted((bundle / "models").iterdir())
    ],
    "labels were changed": write("labels.txt", "a\nb\nc\n"),
    "a file is missing": lambda bundle: (bundle / "labels.txt").unlink(),
    "a file too many": write("odd.txt", "x"),
    "a pipe within": lambda bundle: os.mkfifo(bundle / "odd"),
    "a link within": lambda bundle: (bundle / "odd").symlink_to("/etc/passwd"),
    "golden answers are deep": lambda bundle: put(bundle, "golden/golden.json", b"[" * 99_999),
    "golden answers are none": lambda bundle: put(bundle, "golden/golden.json", b"{}"),
    "golden answers are text": lambda bundle: put(bundle, "golden/golden.json", b'{"outputs": 5}'),
    "golden image is none": lambda bundle: put(bundle, "golden/00.png", b"hello"),
    "a zip with a way out": lambda bundle: zipped(
        bundle, lambda archive: archive.writestr("../outside.txt", "x")
    ),
    "a zip with an absolute path": lambda bundle: zipped(
        bundle, lambda archive: archive.writestr("/tmp/outside.txt", "x")
    ),
    "a zip with a link": lambda bundle: zipped(bundle, link),
    "a zip with a file twice": lambda bundle: zipped(
        bundle, lambda archive: archive.writestr("labels.txt", "x")
    ),
    "a zip with many files": lambda bundle: zipped(
        bundle, lambda archive: [archive.writestr(f"{i}.txt", "") for i in range(10_001)]
    ),
    "a zip cut short": lambda bundle: (zipped(bundle, lambda archive: None), cut(bundle)),
    "a zip full of wrong bits": lambda bundle: (zipped(bundle, lambda archive: None), flip(bundle)),
    "a zip that is a bomb": bomb,
}  # fmt: skip


def harmed_bundles() -> Iterator[Case]:
    """A bundle that was harmed, given to every command that reads one."""
    for index, (program, command, one) in enumerate(readers("bundle", "files")):
        words = call(program, command, **{one.name: "bundle"})
        for turn, (what, harm) in enumerate(HARMED_BUNDLES.items()):
            if command != "check" and what.startswith("golden"):
                continue
            slow = (turn + index) % 6 > 0 or what == "a zip that is a bomb" and index > 0
            yield Case(
                program, command, what, words, lambda place, h=harm: h(place / "bundle"), True, slow
            )  # fmt: skip


def outside_data(path: Path) -> None:
    """An ONNX file whose weights lie in a file outside its folder."""
    import onnx

    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    (path.parent.parent / "outside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    path.write_bytes(model.SerializeToString())


MODEL_HARMS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("hello" * 99),
    "cut short": cut,
    "cut to its head": lambda path: cut(path, 0.01),
    "a folder": lambda path: replace(path, Path.mkdir),
    "a pipe": lambda path: replace(path, os.mkfifo),
    "a link to itself": lambda path: replace(path, lambda one: one.symlink_to(one.name)),
    "endless": lambda path: replace(path, lambda one: one.symlink_to("/dev/zero")),
    "a head alone": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64)),
}


def harmed_files() -> Iterator[Case]:
    """A model file that was harmed, given to the commands that read such files."""
    for command in ("inspect", "bench"):
        for kind in ("tflite", "onnx", "keras"):
            for what, harm in MODEL_HARMS.items():
                if kind == "keras" and command == "inspect" and what != "missing":
                    continue
                name = f"toy.{kind}"
                words = (name, *(("--rounds", "1") if command == "bench" else ()))
                yield Case(
                    "tl-export", command, f"{name} is {what}", words,
                    lambda place, h=harm, n=name: h(place / n), kind != "keras",
                    slow=command == "bench" and what not in ("missing", "cut short"),
                )  # fmt: skip
    # The folder's files must not be read through a model that points at them.
    yield Case(
        "tl-export", "bench", "toy.onnx has its weights outside", ("toy.onnx",),
        lambda place: outside_data(place / "toy.onnx"), True,
    )  # fmt: skip
    yield Case("tl-export", "inspect", "a keras file", ("toy.keras",), light=True)
    yield Case("tl-export", "bench", "a file and a bundle", ("toy.onnx", "bundle"), light=True)
    yield Case("tl-export", "bench", "toy.keras is a Lambda", ("lambda.keras", "--rounds", "1"))


# --- photos and CSV files -----------------------------------------------------------------------


def photo(name: str, contents: bytes) -> Callable[[Path], object]:
    return lambda place: (place / "photos" / NAMES[0] / name).write_bytes(contents)


def odd_photo(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda place: make(place / "photos" / NAMES[0] / "odd.png")


def damaged(place: Path) -> None:
    path = place / "photos" / NAMES[0] / "0.png"
    contents = bytearray(path.read_bytes())
    for at in (60, 80, 100):
        contents[at] ^= 255
    path.write_bytes(bytes(contents))


def sock(path: Path) -> None:
    # The path of a socket may have 107 letters.
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(os.path.relpath(path))


def wide(path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(path)


HARMED_PHOTOS: dict[str, Callable[[Path], object]] = {
    "an image of no bytes": photo("odd.png", b""),
    "an image that is a text": photo("odd.png", b"hello"),
    "an image cut short": lambda place: cut(place / "photos" / NAMES[0] / "0.png"),
    "an image with wrong bytes": damaged,
    "a film": photo("odd.mp4", b"\0\0\0\x18ftypmp42" + bytes(99)),
    "a HEIC": photo("odd.heic", b"\0\0\0\x18ftypheic" + bytes(99)),
    "an AVIF": photo("odd.avif", b"\0\0\0\x18ftypavif" + bytes(99)),
    "a pipe among the images": odd_photo(os.mkfifo),
    "a socket among the images": odd_photo(sock),
    "a device among the images": odd_photo(lambda path: path.symlink_to("/dev/zero")),
    "a link to nowhere": odd_photo(lambda path: path.symlink_to("nowhere.png")),
    "a link to itself": odd_photo(lambda path: path.symlink_to(path.name)),
    "an image of 200 megapixels": odd_photo(wide),
    "an empty class": lambda place: (place / "photos" / "nothing").mkdir(),
    "one class": lambda place: [shutil.rmtree(place / "photos" / name) for name in NAMES[1:]],
    "one image a class": lambda place: [
        file.unlink() for file in sorted((place / "photos").rglob("*.png")) if file.stem != "0"
    ],
    "no class folder": lambda place: [
        file.rename(place / "photos" / f"{index}.png")
        for index, file in enumerate(sorted((place / "photos").rglob("*.png")))
    ] and [shutil.rmtree(place / "photos" / name) for name in NAMES],
    "split folders without train": lambda place: [
        (place / "photos" / NAMES[0]).rename(place / "photos" / "val"),
        (place / "photos" / "val" / "a").mkdir(),
        *[(file).rename(place / "photos/val/a" / file.name)
          for file in sorted((place / "photos" / "val").glob("*.png"))],
    ],
    "the same image in two classes": lambda place: shutil.copy(
        place / "photos" / NAMES[0] / "0.png", place / "photos" / NAMES[1] / "same.png"
    ),
}  # fmt: skip

CSV_HARMS: dict[str, bytes] = {
    "empty": b"",
    "a header alone": b"path,label\n",
    "of NUL bytes": b"path,label\nphotos/a\0.png,a\nphotos/b.png,b\n",
    "all NUL": bytes(999),
    "in UTF-16": "path,label\na.png,a\n".encode("utf-16"),
    "in Latin-1": "path,label\né.png,é\n".encode("latin-1"),
    "of other columns": b"image,class\na.png,a\n",
    "with a column twice": b"path,label,label\na.png,a,a\n",
    "with semicolons": b"path;label\na.png;a\n",
    "with a row too long": b"path,label\na.png,a,b\n",
    "with an open quote": b'path,label\n"a.png,a\n',
    "of one-hot columns": b"path,cat,dog\na.png,1,0\nb.png,0,1\n",
    "of backslash paths": b"path,label\nphotos\\a.png,a\nphotos\\b.png,b\n",
    "of missing images": b"path,label\nno.png,a\nnone.png,b\n",
    "with a path of 5000 letters": b"path,label\n" + b"x" * 5000 + b".png,a\nb.png,b\n",
    "with a field of a megabyte": b"path,label\n" + b"x" * 2**20 + b",a\n",
    "with a folder": b"path,label\nphotos,a\nphoto.png,b\n",
    "with a device": b"path,label\n/dev/zero,a\nphoto.png,b\n",
    "with an odd split": b"path,label,split\nphoto.png,a,odd\n",
    "with no label": b"path,label\nphoto.png,\n",
    "with an image twice": b"path,label\nphoto.png,a\nphoto.png,b\n",
    "with one class": b"path,label\nphoto.png,a\n",
}
CSV_VALUES: dict[str, bytes] = {
    "values": b"path,label\nphoto.png,a\nlast.png,b\n",
    "values of nan": b"path,label\nphoto.png,nan\nlast.png,1\n",
    "values of inf": b"path,label\nphoto.png,inf\nlast.png,1\n",
    "values of 1e39": b"path,label\nphoto.png,1e39\nlast.png,1\n",
    "values of 1e999": b"path,label\nphoto.png,1e999\nlast.png,1\n",
    "values of different counts": b"path,label\nphoto.png,1|2\nlast.png,1\n",
}


def harmed_data() -> Iterator[Case]:
    """Photos and CSV files that cannot be used, given to every command that reads them."""
    sources = list(readers("data", "other"))
    for index, (program, command, one) in enumerate(sources):
        run = {option.name for option in options(program, command)} & {"run", "teacher"}
        # What is compared with a run's own data is told of the run before the images.
        words = call(program, command, **{one.name: "photos"})
        for turn, (what, harm) in enumerate(HARMED_PHOTOS.items()):
            if (run or command == "advise") and "class" in what or run and "split" in what:
                continue
            if command == "check-data" and what == "the same image in two classes":
                continue  # its page shows both, and lets one mend it
            if program == EXPORT:
                continue  # it takes the images of a run alone: others beside them are not read
            slow = (turn + index) % 8 > 0 or bool(run)
            yield Case(program, command, f"{one.name} has {what}", words, harm, False, slow)
        words = call(program, command, **{one.name: "odd.csv"})
        for turn, (what, contents) in enumerate(CSV_HARMS.items()):
            slow = (turn + index) % 8 > 0 or bool(run)
            yield Case(
                program, command, f"{one.name} is a CSV {what}", words,
                write("odd.csv", contents), False, slow,
            )  # fmt: skip
        if "task" in {option.name for option in options(program, command)}:
            words = call(program, command, **{one.name: "odd.csv", "task": "values"})
            for what, contents in CSV_VALUES.items():
                yield Case(
                    program, command, f"{one.name} is a CSV of {what}", words,
                    write("odd.csv", contents),
                )  # fmt: skip
    yield from harmed_predictions()


def harmed_predictions() -> Iterator[Case]:
    """Single photos that are none, for both commands that label photos."""
    for program, first in (("tl-keras", "run"), ("tl-export", "bundle")):
        for what, harm in {
            "an empty image": lambda path: path.write_bytes(b""),
            "a text": lambda path: path.write_text("hello"),
            "an image cut short": lambda path: (shutil.copy(path.parent / "photo.png", path),
                                                cut(path)),
            "an image of 200 megapixels": wide,
            "an endless image": lambda path: path.symlink_to("/dev/zero"),
        }.items():  # fmt: skip
            yield Case(
                program, "predict", what, (first, "odd.png"),
                lambda place, h=harm: h(place / "odd.png"),
            )  # fmt: skip


def misuse() -> Iterator[Case]:
    """What was not foreseen on a command line at all."""
    for program, command in commands():
        known = options(program, command)
        words = call(program, command)
        yield Case(program, command, "an option that is not there", (*words, "--odd"), light=True)
        if any(one.required for one in known):
            yield Case(program, command, "nothing but --debug", ("--debug",), light=True)
        if not any(one.flag is None and one.name in ("pictures", "photos", "images", "files")
                   for one in known):  # fmt: skip
            yield Case(program, command, "a word too many", (*words, "odd", "odd"), light=True)
        for one in known:
            if one.flag and not one.switch:
                bare = (*call(program, command), one.flag)
                yield Case(program, command, f"{one.flag} without a value", bare, light=True)


def table() -> list[Case]:
    """Every case."""
    made = [
        *misuse(), *wrong_numbers(), *wrong_words(), *wrong_outputs(), *wrong_inputs(),
        *wrong_models(), *wrong_torch_files(), *wrong_sources(), *harmed_runs(), *harmed_halts(),
        *harmed_bundles(), *harmed_files(),
        *harmed_data(),
    ]  # fmt: skip
    names = [case.name for case in made]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two cases of one name: {sorted(twice)}")
    return made


# --- what needs a process of its own ------------------------------------------------------------

KERAS, EXPORT = "tl-keras", "tl-export"
WRITING = {
    (KERAS, "fit"): (*call(KERAS, "fit"), "--plan", "lp-ft", "--epochs", "1,30"),
    (KERAS, "probe"): call(KERAS, "probe"),
    (KERAS, "update"): (*call(KERAS, "update"), "--epochs", "2,20"),
    (KERAS, "verdict"): (*call(KERAS, "verdict", out="new"), "--epochs", "3"),
    (KERAS, "advise"): call(KERAS, "advise", out="new"),
    (KERAS, "lr-find"): call(KERAS, "lr-find", out="new.png"),
    (KERAS, "drift"): call(KERAS, "drift", out="new"),
    (KERAS, "evaluate"): call(KERAS, "evaluate", out="new.json"),
    # An option in second place would say that the first word is the run.
    (EXPORT, "run"): ("run", "--to", "tflite", "--quantize", "int8", "--out", "new"),
    (EXPORT, "distill"): (*call(EXPORT, "distill"), "--epochs", "1,20"),
    (EXPORT, "compress"): (*call(EXPORT, "compress"), "--epochs", "9"),
    (EXPORT, "bench"): call(EXPORT, "bench", plot="new.png"),
}
"""Calls that are right, and write something new."""
READING = {
    (KERAS, "bases"): ("mobilenet",),
    (KERAS, "check-data"): ("photos",),
    (KERAS, "predict"): ("run", "photo.png"),
    (KERAS, "evaluate"): ("run", "--json"),
    (EXPORT, "check"): ("bundle",),
    (EXPORT, "predict"): ("bundle", "photo.png"),
    (EXPORT, "inspect"): ("toy.tflite",),
}
"""Calls that are right, and write nothing."""
QUIET = {"LC_ALL": "C", "LANG": "C"}


@dataclasses.dataclass(frozen=True)
class Child:
    """A call whose surroundings are wrong.

    Attributes:
        program, command: which.
        what: what is wrong, for the case's name.
        words: the rest of the command line.
        codes: exit codes that are right.
        shell: redirections and limits, as bash has them.
        environment: what is set; None unsets.
        harm: does what is wrong to the case's own folder.
    """

    program: str
    command: str
    what: str
    words: tuple[str, ...]
    codes: tuple[int, ...] = (2,)
    shell: str = 'exec "$@"'
    environment: dict[str, str | None] = dataclasses.field(default_factory=dict)
    harm: Callable[[Path], object] = lambda place: None

    @property
    def name(self) -> str:
        return f"{self.program} {self.command}, {self.what}"


def fill(place: Path, room: int) -> None:
    """Mount a small disk at `full`, with so many bytes left; the test unmounts it."""
    (place / "full").mkdir()
    size = 2**20
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place / "full"], check=True
    )
    (place / "full" / "filler").write_bytes(bytes(size - room))


def wrong_bits(seed: int) -> Callable[[Path], object]:
    def harm(place: Path) -> None:
        for file in sorted((place / "bundle" / "models").iterdir()):
            contents = bytearray(file.read_bytes())
            draw = np.random.default_rng(seed)
            for at in draw.integers(8, len(contents), 1 + seed % 40):
                contents[at] ^= 1 << int(draw.integers(8))
            put(place / "bundle", f"models/{file.name}", bytes(contents))
            shutil.copy(file, place / f"toy{file.suffix}") if "fp32" in file.name else None

    return harm


def children() -> Iterator[Child]:
    """Every case whose surroundings are wrong: what works all the same, and what is refused."""
    for name, words in READING.items():
        for what, shell in {
            "stdin closed": 'exec "$@" <&-', "stdout closed": 'exec "$@" >&-',
            "all closed": 'exec "$@" <&- >&- 2>&-',
            "stdout read no more": '"$@" | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}',
        }.items():  # fmt: skip
            yield Child(*name, what, words, (0,), shell)
        yield Child(*name, "stdout full", words, (2,), 'exec "$@" > /dev/full')
        for what, environment in {
            "LANG=C": QUIET, "no HOME": {"HOME": None}, "HOME nowhere": {"HOME": "/nowhere"},
            "TERM=dumb": {"TERM": "dumb"}, "a narrow terminal": {"COLUMNS": "1"},
            "ASCII": {"PYTHONIOENCODING": "ascii:strict"},
        }.items():  # fmt: skip
            yield Child(*name, what, words, (0,), environment=environment)
    for name, words in WRITING.items():
        there = tuple(f"full/{word}" if word.startswith("new") else word for word in words)
        yield Child(*name, "a full disk", there, harm=functools.partial(fill, room=0))
        fills = functools.partial(fill, room=600_000)
        yield Child(*name, "a disk that fills up", there, (0, 2), harm=fills)
    scarce = (KERAS, "check-data"), (KERAS, "fit"), (KERAS, "predict"), (EXPORT, "check")
    for name in scarce:
        words = {**READING, **WRITING}[name]
        # With less, OpenBLAS waits for its memory for ever while SciPy is imported.
        for size in (4000,):  # MB of address space
            shell = f'ulimit -v {size * 1024}; exec "$@"'
            yield Child(*name, f"{size} MB of memory", words, (0, 2), shell)
        yield Child(*name, "16 open files", words, (0, 2), 'ulimit -n 16; exec "$@"')
    for seed in range(3):
        for command, words in {
            "check": ("bundle",), "predict": ("bundle", "photo.png"), "inspect": ("toy.tflite",),
            "bench": ("toy.tflite", "--rounds", "1"),
        }.items():  # fmt: skip
            what = f"models with wrong bits, {seed}"
            yield Child(EXPORT, command, what, words, (0, 2, 3), harm=wrong_bits(seed))
