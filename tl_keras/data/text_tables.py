"""Read tables of texts: CSV, TSV and JSONL files with a text and a label in each row.

The text stands in a column `text`, `sentence`, `content`..., the label in `label`, `target`,
`category`... (the names that data sets of the Hugging Face hub have), a split in `split`. Without
a column of labels each further column is a tag (0 or 1) or a value, named by its head. A folder
may hold one table for each split (train.csv, validation.csv or dev.csv, test.csv).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras import tasks
from tl_keras.data.csv_files import parse_labels, parse_split, refuse_untrained
from tl_keras.data.folders import SPLIT_WORDS, listed
from tl_keras.data.samples import SPLITS, Samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality
from tl_keras.modalities.text.reader import Text
from tl_keras.tasks.base import Task

__all__ = ["TABLES", "find_tables", "from_text_tables", "read_texts"]

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of tables."""
_TEXTS = (
    "text", "sentence", "sentence1", "content", "review", "review_body", "question", "document",
    "tweet", "comment", "utterance", "message", "body", "description", "title", "headline",
)  # fmt: skip
_LABELS = (
    "label", "labels", "target", "class", "category", "sentiment", "intent", "topic", "label_text",
    "coarse_label", "label-coarse", "tags", "score", "rating", "stars",
)  # fmt: skip
_SPLIT = "split"
_LONGEST = 16_000_000
_TITLE = 40


@dataclass(frozen=True)
class _Row:
    line: int
    text: str
    label: str
    split: str


def find_tables(folder: str) -> dict[str, str]:
    """Return a folder's tables by the split that their names say; empty where none is of train."""
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            stem, ending = os.path.splitext(entry.name.lower())
            if ending in TABLES and stem in SPLIT_WORDS and entry.is_file():
                word = SPLIT_WORDS[stem]
                if word in found:
                    raise DataError(
                        f"{folder}: {os.path.basename(found[word])} and {entry.name} both mean "
                        f"{word!r}; keep one of them"
                    )
                found[word] = entry.path
    return {word: found[word] for word in SPLITS if word in found} if "train" in found else {}


def from_text_tables(
    tables: dict[str, str], root: str, modality: Modality, task: str = "classes", fewest: int = 2
) -> Samples:
    """Read tables of texts.

    Args:
        tables: Absolute paths by split; "" for a table that may say it in a column.
        root: What to write down as their origin.
        modality: What reads texts.
        task: Name of a task; says how labels are read.
        fewest: Classes that there must be, 1 or 2.

    Returns:
        Samples whose items are `tl_keras.modalities.text.reader.Text`; keys are the beginning of
        a text and a hash of it, the same wherever the row stands.

    Raises:
        DataError: A table does not read, has no column of texts or of labels, or a label makes
            no sense; the message says where.
    """
    kind = tasks.get(task)
    rows, outputs, words = list[_Row](), list[str](), list[str]()
    for split, table in tables.items():
        heads, found = _read(table, kind)
        if rows and heads != outputs:
            raise DataError(f"{table} has the columns {heads}; another split's has {outputs}")
        outputs = heads
        rows += found
        words += [split or parse_split(table, row) for row in found]
    shown = next(iter(tables.values())) if len(tables) == 1 else root
    _refuse_numbers(shown, rows, outputs, kind)
    names, labels = parse_labels(shown, rows, outputs, kind)
    if len(names) < min(fewest, kind.fewest):
        raise DataError(f"{shown} has one class ({names[0]}); expected two or more.")
    items = [Text(row.text) for row in rows]
    splits = tuple(words) if any(words) else None
    keys = _keys([row.text for row in rows])
    samples = Samples(items, labels, names, keys, modality, splits, task, root)
    refuse_untrained(samples)
    return samples


def read_texts(table: str) -> list[str]:
    """Return the texts of a table, whatever other columns it has.

    Raises:
        DataError: It does not read, or has no column of texts.
    """
    return [row.text for row in _read(table, None)[1]]


def _keys(texts: Sequence[str]) -> tuple[str, ...]:
    """Name each text by its beginning and a hash; a repeated one gets "#2", "#3"..."""
    seen: dict[str, int] = {}
    keys = []
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        start = "".join(c if c.isalnum() else " " for c in text[: 2 * _TITLE])
        key = " ".join(f"{' '.join(start.split())[:_TITLE]} {digest}".split())
        seen[key] = seen.get(key, 0) + 1
        keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return tuple(keys)


def _read(table: str, kind: Task | None) -> tuple[list[str], list[_Row]]:
    """Return the names of the columns of outputs, and the rows."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            lines = file.read().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error.reason}): save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror}.") from error
    ending = os.path.splitext(table)[1].lower()
    if ending in (".jsonl", ".ndjson"):
        found = _from_json(table, lines, kind)
    else:
        found = _from_delimited(table, lines, kind, "\t" if ending == ".tsv" else ",")
    if not found[1]:
        raise DataError(f"{table} has no rows: add one for each text.")
    return found


def _from_delimited(
    table: str, lines: str, kind: Task | None, mark: str
) -> tuple[list[str], list[_Row]]:
    records = _split_rows(table, lines, mark)
    if not records:
        raise DataError(f"{table} is empty; expected a first line such as text{mark}label")
    header = records[0][1]
    columns, outputs = _columns(table, header, kind, mark)
    rows = []
    for line, fields in records[1:]:
        if len(fields) != len(columns):
            hint = ' Put a text that holds a comma in quotes: "so, so".' if mark == "," else ""
            raise DataError(
                f"{table}, line {line}: {len(fields)} fields, expected {len(columns)} "
                f"({', '.join(header)}).{hint}"
            )
        rows.append(_row(line, dict(_joined(columns, fields))))
    return outputs, rows


def _joined(columns: Sequence[str], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    labels = [field.strip() for name, field in zip(columns, fields, strict=True) if name == "label"]
    yield from ((n, f) for n, f in zip(columns, fields, strict=True) if n not in ("label", ""))
    yield "label", "|".join(labels)


def _row(line: int, values: dict[str, str]) -> _Row:
    return _Row(line, values["text"].strip(), values["label"], values.get(_SPLIT, "").strip())


def _split_rows(table: str, lines: str, mark: str) -> list[tuple[int, list[str]]]:
    """Return each row's number of line and fields.

    Tables with tabs are often written without any quoting: where quotes do not make sense as such,
    they are a part of the text.
    """
    with _long_fields():
        try:
            records = list(_parse(lines, mark, csv.QUOTE_MINIMAL))
            if mark == "," or not any("\n" in field for _, fields in records for field in fields):
                return records
        except csv.Error as error:
            if mark == ",":
                raise DataError(f"{table}: {error}. Is a quote open?") from error
        return list(_parse(lines, mark, csv.QUOTE_NONE))


def _parse(lines: str, mark: str, quoting: int) -> Iterator[tuple[int, list[str]]]:
    # Lines end at "\n" alone: others, such as U+2028, are a part of a text.
    pieces = (line + "\n" for line in lines.split("\n"))
    reader = csv.reader(pieces, delimiter=mark, quoting=quoting, strict=True)  # type: ignore
    before = 0
    for fields in reader:
        if any(field.strip() for field in fields):
            yield before + 1, fields
        before = reader.line_num


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """A text may be longer than what the csv module takes by itself; the check says of which."""
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _columns(
    table: str, header: Sequence[str], kind: Task | None, mark: str = ","
) -> tuple[list[str], list[str]]:
    """Return what each column is ("" for one that is not used), and the names of the outputs."""
    heads = [name.strip() for name in header]
    plain = [name.lower() for name in heads]
    for name in plain:
        if name and plain.count(name) > 1:
            raise DataError(f"{table} has the column {name!r} more than once; name them apart")
    text = next((name for name in _TEXTS if name in plain), "")
    if not text:
        hint = " The first line must name the columns." if len(heads) > 1 else (
            f" Columns must be separated by {'tabs' if mark == chr(9) else 'commas'}.")  # fmt: skip
        raise DataError(
            f"{table} has the columns {listed(heads)}; none is named text (or "
            f"{', '.join(_TEXTS[1:6])}...).{hint} Expected such as text,label[,split]"
        )
    if kind is None:  # nobody asks for labels
        return ["text" if name == text else "" for name in plain], []
    label = next((name for name in _LABELS if name in plain and name != text), "")
    chosen = {text: "text", label: "label", _SPLIT: _SPLIT}
    if label:
        return [chosen.get(name, "") for name in plain], []
    outputs = [name for name, low in zip(heads, plain, strict=True) if low not in (text, _SPLIT)]
    if kind.single_label or not outputs:
        raise DataError(
            f"{table} has the columns {listed(heads)}; none is named label (or "
            f"{', '.join(_LABELS[1:6])}...). Expected such as text,label[,split]"
        )
    return [chosen.get(low, "label") for low in plain], outputs


def _from_json(table: str, lines: str, kind: Task | None) -> tuple[list[str], list[_Row]]:
    records: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(lines.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number}: {error}; expected a JSON object") from error
        if not isinstance(record, dict):
            raise DataError(f"{table}, line {number}: {line[:60]}; expected a JSON object")
        records.append((number, record))
    if not records:
        return [], []
    header = list(records[0][1])
    columns, outputs = _columns(table, header, kind)
    by_column = [(name, column) for name, column in zip(header, columns, strict=True) if column]
    rows = []
    for number, record in records:
        where = f"{table}, line {number}"
        if lost := [name for name, _ in by_column if record.get(name) is None and name != _SPLIT]:
            raise DataError(f"{where}: has no {lost[0]!r}; expected {', '.join(header)}")
        values = {c: _cell(where, n, record.get(n)) for n, c in by_column if c != "label"}
        labels = [_cell(where, n, record[n]) for n, c in by_column if c == "label"]
        rows.append(_row(number, {**values, "label": "|".join(labels)}))
    return outputs, rows


def _cell(where: str, name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "|".join(_cell(where, name, one) for one in value)
    if isinstance(value, dict):
        raise DataError(f"{where}: {name!r} is an object; expected a text or a number")
    return str(int(value)) if isinstance(value, bool) else str(value)


def _refuse_numbers(
    shown: str, rows: Sequence[_Row], outputs: Sequence[str], kind: Task
) -> None:
    """Refuse measured numbers as classes: a class for nearly each row is no class."""
    if outputs or not kind.single_label:
        return
    labels = [row.label for row in rows]
    different = set(labels)
    if 2 * len(different) < len(labels) or not all(_is_number(label) for label in different):
        return
    broken = next((label for label in labels if not re.fullmatch(r"[+-]?\d+", label)), None)
    if broken is not None:
        raise DataError(
            f"{shown}: labels are numbers ({broken}...), {len(different)} different ones in "
            f"{len(labels)} rows, which are no classes; to learn numbers: --task text-values"
        )


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
