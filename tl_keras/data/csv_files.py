"""Read CSV files: `path,label[,split]`, or `path`, one column an output and maybe `split`.

Paths are relative to the CSV's own folder (or absolute); backslashes are read as slashes where
only that names a file. Labels are a class (task "classes"), tags separated by "|" (task "tags",
nothing for none) or numbers separated by "|" (task "values"). Without a column `label`, each
further column is a tag (0 or 1) or a value, named by its head. Existence is checked by listing
each folder once, not by one stat a row.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from tl_keras import tasks
from tl_keras.data.folders import SPLIT_WORDS, listed
from tl_keras.data.samples import Samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality
from tl_keras.tasks.base import Task, read_numbers

__all__ = ["TableRow", "from_csv", "parse_labels", "parse_split", "refuse_untrained"]

_KNOWN = ("path", "label", "split")


class TableRow(Protocol):
    """One row of a table of samples: where it stands, its label as written, and its split."""

    @property
    def line(self) -> int:
        """Number of its line."""

    @property
    def label(self) -> str:
        """Its label; columns of outputs joined by "|"."""

    @property
    def split(self) -> str:
        """Its split."""


@dataclass(frozen=True)
class _Row:
    """One line: where it stands, and its fields, stripped; columns of outputs joined by "|"."""

    line: int
    path: str
    label: str
    split: str


def from_csv(table: str, modality: Modality, task: str = "classes", fewest: int = 2) -> Samples:
    """Read a CSV file (UTF-8, comma-separated, with a header).

    Args:
        table: absolute path of the CSV file.
        modality: what the files are.
        task: name of a task; says how the label column is read.
        fewest: classes that there must be, 1 or 2.

    Returns:
        Samples in the rows' order; keys are the paths as written, normalized; class names
        are sorted (for "values": "value", or "value 1", "value 2"...), or the heads of the
        columns in their order.

    Raises:
        DataError: if a column or a file is missing, a row has too many or too few fields
            (a label with an unquoted comma), a split word is unknown, a label is missing or
            no number, a file is listed twice, or there are fewer classes than that.
    """
    kind = tasks.get(task)
    outputs, written = _rows(table, kind)
    folder = os.path.dirname(table)
    rows = _with_slashes(written, folder)
    keys = tuple(_key(row.path) for row in rows)
    items = [os.path.normpath(os.path.join(folder, key)) for key in keys]
    _refuse_repeated(table, rows, items)
    note = "; backslashes were read as slashes" if rows is not written else ""
    _refuse_unknown(table, rows, items, note)
    words = tuple(parse_split(table, row) for row in rows)
    names, labels = parse_labels(table, rows, outputs, kind)
    if len(names) < min(fewest, kind.fewest):
        raise DataError(f"{table} has one class ({names[0]}); expected two or more.")
    splits = words if any(words) else None
    samples = Samples(items, labels, names, keys, modality, splits, task, table)
    refuse_untrained(samples)
    return samples


def parse_labels(
    table: str, rows: Sequence[TableRow], outputs: Sequence[str], kind: Task
) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the labels of a table's rows.

    Args:
        table: Its path, for messages.
        rows: Its rows.
        outputs: Names of the columns of outputs, where there is no column of labels.
        kind: The task.

    Returns:
        Names in output order, and labels as the task has them.

    Raises:
        DataError: A label makes no sense; the message says where.
    """

    def where(index: int) -> str:
        return f"{table}, line {rows[index].line}"

    if not outputs:
        return kind.parse([row.label for row in rows], where)
    numbers: np.ndarray = np.empty((len(rows), len(outputs)), np.float32)
    for index, row in enumerate(rows):
        numbers[index] = read_numbers(row.label, where(index))
    try:
        return kind.check(numbers, outputs)
    except DataError as error:
        raise DataError(f"{table}: {error}") from error


def _with_slashes(rows: list[_Row], folder: str) -> list[_Row]:
    first = next((row.path for row in rows if "\\" in row.path), None)
    if os.sep == "\\" or first is None or os.path.lexists(os.path.join(folder, first)):
        return rows
    return [replace(row, path=row.path.replace("\\", "/")) for row in rows]


def _rows(table: str, kind: Task) -> tuple[list[str], list[_Row]]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns, outputs = _columns(table, next(reader, []), kind)
            rows = [_row(table, reader.line_num, f, columns) for f in reader if any(f)]
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error.reason}): save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}. Is a quote open?") from error
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror}.") from error
    if not rows:
        raise DataError(f"{table} has a header and no rows: add one row for each sample.")
    return outputs, rows


def _columns(table: str, header: list[str], kind: Task) -> tuple[list[str], list[str]]:
    """Return what each column is, and the names of the outputs that have a column each."""
    heads = [name.strip() for name in header]
    columns = [name.lower() if name.lower() in _KNOWN else name for name in heads]
    outputs = [] if "label" in columns else [name for name in columns if name not in _KNOWN]
    wrong = [name for name in ("path", "label") if columns.count(name) != 1]
    expected = "path,label or path,label,split"
    if not kind.single_label:
        expected += ", or path and one column a tag or value"
        if wrong == ["label"] and outputs:
            wrong = [name or "(a name)" for name in outputs if not name or outputs.count(name) > 1]
    if wrong:
        hint = ""
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            hint = " The columns must be separated by commas."
        elif {"text", "sentence"} & {name.lower() for name in heads}:
            hint = " A table of texts is read with --task text."
        elif outputs and "path" in columns and kind.single_label:
            hint = " One column a tag (0 or 1) is read as task 'tags', one a number as 'values'."
        raise DataError(
            f"{table} has the columns {header}; missing or repeated: {', '.join(wrong)}. "
            f"Expected the first line {expected}.{hint}"
        )
    return ["label" if name in outputs else name for name in columns], outputs


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
    values: dict[str, str] = {}
    for name, field in zip(columns, fields, strict=True):
        repeated = name == "label" and name in values
        values[name] = f"{values[name]}|{field.strip()}" if repeated else field.strip()
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
                "Keep one row for each sample (for several labels a sample: task 'tags')."
            )
        first[item] = row.line


def _refuse_unknown(table: str, rows: Sequence[_Row], items: Sequence[str], note: str) -> None:
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
            f"Paths are relative to {os.path.dirname(table)}{note}."
        )


def _names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def parse_split(table: str, row: TableRow) -> str:
    """Return "train", "val", "test" or "" for a row.

    Raises:
        DataError: The word is unknown.
    """
    word = row.split.lower()
    if word and word not in SPLIT_WORDS:
        raise DataError(
            f"{table}, line {row.line}: unknown split {row.split!r}; expected train, val "
            "(valid, validation), test or nothing. If the label contains a comma, put the "
            "label in quotes."
        )
    return SPLIT_WORDS[word] if word else ""


def refuse_untrained(samples: Samples) -> None:
    """Refuse classes that only splits have which nothing is learned from.

    Raises:
        DataError: There is one.
    """
    if samples.splits is None:
        return
    learned = np.array([word in ("", "train") for word in samples.splits])
    if missing := samples.kind.missing(samples.labels[learned], samples.class_names):
        raise DataError(
            f"{samples.root}: the classes {listed(missing)} are in val or test only. "
            "Give each class rows in train."
        )
