"""CSV files: `path,label[,split]`, one row a picture.

Paths are relative to the CSV's own folder (or absolute). Labels are a class (task "classes"),
tags separated by "|" (task "tags", nothing for none) or numbers separated by "|" (task
"values"). Existence is checked by listing each folder once, not by one stat a row.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_keras import tasks
from tl_keras.data.folders import SPLIT_WORDS, listed
from tl_keras.data.samples import Samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality

__all__ = ["from_csv"]


@dataclass(frozen=True)
class _Row:
    """One line: where it stands, and its three fields, stripped."""

    line: int
    path: str
    label: str
    split: str


def from_csv(
    table: str, modality: Modality, task: str = "classes", fewest: int = 2
) -> Samples:
    """Read a CSV file (UTF-8, comma-separated, with a header).

    Args:
        table: absolute path of the CSV file.
        modality: what the files are.
        task: name of a task; says how the label column is read.
        fewest: classes that there must be, 1 or 2.

    Returns:
        Samples in the rows' order; keys are the paths as written, normalised; class names
        are sorted (for "values": "value", or "value 1", "value 2"...).

    Raises:
        DataError: if a column or a file is missing, a row has too many or too few fields
            (a label with an unquoted comma), a split word is unknown, a label is missing or
            no number, a file is listed twice, or there are fewer classes than that.
    """
    rows = _rows(table)
    folder = os.path.dirname(table)
    keys = tuple(_key(row.path) for row in rows)
    items = [os.path.normpath(os.path.join(folder, key)) for key in keys]
    _refuse_repeated(table, rows, items)
    _refuse_unknown(table, rows, items)
    words = tuple(_split_word(table, row) for row in rows)
    kind = tasks.get(task)
    names, labels = kind.parse(
        [row.label for row in rows], lambda index: f"{table}, line {rows[index].line}"
    )
    if len(names) < min(fewest, kind.fewest):
        raise DataError(f"{table} has one class ({names[0]}); expected two or more.")
    splits = words if any(words) else None
    samples = Samples(items, labels, names, keys, modality, splits, task, table)
    _refuse_untrained(samples)
    return samples


def _rows(table: str) -> list[_Row]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = _columns(table, next(reader, []))
            rows = [_row(table, reader.line_num, f, columns) for f in reader if any(f)]
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error.reason}): save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}. Is a quote open?") from error
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror}.") from error
    if not rows:
        raise DataError(f"{table} has a header and no rows: add one row for each picture.")
    return rows


def _columns(table: str, header: list[str]) -> list[str]:
    columns = [name.strip().lower() for name in header]
    missing = [name for name in ("path", "label") if columns.count(name) != 1]
    if missing:
        hint = ""
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            hint = " The columns must be separated by commas."
        raise DataError(
            f"{table} has the columns {header}; missing or repeated: {', '.join(missing)}. "
            f"Expected the first line path,label or path,label,split.{hint}"
        )
    return columns


def _row(table: str, line: int, fields: list[str], columns: list[str]) -> _Row:
    if len(fields) != len(columns):
        hint = (
            'If a label or a path contains a comma, put the label in quotes: a.jpg,"red, blue".'
            if len(fields) > len(columns)
            else "Fill in what is missing."
        )
        raise DataError(
            f"{table}, line {line}: {len(fields)} fields ({','.join(fields)}), expected "
            f"{len(columns)} ({','.join(columns)}). {hint}"
        )
    values = dict(zip(columns, (field.strip() for field in fields), strict=True))
    if not values["path"] or "\0" in values["path"]:
        raise DataError(f"{table}, line {line}: the path is empty or contains a zero byte.")
    return _Row(line, values["path"], values["label"], values.get("split", ""))


def _key(path: str) -> str:
    return os.path.normpath(path).replace(os.sep, "/")


def _refuse_repeated(table: str, rows: Sequence[_Row], items: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, item in zip(rows, items, strict=True):
        if item in first:
            raise DataError(
                f"{table}: {row.path} is listed twice, on lines {first[item]} and {row.line}. "
                "Keep one row for each picture (for several labels a picture: task 'tags')."
            )
        first[item] = row.line


def _refuse_unknown(table: str, rows: Sequence[_Row], items: Sequence[str]) -> None:
    present: dict[str, set[str]] = {}
    unknown = []
    for row, item in zip(rows, items, strict=True):
        folder, name = os.path.split(item)
        if folder not in present:
            present[folder] = _names(folder)
        if name not in present[folder]:
            unknown.append(f"line {row.line}: {row.path}")
    if unknown:
        raise DataError(
            f"{table} names {len(unknown)} files that do not exist ({listed(unknown, 5)}). "
            f"Paths are relative to {os.path.dirname(table)}."
        )


def _names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def _split_word(table: str, row: _Row) -> str:
    word = row.split.lower()
    if word and word not in SPLIT_WORDS:
        raise DataError(
            f"{table}, line {row.line}: unknown split {row.split!r}; expected train, val "
            "(valid, validation), test or nothing. If the label contains a comma, put the "
            "label in quotes."
        )
    return SPLIT_WORDS[word] if word else ""


def _refuse_untrained(samples: Samples) -> None:
    if samples.splits is None:
        return
    learned = np.array([word in ("", "train") for word in samples.splits])
    if missing := samples.kind.missing(samples.labels[learned], samples.class_names):
        raise DataError(
            f"{samples.root}: the classes {listed(missing)} are in val or test only. "
            "Give each class rows in train."
        )
