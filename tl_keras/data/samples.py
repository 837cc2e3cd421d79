"""`Samples`: labelled things, each with a stable identity, and nothing about what they are.

A sample is an item (a path or an array) and a label; its modality knows how an item is read, its
task what the label means. Everything downstream takes `Samples`, wherever they came from.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import modalities, tasks
from tl_keras.errors import DataError
from tl_keras.modalities.base import Modality, Reader
from tl_keras.tasks.base import Task

if TYPE_CHECKING:
    import keras

__all__ = ["SPLITS", "Samples", "fingerprint", "from_arrays", "in_order"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled samples in a fixed order.

    Attributes:
        items: file paths or arrays, as the modality has them.
        labels: one row a sample, as the task has them: int64 (n,) class index for "classes",
            uint8 (n, outputs) of 0 or 1 for "tags", float32 (n, outputs) for "values".
        class_names: one name per output, in output order; sorted for folders and CSV files.
        keys: stable identity of each sample: the path relative to `root` with "/" between
            parts, or a content hash for arrays.
        modality: what the items are and how they are read.
        splits: per sample "train", "val", "test" or "" (unsaid), where the source says so.
        task: name of a task, see `tl_keras.tasks`.
        root: where it came from: an absolute path, "builtin:digits" or "arrays".

    Raises:
        DataError: if lengths differ, or the task or a split word is unknown.
    """

    items: Sequence[Any] | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    modality: Modality
    splits: tuple[str, ...] | None = None
    task: str = "classes"
    root: str = ""

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
        tasks.get(self.task)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    @property
    def outputs(self) -> int:
        """Number of outputs a model for these samples has."""
        return len(self.class_names)

    @property
    def kind(self) -> Task:
        """The task itself, which knows what the labels mean."""
        return tasks.get(self.task)

    def reader(self, model: keras.Model, augment: str = "none", seed: int = 0) -> Reader:
        """Return what reads the samples as a model takes them.

        Args:
            model: A functional model.
            augment: What the augmented views are, as the modality names it.
            seed: With a sample's key and the view's number, decides each view.

        Raises:
            ModelError: The model takes something else.
            PlanError: There is no such augmentation.
        """
        return self.modality.reader(self, self.modality.specs(model), augment, seed)

    def counts(self) -> dict[str, int]:
        """Samples of each name, in output order; empty where that means nothing."""
        return self.kind.counts(self.labels, self.class_names)

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


def from_arrays(  # noqa: PLR0913
    items: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    task: str = "classes",
    modality: str = "image",
    splits: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    root: str = "arrays",
) -> Samples:
    """Make samples of arrays.

    Args:
        items: One row a sample; images are uint8 (n, height, width), (n, height, width, 1) or
            (n, height, width, 3), RGB, values 0..255.
        labels: shape (n,): class indices, or class names (any text); shape (n, outputs) of
            0 and 1 for task "tags"; shape (n,) or (n, outputs) of numbers for "values".
        class_names: names in output order, which class indices count. By default each text or
            number among the labels is a class, sorted: labels 1, 2, 5 are classes "1", "2", "5".
        task: "classes", "tags" or "values".
        modality: what the items are.
        splits: "train", "val", "test" or "" for each sample, if it is decided already.
        keys: stable names of the samples; hashes of their contents by default.
        root: what to write down as their origin.

    Raises:
        DataError: if shapes, types or ranges are not as above.
    """
    kind = modalities.get(modality)
    items = kind.check_arrays(_as_array(items, f"{kind.noun}s"))
    given = _as_array(labels, "labels")
    if len(given) != len(items):
        raise DataError(f"Got {len(items)} {kind.noun}s and {len(given)} labels: one for each.")
    names, numbers = tasks.get(task).check(given, class_names)
    for what, words in (("class_names", names), ("keys", keys or ())):
        if len(set(words)) != len(words):
            twice = next(word for word, count in Counter(words).items() if count > 1)
            raise DataError(f"{what} has {twice!r} more than once; expected names that differ.")
    return Samples(
        items=items,
        labels=numbers,
        class_names=names,
        keys=tuple(keys) if keys is not None else _content_keys(items),
        modality=kind,
        splits=None if splits is None else tuple(splits),
        task=task,
        root=root,
    )


def _as_array(values: Any, what: str) -> np.ndarray:
    try:
        made = np.asarray(values)
    except ValueError as error:
        raise DataError(f"The {what} differ in shape; expected one shape for all.") from error
    if not made.ndim:
        raise DataError(f"Got {values!r} as {what}; expected an array with a row a sample.")
    return made


def fingerprint(samples: Samples, digests: Sequence[str]) -> str:
    """Hash a data set: SHA-256 of its (key, label, pixel digest) rows, in sorted order.

    It changes with any sample, label or name, and not with the order of the files.
    """
    rows = zip(samples.keys, samples.labels.tolist(), digests, strict=True)
    names = "\x1f".join((samples.task, *samples.class_names))
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape"))
    for row in sorted("\x1f".join((key, repr(label), pixels)) for key, label, pixels in rows):
        digest.update(b"\x1e" + row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _content_keys(items: np.ndarray) -> tuple[str, ...]:
    """Hash each sample; a repeated one gets "#2", "#3"... so that keys stay unique."""
    seen: dict[str, int] = {}
    keys = []
    for item in items:
        name = hashlib.blake2b(np.ascontiguousarray(item).tobytes(), digest_size=16).hexdigest()
        seen[name] = seen.get(name, 0) + 1
        keys.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(keys)
