"""Convert, compare, and only then ship: what happens to a source on its way out."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from export import onnx, tflite
from export.errors import ExportError
from export.runtimes import KerasRuntime, Runtime, default_threads, load
from export.signature import INPUT, OUTPUT, signature
from export.source import Source
from export.verify import Comparison, compare, require
from tl_keras.errors import StorageError

__all__ = ["FORMATS", "Artifact", "Format", "Source", "check_destination", "export"]

SCHEMA = 1
_BATCH = 16
_TIMED = 30
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Format:
    """A file format to leave as.

    Attributes:
        file: name of the file.
        tolerance: largest absolute difference from Keras that is allowed in any output.
        convert: makes the file's contents.
    """

    file: str
    tolerance: float
    convert: Callable[[Source], bytes]


FORMATS = {
    "tflite": Format("model.tflite", 1e-4, lambda source: tflite.convert(source.model)),
    "onnx": Format(
        "model.onnx", 1e-5, lambda source: onnx.convert(source.model, source.class_names)
    ),
}


@dataclass(frozen=True)
class Artifact:
    """A file that was shipped, with its proof.

    Attributes:
        format: its name in `FORMATS`.
        file: its name.
        bytes: its size.
        sha256: of its contents, in hexadecimal.
        comparison: with Keras.
        milliseconds: median time for one picture.
        threads: how many cores that took.
    """

    format: str
    file: str
    bytes: int
    sha256: str
    comparison: Comparison
    milliseconds: float
    threads: int

    def record(self) -> dict:
        """Return what is written down about it: numbers, no lists of pictures."""
        facts = asdict(self)
        for name in ("differing", "per_picture"):
            del facts["comparison"][name]
        return facts


def check_destination(out: Path, formats: Sequence[str], force: bool = False) -> None:
    """Refuse a destination before any work is done.

    Raises:
        ExportError: if a format is unknown, or a file to be written exists and `force` is not
            set.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ExportError(f"Unknown format {unknown}; expected some of: {', '.join(FORMATS)}.")
    if not formats:
        raise ExportError(f"No format was named; expected some of: {', '.join(FORMATS)}.")
    names = [*(FORMATS[name].file for name in formats), "labels.txt", "export.json"]
    present = [name for name in names if (out / name).exists()]
    if present and not force:
        raise ExportError(
            f"{out} holds {', '.join(present)} already; name another folder with --out, or "
            "replace them with --force."
        )
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file; expected a folder, or nothing yet.")


def export(
    source: Source,
    formats: Sequence[str],
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress = lambda word, done, total: None,
) -> list[Artifact]:
    """Write a model in several formats, each compared with Keras first.

    Everything is made in a temporary folder beside `out` and moved when all formats have
    passed: after a failure, `out` is as it was. Written are the model files, `labels.txt` (one
    class a line, in output order) and `export.json` (the comparison and the versions).

    Args:
        source: what to write, and the pictures to compare on.
        formats: names in `FORMATS`.
        out: the folder to write to; made if it is not there.
        force: whether files that are there already are replaced.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        What was written, in the order of `formats`.

    Raises:
        ParityError: if an artifact's answers differ; nothing is written then.
        ExportError: if a conversion fails, or the destination is taken.
        StorageError: if `out` cannot be written.
    """
    out, formats = Path(out), tuple(dict.fromkeys(formats))
    check_destination(out, formats, force)
    with _staging(out) as folder:
        truth = _answers(KerasRuntime(source.model), source, progress, "Keras")
        made = [_artifact(name, source, truth, folder, progress) for name in formats]
        # A line break in a name would shift every label after it.
        labels = "".join(" ".join(name.splitlines()) + "\n" for name in source.class_names)
        (folder / "labels.txt").write_text(labels, encoding="utf-8")
        _write_record(folder / "export.json", source, made)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            os.replace(file, out / file.name)
    return made


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.absolute().parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written: {error.strerror or error}. Free some space or name "
            "another folder with --out."
        ) from error


def _artifact(
    name: str, source: Source, truth: np.ndarray, folder: Path, progress: Progress
) -> Artifact:
    format_, threads = FORMATS[name], default_threads()
    progress(f"converting to {name}", 0, 1)
    contents = format_.convert(source)
    file = folder / format_.file
    file.write_bytes(contents)
    runtime = load(file, threads)
    answers = _answers(runtime, source, progress, format_.file)
    comparison = compare(truth, answers, format_.tolerance, source.task)
    require(comparison, format_.file, source.keys)
    return Artifact(
        format=name,
        file=format_.file,
        bytes=len(contents),
        sha256=hashlib.sha256(contents).hexdigest(),
        comparison=comparison,
        milliseconds=_milliseconds(runtime, source.pictures),
        threads=threads,
    )


def _answers(runtime: Runtime, source: Source, progress: Progress, name: str) -> np.ndarray:
    total, answers = len(source.pictures), []
    for start in range(0, total, _BATCH):
        progress(f"asking {name}", start, total)
        answers.append(runtime.predict(source.pictures[start : start + _BATCH]))
    progress(f"asking {name}", total, total)
    return np.concatenate(answers)


def _milliseconds(runtime: Runtime, pictures: np.ndarray) -> float:
    """Median over single pictures; the first three only warm up."""
    times = []
    for index in range(_TIMED + 3):
        one = pictures[index % len(pictures)][np.newaxis]
        start = time.perf_counter()
        runtime.predict(one)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:]))


def _write_record(path: Path, source: Source, made: Sequence[Artifact]) -> None:
    record = {
        "schema": SCHEMA,
        "name": source.name,
        "task": source.task,
        "classes": list(source.class_names),
        "input": {
            "name": INPUT,
            "shape": [1, *signature(source.model).shape],
            "type": "float32",
            "values": "RGB, 0..255, no scaling",
        },
        "output": {"name": OUTPUT, "shape": [1, len(source.class_names)], "type": "float32"},
        "versions": _versions(),
        "artifacts": [artifact.record() for artifact in made],
    }
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from tl_keras import __version__

    found = {"tl_keras": __version__}
    for name in ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
