"""A run directory: what is in it, read and written atomically.

run.json      the record; its `state` is "incomplete" until all the rest is there
split.csv     key and split of every sample used, its label, and what tells whether it changed
labels.txt    one class a line, in output order
model.keras   the trained model
adapter.npz   what plan lora or adapters added to the base, alone
history.csv   one row an epoch
plots/*.png   report.html
state/        what resuming needs; gone when the run is complete
lock          there while somebody writes
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras import modalities, tasks
from tl_keras.data.samples import SPLITS, Samples, in_order
from tl_keras.data.sources import load_again
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, ModelError, RunError, TLKerasError
from tl_keras.modalities.base import Modality
from tl_keras.runs import exemplars as kept
from tl_keras.runs.config import RunConfig
from tl_keras.utils.files import (
    irregular,
    is_within,
    read_small,
    remove_leavings,
    unwritable,
    write_atomically,
)
from tl_keras.utils.locks import LOCK
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = ["SCHEMA", "RunDirectory"]

SCHEMA = 2


class RunDirectory:
    """Reads and writes one run.

    Args:
        path: The directory of an existing run, complete or not.

    Raises:
        RunError: It is no run directory, does not read, or is from a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record = self._read_record()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        record: dict[str, Any],
        files: Mapping[str, bytes] | None = None,
    ) -> RunDirectory:
        """Make a new run directory with a first record.

        Args:
            path: The directory.
            record: What is known of the run.
            files: What its modality reads with, see `tl_keras.modalities.base.Modality.files`.

        Raises:
            RunError: Something is there already.
            StorageError: It cannot be written.
        """
        folder = Path(path)
        refuse_existing(folder)
        for name, contents in (files or {}).items():
            write_atomically(folder / name, contents)
        write_atomically(folder / "run.json", _json({"schema": SCHEMA, **record}))
        return cls(folder)

    def _read_record(self) -> dict[str, Any]:
        file = self.path / "run.json"
        if not os.path.lexists(file):
            what = "has no run.json" if self.path.is_dir() else "is no folder"
            what = what if os.path.lexists(self.path) else "does not exist"
            raise RunError(f"{self.path} {what}; expected a run that 'tl-keras fit' made")
        try:
            record = json.loads(read_small(file).decode("utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            raise _unreadable(file, error) from error
        schema: Any = record.get("schema") if isinstance(record, dict) else None
        if not _is_number(schema, int, 1) or "state" not in record and schema <= SCHEMA:
            raise RunError(f"{file} is no record of a run; expected what 'tl-keras fit' wrote")
        if schema > SCHEMA:
            raise RunError(
                f"{file} has schema {schema}, this version reads up to {SCHEMA}; update tl_keras"
            )
        if schema == 1 and "job" in record:
            record["config"] = record.pop("job")
        for way, (is_right, expected) in _FACTS.items():
            value = _at(record, way)
            if value is not _MISSING and not is_right(value):
                got = json.dumps(value)[:60]
                raise RunError(
                    f"{file}: {way} is {got}, expected {expected}; the run cannot be used"
                )
        return record

    @property
    def config(self) -> RunConfig:
        """What the run was asked for.

        Raises:
            RunError: The record's does not read.
        """
        try:
            return RunConfig.from_dict(self.fact("config"))
        except TLKerasError as error:
            raise RunError(f"the configuration in {self.path}/run.json: {error}") from error

    @property
    def complete(self) -> bool:
        """Whether training and evaluation have ended."""
        return self.record.get("state") == "complete"

    @property
    def state(self) -> Path:
        """Where what resuming needs is kept."""
        return self.path / "state"

    def fact(self, *keys: str) -> Any:
        """Return a fact of the record, by the way down to it.

        Raises:
            RunError: The record lacks it.
        """
        value = _at(self.record, ".".join(keys))
        if value is _MISSING:
            raise RunError(
                f"{self.path / 'run.json'} lacks {'.'.join(keys)}; the run cannot be used"
            )
        return value

    def require_complete(self) -> None:
        """Check that the run can be used.

        Raises:
            RunError: It is not complete.
        """
        if self.complete:
            return
        why = self.record.get("stopped")
        way = why or f"finish it with: tl-keras resume {shlex.quote(str(self.path))}"
        raise RunError(f"{self.path} is not complete; {way}")

    def update(self, **facts: Any) -> None:
        """Set facts in the record and write it."""
        self.record.update(facts)
        write_atomically(self.path / "run.json", _json(self.record))

    def finish(self) -> None:
        """Say that all is there, and remove what only resuming needs."""
        self.update(state="complete")
        shutil.rmtree(self.state, ignore_errors=True)

    def write_labels(self, names: tuple[str, ...]) -> None:
        """Write labels.txt, one class a line; a line break in a name becomes a space."""
        lines = "".join(" ".join(name.splitlines()) + "\n" for name in names)
        write_atomically(self.path / "labels.txt", lines.encode("utf-8", "surrogateescape"))

    def write_split(self, data: Splits, digests: Mapping[str, str] | None = None) -> None:
        """Write which sample is in which split, and what it was: its label and its content.

        Args:
            data: The samples.
            digests: Hash of each sample's content by its key, see `Modality.digest`.
        """
        rows = [
            {"key": key, "split": name, **row, "digest": (digests or {}).get(key, "")}
            for name, part in _parts(data)
            for key, row in zip(part.keys, map(_traits, part.items, _texts(part)), strict=True)
        ]
        fields = ["key", "split", "label", "digest", "bytes", "modified"]
        write_atomically(self.path / "split.csv", _csv(rows, fields))

    def digests(self) -> dict[str, str]:
        """Return the hash of each sample's content by its key, empty for an older run."""
        rows = _read_csv(self.path / "split.csv", "key")
        return {row["key"]: row["digest"] for row in rows if row.get("digest")}

    def split_keys(self) -> dict[str, set[str]]:
        """Return the keys of the samples of each split ("train", "val", "test")."""
        keys: dict[str, set[str]] = {name: set() for name in SPLITS}
        for row in _read_csv(self.path / "split.csv", "key", "split"):
            keys.setdefault(row["split"], set()).add(row["key"])
        return keys

    def require_unchanged(self, data: Splits, progress: Progress) -> None:
        """Check that samples are what the run began with: their labels and their content.

        A file of the same size and time is not read; any other one is.

        Args:
            data: The run's samples as they are now.
            progress: Called with a task's name, what is done and of how much.

        Raises:
            RunError: A label or a content is another.
        """
        before = {row["key"]: row for row in _read_csv(self.path / "split.csv", "key")}
        labels, contents, done = [], [], 0
        for _, part in _parts(data):
            for key, item, label in zip(part.keys, part.items, _texts(part), strict=True):
                old, now = before[key], _traits(item, label)
                if old.get("label", label) != label:
                    labels.append(f"{key} was {old['label']} and is {label}")
                same = now["bytes"] and all(old.get(k) == now[k] for k in ("bytes", "modified"))
                if not same and old.get("digest", "") not in ("", part.modality.digest(item)):
                    contents.append(f"{key} is another {part.modality.noun}")
                done += 1
                progress("check for changes", done, len(before))
        if changed := labels + contents:
            raise RunError(
                f"the data is not what {self.path} began with: {len(labels)} labels and "
                f"{len(contents)} contents changed, such as: {changed[0]}. Put the data back, or "
                "start a new run"
            )

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write history.csv."""
        fields = ["stage", "epoch", "stage_epoch", "learning_rate", "loss", "accuracy", "val_loss"]
        write_atomically(
            self.path / "history.csv", _csv(rows, [*fields, "val_accuracy", "seconds"])
        )

    def history(self) -> list[dict[str, str]]:
        """Return history.csv's rows; the column that used to be "rate" is "learning_rate"."""
        rows = _read_csv(self.path / "history.csv")
        names = {"rate": "learning_rate"}
        return [{names.get(key, key): value for key, value in row.items()} for row in rows]

    def model(self, path: Path | None = None) -> keras.Model:
        """Return the trained model.

        Args:
            path: Another model of the run, which need not be complete then.

        Raises:
            RunError: The run is not complete, or the file does not load or is of another run.
        """
        from tl_keras.models.backbones.weights import load_user_model

        if path is None:
            self.require_complete()
            path = self.path / "model.keras"
        try:
            model = load_user_model(path)
        except ModelError as error:
            way = "put the file back or fit anew"
            raise RunError(f"{error}; the run does not load, {way}") from error
        classes = self.fact("classes")
        if [one.shape[1:] for one in model.outputs] != [(len(classes),)]:
            got = ", ".join(str(tuple(one.shape[1:])) for one in model.outputs)
            raise RunError(
                f"{path} gives {got} for a sample, expected ({len(classes)},), a number for each "
                "of the run's classes; put the run's own file back"
            )
        size, taken = self.record.get("size"), [tuple(one.shape[1:]) for one in model.inputs]
        if size is not None and [shape[:1] for shape in taken] != [(size,)]:
            raise RunError(
                f"{path} takes {taken}, expected one input of {size} px as the run has; put the "
                "run's own file back"
            )
        return model

    def splits(self, root: str | os.PathLike[str] | None = None) -> Splits:
        """Return the samples of the run as they were split.

        Args:
            root: Where the data is now, when it moved.

        Raises:
            DataError: The data, or some images of it, are not where they were.
        """
        samples, chosen, missing = self.find(root)
        if missing:
            where = root or self.fact("data", "root")
            raise DataError(
                f"{len(missing)} pictures of the run are no longer under {where}, the first is "
                f"{missing[0]}; put them back, or where the folder moved give --data to resume or "
                "tl-export"
            )
        for name, count in self.record["data"].get("pictures", {}).items():
            if count and not chosen.get(name) and self.fact("data", "root") != kept.ROOT:
                raise RunError(
                    f"{self.path / 'split.csv'} names no sample of the split {name}, expected "
                    f"{count}; the run cannot be used"
                )
        parts = {name: samples.take(indices) for name, indices in chosen.items()}
        return Splits(parts["train"], parts["val"], parts["test"] if chosen["test"] else None)

    @property
    def modality(self) -> Modality:
        """What reads samples as the run's own were read."""
        data = self.fact("data")
        return modalities.get(data.get("modality", "image"), data.get("reading"), self.path)

    def find(
        self, root: str | os.PathLike[str] | None = None
    ) -> tuple[Samples, dict[str, list[int]], list[str]]:
        """Return the data as it is now, where each split's samples are in it, and what is gone.

        Args:
            root: Where the data is now, when it moved.

        Returns:
            Samples whose labels count as the run's classes do; indices by split; keys.

        Raises:
            DataError: There is no data at all.
        """
        if self.fact("data", "root") == kept.ROOT:
            return kept.find_kept(self.path, self.fact("classes"), self.modality)
        samples = load_again(
            self.fact("data", "root"), root, self.fact("data", "task"), self.modality
        )
        if samples.labels.ndim == 1:
            samples = in_order(samples, self.fact("classes"))
        places = {key: index for index, key in enumerate(samples.keys)}
        chosen: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        missing = []
        for row in _read_csv(self.path / "split.csv", "key", "split"):
            if row["key"] in places and row["split"] in chosen:
                chosen[row["split"]].append(places[row["key"]])
            else:
                missing.append(row["key"])
        return samples, chosen, missing

    def samples(self, split: str, root: str | os.PathLike[str] | None = None) -> Samples:
        """Return the samples of one split ("train", "val" or "test").

        Raises:
            DataError: The data moved, or there is no such split.
        """
        part = getattr(self.splits(root), split, None)
        if part is None:
            raise DataError(f"{self.path} has no {split} split; expected train or val")
        return part


def _parts(data: Splits) -> list[tuple[str, Samples]]:
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return [(name, part) for name, part in parts.items() if part is not None]


def _texts(part: Samples) -> list[str]:
    """Labels as text, exact."""
    if part.labels.ndim == 1:
        return [part.class_names[label] for label in part.labels]
    return [" ".join(f"{value:.9g}" for value in row) for row in part.labels]


def _traits(item: Any, label: str) -> dict[str, str]:
    facts = os.stat(item) if isinstance(item, str) else None
    return {
        "label": label,
        "bytes": str(facts.st_size) if facts else "",
        "modified": str(facts.st_mtime_ns) if facts else "",
    }


def refuse_existing(folder: Path, *inputs: str | os.PathLike[str] | None) -> None:
    """Check that a new run may be written here.

    Args:
        folder: Where it is to be.
        *inputs: What is read: a folder of samples must not come to hold what is written.

    Raises:
        RunError: The folder exists and is not empty, cannot be made, or lies among the samples.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        kind = irregular(folder) or ("a file" if folder.exists() else "a link to nowhere")
        raise RunError(f"{folder} is {kind}; choose another --out")
    if data := is_within(folder, *inputs):
        raise RunError(f"{folder} lies within {data}, which is read; choose another --out")
    remove_leavings(folder)
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        way = f"finish it with: tl-keras resume {shlex.quote(str(folder))}"
        unfinished = (folder / "state").exists()
        raise RunError(
            f"{folder} exists already and was not changed; choose another --out"
            + (f", or {way}" if unfinished else "")
        )
    if why := unwritable(folder):
        raise RunError(f"{folder} cannot be written ({why}); choose another --out")


_MISSING = object()
_FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "state": (
        lambda value: value in ("beginning", "choosing", "incomplete", "complete"),
        "incomplete or complete",
    ),
    "classes": (
        lambda value: isinstance(value, list) and bool(value)
        and all(isinstance(name, str) for name in value) and len(set(value)) == len(value),
        "names that differ",
    ),
    "data": (lambda value: isinstance(value, dict), "what the data is"),
    "data.root": (lambda value: isinstance(value, str) and value != "", "where the data is"),
    "data.task": (
        lambda value: isinstance(value, str) and value in tasks.names(), "the name of a task"
    ),
    "data.modality": (lambda value: isinstance(value, str), "the name of a modality"),
    "seed": (lambda value: _is_number(value, int, 0), "0 or more"),
    "size": (
        lambda value: value is None or _is_number(value, int, 1, 2**16),
        "a side in pixels",
    ),
    "temperature": (
        lambda value: value is None or _is_number(value, (int, float), 1e-9),
        "a number above 0",
    ),
    "thresholds": (
        lambda value: value is None
        or (isinstance(value, list) and all(_is_number(one, (int, float), 0, 1) for one in value)),
        "numbers of 0 to 1",
    ),
}  # fmt: skip
"""What all readers of a record rely on: whether a value is right, and what it should be."""


def _is_number(value: Any, kind: Any, least: float, most: float = math.inf) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most


def _at(record: Any, way: str) -> Any:
    for key in way.split("."):
        if not isinstance(record, dict) or key not in record:
            return _MISSING
        record = record[key]
    return record


def _unreadable(file: Path, error: Exception) -> RunError:
    why = getattr(error, "strerror", None) or error
    return RunError(f"{file} does not read ({why}); the run cannot be used")


def _json(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    # A file's name that is no UTF-8 comes back from these escapes as it was.
    return text.encode("utf-8", "backslashreplace")


def _csv(rows: list[dict[str, Any]], fields: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _read_csv(path: Path, *fields: str) -> list[dict[str, str]]:
    try:
        text = read_small(path).decode("utf-8", "surrogateescape")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if any(row.get(field) is None for row in rows for field in fields):
        raise RunError(f"{path} lacks {' or '.join(fields)} on a line; the run cannot be used")
    return rows
