"""Class folders, and train/val/test folders of class folders.

What counts: every file at any depth below a class folder is a sample of that class, except
hidden files and folders (a leading dot), what systems leave behind (Thumbs.db, desktop.ini,
__MACOSX, @eaDir) and side files, which are known by their extension (text, annotations,
archives' lists: see `SIDE`). So a film or a .heic among the photos is a sample that the check
of images reports as no image, while notes and annotations disturb nobody. Files beside
the class folders are ignored.

Folders are read with `os.scandir`, one pass, no stat per file.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tl_keras.data.samples import SPLITS, Samples
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality

__all__ = ["SPLIT_WORDS", "from_folder", "from_unlabeled", "listed"]

_TEXT = {"txt", "md", "rst", "json", "jsonl", "xml", "csv", "tsv", "yml", "yaml", "html", "htm"}
SIDE = frozenset(_TEXT | {"ini", "cfg", "db", "log", "py", "ipynb", "npy", "npz"})
_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "dev": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of split folders and words of a CSV's split column (any case), and what they mean."""


@dataclass(frozen=True)
class _Part:
    """One folder of class folders: its split ("" if unsaid) and what each class holds."""

    split: str
    path: str
    classes: dict[str, list[str]]


def from_folder(root: str, modality: Modality, fewest: int = 2) -> Samples:
    """Read a folder of class folders, or of split folders that hold class folders.

    A folder named as a split (`SPLIT_WORDS`) is a split folder if it holds folders and no
    samples of its own; so a class named "train" is still a class.

    Args:
        root: absolute path of the folder.
        modality: what the files are.
        fewest: classes that there must be, 1 or 2.

    Returns:
        Samples of task "classes"; keys are paths relative to `root`, sorted; class names
        are the folders' names, sorted (in Unicode's composed form, NFC).

    Raises:
        DataError: if there is no class, one class, an empty class, a split named twice or
            classes that differ between splits.
    """
    folders = _folders(root)
    splits = {name: path for name, path in folders.items() if _is_split(name, path, modality)}
    if splits:
        parts = _split_parts(root, folders, splits, modality)
        _same_classes(parts)
    else:
        parts = [_Part("", root, _classes(folders, modality))]
    _refuse_poor(root, parts, fewest, modality)
    return _samples(root, parts, modality)


def from_unlabeled(root: str, modality: Modality) -> Samples:
    """Take every file below a folder that would be a sample in a class folder.

    Args:
        root: the folder.
        modality: what the files are.

    Returns:
        Samples of one class without a name; keys are paths relative to `root`, sorted.

    Raises:
        DataError: if there is none.
    """
    files = _files(root, modality)
    if not files:
        suffixes = ", ".join(sorted(modality.suffixes))
        raise DataError(f"{root} holds no {modality.noun}; expected {suffixes}")
    keys = tuple(_key(root, file) for file in files)
    labels: np.ndarray = np.zeros(len(files), np.int64)
    return Samples(files, labels, ("",), keys, modality, root=root)


def listed(names: list[str], most: int = 10) -> str:
    """Join names for a message: the first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _visible(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM:
                yield entry


def _composed(name: str) -> str:
    # The same name read on macOS may come decomposed; one name must not become two classes.
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _folders(path: str) -> dict[str, str]:
    try:
        found = {_composed(e.name): e.path for e in _visible(path) if e.is_dir()}
    except OSError as error:
        raise DataError(f"The folder {path} cannot be read: {error.strerror}.") from error
    return dict(sorted(found.items()))


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def _is_split(name: str, path: str, modality: Modality) -> bool:
    if name.lower() not in SPLIT_WORDS:
        return False
    entries = list(_visible(path))
    samples = any(_extension(e.name) in modality.suffixes for e in entries)
    return not samples and any(e.is_dir() for e in entries)


def _files(path: str, modality: Modality) -> list[str]:
    """List the sample files below a class folder, at any depth, sorted."""
    found, waiting, side = [], [path], SIDE - modality.suffixes
    linked = {os.path.realpath(path)}
    while waiting:
        folder = waiting.pop()
        try:
            for entry in _visible(folder):
                if entry.is_dir():
                    target = os.path.realpath(entry.path) if entry.is_symlink() else ""
                    if target not in linked:  # else a link leads back
                        waiting.append(entry.path)
                    linked |= {target} - {""}
                elif _extension(entry.name) not in side:
                    found.append(entry.path)
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    return sorted(found)


def _split_parts(
    root: str, folders: dict[str, str], splits: dict[str, str], modality: Modality
) -> list[_Part]:
    others = sorted(set(folders) - set(splits))
    if others:
        raise DataError(
            f"{root} holds split folders ({listed(list(splits))}) beside other folders "
            f"({listed(others)}). Keep only the split folders, each with the same class folders."
        )
    meanings: dict[str, str] = {}
    for name in splits:
        meaning = SPLIT_WORDS[name.lower()]
        if meaning in meanings:
            raise DataError(f"{root}: {meanings[meaning]} and {name} both mean {meaning!r}.")
        meanings[meaning] = name
    if "train" not in meanings:
        raise DataError(f"{root} has {listed(list(splits))} but no train folder: add one.")
    return [
        _Part(word, folders[meanings[word]], _classes(_folders(folders[meanings[word]]), modality))
        for word in SPLITS
        if word in meanings
    ]


def _classes(folders: dict[str, str], modality: Modality) -> dict[str, list[str]]:
    return {name: _files(folder, modality) for name, folder in folders.items()}


def _same_classes(parts: list[_Part]) -> None:
    train = set(parts[0].classes)
    for part in parts[1:]:
        extra, missing = sorted(set(part.classes) - train), sorted(train - set(part.classes))
        if extra or missing:
            found = [f"only in {part.path}: {listed(extra)}"] if extra else []
            found += [f"only in {parts[0].path}: {listed(missing)}"] if missing else []
            raise DataError(
                f"The splits have different classes; {'; '.join(found)}. "
                "Give each split the same class folders."
            )


def _refuse_poor(root: str, parts: list[_Part], fewest: int, modality: Modality) -> None:
    names, suffixes, noun = list(parts[0].classes), modality.suffixes, modality.noun
    if not names:
        loose = sum(_extension(e.name) in suffixes for e in _visible(parts[0].path))
        raise DataError(
            f"{parts[0].path} has no class folders ({loose} {noun}s lie in it). "
            f"Put the {noun}s of each class into a folder named as the class."
        )
    empty = [_key(root, p.path, n) for p in parts for n, files in p.classes.items() if not files]
    if empty:
        raise DataError(
            f"Empty classes in {root}: {listed(empty)}. Add {noun}s "
            f"({', '.join(sorted(suffixes))}) or remove the folder."
        )
    if len(names) < fewest:
        raise DataError(
            f"{parts[0].path} has one class ({names[0]}); expected two or more class folders. "
            "Is this the folder above or below the one you meant?"
        )


def _key(root: str, *path: str) -> str:
    relative = os.path.relpath(os.path.join(*path), root)
    return _composed(relative.replace(os.sep, "/"))


def _samples(root: str, parts: list[_Part], modality: Modality) -> Samples:
    names = tuple(parts[0].classes)
    # Cutting the prefix is many times faster than os.path.relpath, and there may be millions.
    start = len(root.rstrip(os.sep)) + 1
    rows = [
        (_composed(path[start:].replace(os.sep, "/")), path, label, part.split)
        for part in parts
        for label, name in enumerate(names)
        for path in part.classes[name]
    ]
    rows.sort()
    return Samples(
        items=[row[1] for row in rows],
        labels=np.array([row[2] for row in rows], np.int64),
        class_names=names,
        keys=tuple(row[0] for row in rows),
        modality=modality,
        splits=tuple(row[3] for row in rows) if parts[0].split else None,
        root=root,
    )
