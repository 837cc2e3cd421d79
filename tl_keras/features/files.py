"""Write features as files for other tools: .npz of NumPy, or Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tl_keras.errors import PlanError
from tl_keras.features.places import Features, Place, written
from tl_keras.utils.files import atomic_path, refuse_file

__all__ = ["check_target", "write_features"]

_KINDS = (".npz", ".parquet")


def check_target(path: Path, data: str | None = None) -> None:
    """Check that features can be written to such a file.

    Args:
        path: The file.
        data: A folder of samples that it must not lie in.

    Raises:
        PlanError: The ending is unknown, a file is there already, or a package is missing.
        StorageError: It cannot be written.
    """
    if path.suffix not in _KINDS:
        raise PlanError(f"{path} ends in '{path.suffix}'; expected {' or '.join(_KINDS)}")
    if path.exists():
        raise PlanError(f"{path} exists already and was not changed; choose another name")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise PlanError("Parquet needs the package pyarrow: pip install pyarrow, or choose .npz")
    refuse_file(path, path.suffix, data, option="--features-out")


def write_features(path: Path, features: Features, place: Place) -> None:
    """Write the features of all splits at one place, whole or not at all.

    Both kinds hold for each sample its `key`, `split` and `label` (the class's name) and its
    `features`, float32 (d,). A .npz has them as arrays, with `class_names` and `layers`; it
    opens with `numpy.load`.

    Args:
        path: Ends in .npz or .parquet.
        features: What to write.
        place: Which of it.

    Raises:
        PlanError: See :func:`check_target`.
        StorageError: The disk is full.
    """
    check_target(path)
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with atomic_path(path) as made:
        write(made, features, place)


def _columns(features: Features, split: str) -> tuple[list[str], list[str], list[str]]:
    samples = features.samples[split]
    labels = [samples.class_names[label] for label in samples.labels]
    return list(samples.keys), [split] * len(samples), labels


def _write_npz(path: Path, features: Features, place: Place) -> None:
    splits = list(features.arrays)
    keys, words, labels = (
        _text([text for split in splits for text in _columns(features, split)[column]])
        for column in range(3)
    )
    values = np.concatenate([features.at(split, place) for split in splits])
    names = _text(features.samples[splits[0]].class_names)
    with open(path, "wb") as handle:
        np.savez(
            handle, key=keys, split=words, label=labels, features=values, class_names=names,
            layers=_text([written(place)]),
        )  # fmt: skip


def _text(words: Sequence[str]) -> np.ndarray:
    # A file's name that is no UTF-8 could not be written as it is.
    return np.array([word.encode("utf-8", "replace").decode() for word in words])


def _write_parquet(path: Path, features: Features, place: Place) -> None:
    import pyarrow
    import pyarrow.parquet

    width = features.at("train", place).shape[1]
    kind = pyarrow.list_(pyarrow.float32(), width)
    text = pyarrow.string()
    columns = [("key", text), ("split", text), ("label", text), ("features", kind)]
    schema = pyarrow.schema(columns, metadata={"layers": written(place)})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for split in features.arrays:
            values = np.ascontiguousarray(features.at(split, place), np.float32)
            rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), width)
            texts = [pyarrow.array(list(_text(c)), text) for c in _columns(features, split)]
            writer.write_table(pyarrow.Table.from_arrays([*texts, rows], schema=schema))
