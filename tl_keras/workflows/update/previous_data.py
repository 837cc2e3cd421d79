"""What is left of a run's pictures: where they were, or what the run kept of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_keras.data.samples import SPLITS, Samples, from_arrays
from tl_keras.errors import DataError
from tl_keras.runs import exemplars as kept
from tl_keras.runs.directory import RunDirectory
from tl_keras.utils.progress import Progress

__all__ = ["KNOWN", "Pool", "past_of", "pooled"]

KNOWN = "known.txt"
"""In the memory's folder: the hash of every picture that was ever learnt from or scored with."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures at hand.

    Attributes:
        samples: Their keys are hashes of their pixels, each there once; with splits.
        tasks: int64 (n,), the step in which each came.
        known: Hashes of all pictures that were seen, at hand or not.
        gone: How many of them are not at hand.
    """

    samples: Samples
    tasks: np.ndarray
    known: frozenset[str] = frozenset()
    gone: int = 0

    def of(self, *splits: str) -> np.ndarray:
        """Return the places of the pictures in some splits, int64 (n,)."""
        words = np.array(self.samples.splits or (), dtype="U5")
        return np.flatnonzero(np.isin(words, splits))

    def take(self, places: np.ndarray | Sequence[int]) -> Pool:
        """Return some of the pictures, in the given order."""
        index = np.asarray(places, np.int64)
        return dataclasses.replace(self, samples=self.samples.take(index), tasks=self.tasks[index])


def pooled(parts: Sequence[Pool], class_names: Sequence[str]) -> Pool:
    """Return pools in one; items that are arrays become a list of arrays.

    Args:
        parts: Pools whose labels count as the names do.
        class_names: All classes.
    """
    items = [item for part in parts for item in part.samples.items]
    words = [word for part in parts for word in part.samples.splits or ()]
    keys = tuple(key for part in parts for key in part.samples.keys)
    labels = np.concatenate([part.samples.labels for part in parts])
    # One of them may know how deep gray images are read, where another has none.
    modality = next((m for part in parts if (m := part.samples.modality).settings), None)
    samples = dataclasses.replace(
        parts[0].samples, items=items, labels=labels, keys=keys, splits=tuple(words),
        class_names=tuple(class_names), modality=modality or parts[0].samples.modality,
    )  # fmt: skip
    return Pool(samples, np.concatenate([part.tasks for part in parts]))


def past_of(run: RunDirectory, progress: Progress) -> Pool:
    """Return what is at hand of the pictures that a run learnt from and was scored with.

    Args:
        run: A complete run of task "classes".
        progress: Called with a task's name, what is done and of how much.
    """
    if run.fact("data", "root") == kept.ROOT:
        return _kept_pool(run)
    try:
        samples, splits, gone = run.find()
    except DataError:
        return _nothing(run)
    places = [i for name in SPLITS for i in splits[name]]
    words = tuple(name for name in SPLITS for _ in splits[name])
    chosen = dataclasses.replace(samples.take(places), splits=words)
    report = chosen.modality.check(
        chosen, progress=lambda d, n: progress("check of old images", d, n)
    )
    named = dataclasses.replace(chosen, keys=report.digests)
    pool = _once(Pool(named, np.zeros(len(named), np.int64), gone=len(gone) + len(report.bad)))
    return dataclasses.replace(pool, known=frozenset(pool.samples.keys))


def _nothing(run: RunDirectory) -> Pool:
    counts = run.fact("data", "pictures")
    dot = from_arrays(np.zeros((1, 1, 1), np.uint8), [0], run.fact("classes"), splits=["train"])
    pool = Pool(dot, np.zeros(1, np.int64), gone=sum(counts.values()))
    return pool.take([])


def _once(pool: Pool) -> Pool:
    """Leave out what has no hash, and copies."""
    first = {key: i for i, key in reversed(list(enumerate(pool.samples.keys))) if key}
    return pool.take(sorted(first.values()))


def _kept_pool(run: RunDirectory) -> Pool:
    memory = run.path / kept.MEMORY
    copies = {path.stem: str(path.absolute()) for path in memory.glob("*.*")}
    rows, lost = [], 0
    for row in kept.read_rows(run.path):
        path = row.path if os.path.exists(row.path) else copies.get(row.digest)
        lost += path is None
        rows += [dataclasses.replace(row, path=path)] if path else []
    table = str(run.path / kept.TABLE)
    samples = kept.samples_of(rows, run.fact("classes"), table, run.modality)
    tasks = np.array([row.task for row in rows], np.int64)
    known = {*samples.keys, *_listed(memory / KNOWN)}
    return dataclasses.replace(_once(Pool(samples, tasks, gone=lost)), known=frozenset(known))


def _listed(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split() if path.exists() else []
