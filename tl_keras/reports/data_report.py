"""Write the page on which one looks at what harms in a data set, and corrects it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.analysis.data_quality import Quality
from tl_keras.data.samples import Samples
from tl_keras.errors import RunError
from tl_keras.modalities.text.reader import Text
from tl_keras.reports.html import write_page
from tl_keras.utils.files import refuse_file

__all__ = ["KINDS", "require_replaceable", "write_data_report"]

KINDS = {
    "leak": "in two splits",
    "contradict": "with different labels",
    "repeat": "there more than once",
}
"""What near duplicates do, in words."""

_MARK = b'name="generator" content="tl_keras check-data"'
_SUSPECTS, _GROUPS, _MEMBERS, _OUTLIERS = 120, 60, 6, 24
_CHOICES = 200
_SIDE = 220


def require_replaceable(page: Path, source: str) -> None:
    """Check that a page may be written: nothing is there, or an older page of this kind.

    Raises:
        RunError: something else is there.
        StorageError: it cannot be written, is no .html file, or lies within the data.
    """
    refuse_file(page, ".html", source)
    if page.exists():
        with open(page, "rb") as file:
            if _MARK not in file.read(2000):
                raise RunError(f"{page} is there and no page of check-data; give another name")


def write_data_report(page: Path, source: str, quality: Quality, backbone: str) -> Path:
    """Write the page: one file that needs nothing else.

    What its reader ticks becomes a CSV file (path,label[,split], absolute paths; of texts in a
    table text,label[,split]), which every command takes as DATA. The script of the page makes it;
    nothing leaves the browser.

    Args:
        page: an older file is replaced.
        source: what was looked at, plain text.
        quality: what was found.
        backbone: whose features were used.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    samples, facts = quality.samples, quality.facts()
    shown = quality.suspects.indices[:_SUSPECTS].tolist()
    return write_page(
        page, "data_quality.html.j2", title=f"Data check: {source}", noun=samples.modality.noun,
        facts=facts, kinds=KINDS, backbone=backbone, task=samples.task,
        suspects=[_suspect(quality, index) for index in shown],
        groups=[
            (kind, [_card(quality, index) for index in group[:_MEMBERS]], len(group))
            for kind, group in quality.duplicates[:_GROUPS]
        ],
        outliers=[
            {**_card(quality, index), "distance": quality.distances[index]}
            for index in quality.outliers[:_OUTLIERS].tolist()
        ],
        exported=_exported(samples),
        more="" if samples.modality.name == "image" else f" --task {samples.modality.name}",
    )  # fmt: skip


def _card(quality: Quality, index: int) -> dict[str, Any]:
    samples = quality.samples
    return {
        "index": index,
        "preview": samples.modality.thumbnail(samples.items[index], _SIDE),
        "key": samples.keys[index],
        "file": samples.keys[index].rsplit("/", 1)[-1],
        "label": quality.label(index),
        "split": samples.splits[index] if samples.splits else "",
    }


def _suspect(quality: Quality, index: int) -> dict[str, Any]:
    """A suspect with the labels that it can be given: (as shown, as in the CSV file)."""
    samples, said = quality.samples, quality.suspects.suggested[index]
    task, names, outputs = samples.kind, samples.class_names, quality.judged.outputs[index]
    labels = [said]
    if task.single_label:
        others = [int(said), *np.argsort(-outputs, kind="stable").tolist()]
        others = [one for one in dict.fromkeys(others) if one != samples.labels[index]]
        labels = others[:_CHOICES]
    options = [(task.describe(one, names) or "none", task.write(one, names)) for one in labels]
    return {
        **_card(quality, index), "options": options, "suggested": options[0][0] if options else "",
        "doubt": task.describe_doubt(float(quality.suspects.scores[index])),
    }  # fmt: skip


def _exported(samples: Samples) -> dict[str, Any] | None:
    """Rows of the CSV file as it is before any correction; None where it cannot name them."""
    written = all(isinstance(one, Text) for one in samples.items)
    items = [one.value if written else one for one in samples.items]
    if isinstance(samples.items, np.ndarray) or not all(_is_text(one) for one in items):
        return None
    labels = [samples.kind.write(label, samples.class_names) for label in samples.labels]
    names = list(samples.class_names)
    own = samples.task == "values" and names != _numbered(len(names))
    return {
        "head": "text" if written else "path", "paths": items,
        "labels": labels, "splits": list(samples.splits or ()),
        "columns": names if own else [],
    }  # fmt: skip


def _is_text(item: object) -> bool:
    try:
        str(item).encode()
    except UnicodeEncodeError:
        return False
    return isinstance(item, str)


def _numbered(count: int) -> list[str]:
    return ["value"] if count == 1 else [f"value {i + 1}" for i in range(count)]

