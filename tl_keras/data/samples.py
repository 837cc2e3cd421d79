"""`Samples`: labelled things, each with a stable identity, and nothing about what they are.

A sample is an item (a path or an array) and a label; the decoder alone knows how an item
becomes a picture. Everything downstream takes `Samples`, wherever they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.modalities.image import decode

__all__ = ["SPLITS", "TASKS", "Samples", "from_arrays", "in_order"]

TASKS = ("classes", "tags", "values")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples in a fixed order.

    Attributes:
        items: file paths, or a uint8 array of shape (n, height, width, 3 | 1), values 0..255.
        labels: int64 (n,) class index for task "classes"; float32 (n, outputs) for "tags"
            (0 or 1) and "values" (any finite number).
        class_names: one name per output, in output order; sorted for folders and CSV files.
        keys: stable identity of each sample: the path relative to `root` with "/" between
            parts, or a content hash for arrays.
        splits: per sample "train", "val", "test" or "" (unsaid), where the source says so.
        task: "classes" (one class a picture), "tags" (several labels a picture) or
            "values" (regression).
        root: where it came from: an absolute path, "builtin:digits" or "arrays".
        decoder: turns an item into what the views take (an upright RGB `PIL.Image.Image`).

    Raises:
        DataError: if lengths differ, or the task or a split word is unknown.
    """

    items: Sequence[str] | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    splits: tuple[str, ...] | None = None
    task: str = "classes"
    root: str = ""
    decoder: Callable[..., Any] = decode.open_picture

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        lengths = {len(self.items), len(self.labels), len(self.keys)}
        if self.splits is not None:
            lengths.add(len(self.splits))
            if unknown := set(self.splits) - {*SPLITS, ""}:
                raise DataError(f"Unknown split {sorted(unknown)}; expected one of {SPLITS}.")
        if len(lengths) != 1:
            raise DataError(
                f"Items, labels, keys and splits must have one length; got {sorted(lengths)}."
            )
        if self.task not in TASKS:
            raise DataError(f"Unknown task {self.task!r}; expected one of {TASKS}.")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    @property
    def outputs(self) -> int:
        """Number of outputs a model for these samples has."""
        return len(self.class_names)

    def counts(self) -> dict[str, int]:
        """Samples per class (task "classes") or per tag (task "tags"); empty for "values"."""
        if self.task == "values":
            return {}
        if self.task == "tags":
            numbers = self.labels.sum(axis=0)
        else:
            numbers = np.bincount(self.labels, minlength=self.outputs)
        return {name: int(n) for name, n in zip(self.class_names, numbers, strict=True)}

    def take(self, indices: Iterable[int] | np.ndarray) -> Samples:
        """Return the samples at `indices`, in that order; class names stay as they are."""
        index = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices)
        index = index.astype(np.int64) if index.dtype != bool else np.flatnonzero(index)
        items = self.items
        places = index.tolist()
        chosen = items[index] if isinstance(items, np.ndarray) else [items[i] for i in places]
        splits = None if self.splits is None else tuple(self.splits[i] for i in places)
        keys = tuple(self.keys[i] for i in places)
        return replace(self, items=chosen, labels=self.labels[index], keys=keys, splits=splits)

    def where(self, split: str) -> Samples:
        """Return the samples whose source puts them in `split` ("" for unsaid)."""
        words = self.splits if self.splits is not None else ("",) * len(self)
        return self.take([i for i, word in enumerate(words) if word == split])


def in_order(samples: Samples, class_names: Sequence[str]) -> Samples:
    """Return the samples of the named classes, their labels counted in the names' order.

    Args:
        samples: Of task "classes".
        class_names: The wanted classes; samples of others are left out.
    """
    names = tuple(class_names)
    if names == samples.class_names:
        return samples
    places = {name: place for place, name in enumerate(names)}
    new = np.array([places.get(name, -1) for name in samples.class_names], np.int64)
    part = samples.take(new[samples.labels] >= 0)
    return replace(part, labels=new[part.labels], class_names=names)


def from_arrays(
    pictures: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    task: str = "classes",
    splits: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    root: str = "arrays",
) -> Samples:
    """Make samples of arrays.

    Args:
        pictures: uint8, shape (n, height, width), (n, height, width, 1) or
            (n, height, width, 3), RGB, values 0..255.
        labels: shape (n,): class indices, or class names (any text); shape (n, outputs) of
            0 and 1 for task "tags"; shape (n,) or (n, outputs) of numbers for "values".
        class_names: names in output order; for text labels taken from them, sorted; else "0"...
        task: "classes", "tags" or "values".
        splits: "train", "val", "test" or "" for each picture, if it is decided already.
        keys: stable names of the pictures; hashes of their contents by default.
        root: what to write down as their origin.

    Raises:
        DataError: if shapes, types or ranges are not as above.
    """
    pictures = _checked_pictures(np.asarray(pictures))
    if len(labels) != len(pictures):
        raise DataError(f"Got {len(pictures)} pictures and {len(labels)} labels: one for each.")
    names, numbers = _checked_labels(np.asarray(labels), class_names, task)
    return Samples(
        items=pictures,
        labels=numbers,
        class_names=names,
        keys=tuple(keys) if keys is not None else _content_keys(pictures),
        splits=None if splits is None else tuple(splits),
        task=task,
        root=root,
    )


def _checked_pictures(pictures: np.ndarray) -> np.ndarray:
    if pictures.dtype != np.uint8:
        raise DataError(
            f"Pictures are {pictures.dtype}; expected uint8, 0..255. "
            "For values in 0..1: (pictures * 255).round().astype('uint8')."
        )
    if pictures.ndim == 3:
        pictures = pictures[..., np.newaxis]
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not pictures.size:
        raise DataError(
            f"Pictures have the shape {pictures.shape}; expected (n, height, width, 3) or "
            "(n, height, width, 1), with at least one picture."
        )
    return pictures


def _checked_labels(
    labels: np.ndarray, class_names: Sequence[str] | None, task: str
) -> tuple[tuple[str, ...], np.ndarray]:
    if task != "classes":
        return _output_labels(labels, class_names, task)
    if labels.ndim != 1:
        raise DataError(f"Labels have the shape {labels.shape}; expected (n,) class indices.")
    if labels.dtype.kind in "UOS":
        return _named_labels([str(label) for label in labels], class_names)
    if labels.dtype.kind not in "iub":
        raise DataError(f"Labels are {labels.dtype}; expected whole numbers or class names.")
    count = len(class_names) if class_names is not None else int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= count:
        raise DataError(
            f"Class indices go from {labels.min()} to {labels.max()}; expected 0..{count - 1}."
        )
    names = class_names if class_names is not None else [str(i) for i in range(count)]
    return tuple(names), labels.astype(np.int64)


def _named_labels(
    labels: list[str], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(class_names) if class_names is not None else tuple(sorted(set(labels)))
    index = {name: i for i, name in enumerate(names)}
    if unknown := sorted(set(labels) - set(names)):
        raise DataError(f"Labels {unknown[:5]} are not among the class names {list(names)[:20]}.")
    return names, np.array([index[label] for label in labels], np.int64)


def _output_labels(
    labels: np.ndarray, class_names: Sequence[str] | None, task: str
) -> tuple[tuple[str, ...], np.ndarray]:
    numbers: np.ndarray = labels.astype(np.float32)
    numbers = numbers[:, np.newaxis] if numbers.ndim == 1 else numbers
    if numbers.ndim != 2 or not np.isfinite(numbers).all():
        raise DataError(f"Labels of shape {labels.shape}: expected finite numbers (n, outputs).")
    if task == "tags" and not np.isin(numbers, (0, 1)).all():
        raise DataError("Tags are 0 or 1 for each output; got other numbers.")
    names = class_names or [str(i) for i in range(numbers.shape[1])]
    if len(names) != numbers.shape[1]:
        raise DataError(f"Got {len(names)} class names for {numbers.shape[1]} outputs.")
    return tuple(names), numbers


def _content_keys(pictures: np.ndarray) -> tuple[str, ...]:
    """Hash each picture; a repeated picture gets "#2", "#3"... so that keys stay unique."""
    seen: dict[str, int] = {}
    keys = []
    for picture in pictures:
        name = hashlib.blake2b(np.ascontiguousarray(picture).tobytes(), digest_size=16).hexdigest()
        seen[name] = seen.get(name, 0) + 1
        keys.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(keys)
