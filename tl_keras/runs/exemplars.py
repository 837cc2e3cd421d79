"""The images of a run that has learned in steps: a table within the run, and images it keeps.

`pictures.csv` has a row for each image: where it is (relative to the run for what the run
keeps itself), its class, its split, the step in which it came, and a hash of its pixels.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from tl_keras.data.samples import SPLITS, Samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality

__all__ = [
    "MEMORY", "ROOT", "TABLE", "Row", "find_kept", "parse_bytes", "read_rows",
    "make_samples", "format_rows",
]  # fmt: skip

TABLE = "pictures.csv"
MEMORY = "memory"
"""The folder within a run that holds the images it keeps, named by their digests."""
ROOT = "run:" + TABLE
"""What a run's record says as the place of such data: it moves with the run."""

_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        path: Absolute, or relative to the run.
        label: Its class.
        split: "train", "val" or "test".
        task: Number of the step in which it came, from 0.
        digest: Hash of its pixels before it was compress.
    """

    path: str
    label: str
    split: str
    task: int
    digest: str


def format_rows(rows: Iterable[Row]) -> bytes:
    """Return the table as a file's content."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def read_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """Read a run's table; paths come out absolute.

    Raises:
        DataError: It is missing or does not read.
    """
    path = Path(folder).absolute() / TABLE
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as handle:
            found = [_row(path.parent, values) for values in csv.DictReader(handle)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} does not read ({error}); put the file back") from error
    return found


def _row(folder: Path, values: dict[str, str]) -> Row:
    where = os.path.normpath(folder / values["path"])
    words = values["label"], values["split"], int(values["task"]), values["digest"]
    return Row(where, *words)


def make_samples(
    rows: Sequence[Row], class_names: Sequence[str], root: str, modality: Modality
) -> Samples:
    """Return rows as samples; keys are digests, so that they stay when images move.

    Raises:
        DataError: A class is not among the names, or a split is unknown.
    """
    index = {name: i for i, name in enumerate(class_names)}
    if unknown := sorted({row.label for row in rows} - set(index)):
        raise DataError(f"{root} has the unknown class {unknown[0]}; expected {list(index)[:10]}")
    labels = np.array([index[row.label] for row in rows], np.int64)
    items, keys = [row.path for row in rows], tuple(row.digest for row in rows)
    words = tuple(row.split for row in rows)
    return Samples(items, labels, tuple(class_names), keys, modality, words, "classes", root)


def find_kept(
    folder: str | os.PathLike[str], class_names: Sequence[str], modality: Modality
) -> tuple[Samples, dict[str, list[int]], list[str]]:
    """Return a run's images, where each split's are among them, and the paths of those gone.

    Raises:
        DataError: The table is missing or does not read.
    """
    rows, gone = [], []
    for row in read_rows(folder):
        if os.path.exists(row.path):
            rows.append(row)
        else:
            gone.append(row.path)
    splits = {name: [i for i, r in enumerate(rows) if r.split == name] for name in SPLITS}
    samples = make_samples(rows, class_names, str(Path(folder) / TABLE), modality)
    return samples, splits, gone


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as "20MB", "500 kB" or "1GiB".

    Raises:
        DataError: It is none, below 1 byte or above 100 GB.
    """
    word = text.strip().lower()
    number = word.rstrip("bikmg ")
    unit = word[len(number) :].strip()
    try:
        value = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        value = 0.0
    if not 1 <= value <= 1e11:
        raise DataError(
            f"got '{text}' as a size in bytes; expected such as 20MB or 500kB, up to 100GB"
        )
    return int(value)
