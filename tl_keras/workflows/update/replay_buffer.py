"""Which pictures a new run keeps within itself, and how it writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tl_keras.continual.replay import order, within_budget
from tl_keras.data.samples import SPLITS
from tl_keras.errors import DataError
from tl_keras.modalities.base import InputSpec
from tl_keras.runs import exemplars as kept
from tl_keras.utils.files import write_atomically
from tl_keras.workflows.update.config import Update
from tl_keras.workflows.update.previous_data import KNOWN, Pool

__all__ = ["Memory", "chosen_memory", "write_memory", "written_memory"]

_TO_LEARN = 0.8


@dataclass
class Memory:
    """The pictures to keep.

    Attributes:
        exemplars: Places in the pool of the pictures to learn from again.
        held_out: Places of those to score with.
        files: Ending and content of each kept sample's file, by place.
    """

    exemplars: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    files: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of all kept pictures."""
        return sum(len(self.files[i][1]) for i in {*self.exemplars, *self.held_out})


def chosen_memory(
    request: Update,
    pool: Pool,
    specs: dict[str, InputSpec],
    seed: int,
    features: Callable[[np.ndarray], np.ndarray],
) -> Memory:
    """Choose what the new run keeps, old and new pictures alike.

    Args:
        request: Its remedies, budget and way to choose.
        pool: All pictures at hand.
        specs: What the model sees.
        seed: Decides chance.
        features: From places in the pool to features (n, d); asked for by herding alone.

    Raises:
        DataError: With replay, the budget holds fewer than one picture a class.
    """
    memory, budget = Memory(), float(request.budget)

    def weight(place: int) -> int:
        if place not in memory.files:
            memory.files[place] = _content(pool, place, specs)
        return len(memory.files[place][1])

    train, scored = pool.of("train"), pool.of("val", "test")
    if "replay" in request.keep:
        digests = [pool.samples.keys[i] for i in train]
        found = features(train) if request.exemplars == "herding" else None
        ordered = order(request.exemplars, pool.samples.labels[train], digests, seed, found)
        memory.exemplars = within_budget(train[ordered], weight, _TO_LEARN * budget)
        _refuse_too_small(request, pool, train, memory, weight)
    words = pool.samples.splits or ()
    strata = np.array([SPLITS.index(words[i]) for i in scored]) * 10**6
    strata = strata + pool.samples.labels[scored]
    ordered = order("balanced", strata, [pool.samples.keys[i] for i in scored], seed)
    rest = budget - sum(len(memory.files[i][1]) for i in memory.exemplars)
    share = min(rest, (1 - _TO_LEARN) * budget)
    memory.held_out = within_budget(scored[ordered], weight, share)
    return memory


def _content(pool: Pool, place: int, specs: dict[str, InputSpec]) -> tuple[str, bytes]:
    item = pool.samples.items[place]
    if isinstance(item, str) and Path(item).parent.name == kept.MEMORY:
        # Compressed before: once more would only lose.
        return Path(item).suffix[1:], Path(item).read_bytes()
    return pool.samples.modality.compress(item, specs)


def _refuse_too_small(
    request: Update, pool: Pool, train: np.ndarray, memory: Memory, weight: Callable[[int], int]
) -> None:
    labels = pool.samples.labels
    classes = len(np.unique(labels[train]))
    if len(memory.exemplars) >= classes:
        return
    firsts = [int(train[labels[train] == label][0]) for label in np.unique(labels[train])]
    needed = 1.2 * sum(map(weight, firsts)) / _TO_LEARN
    raise DataError(
        f"--memory {request.memory} holds {len(memory.exemplars)} pictures to learn from, fewer "
        f"than one for each of the {classes} classes; about {max(1, round(needed / 1000))}kB hold "
        "one each. Give more, or another remedy than replay"
    )


def write_memory(folder: Path, pool: Pool, memory: Memory, known: Iterable[str]) -> None:
    """Write the kept pictures and what is known into a run.

    Raises:
        StorageError: The disk is full.
    """
    for place in {*memory.exemplars, *memory.held_out}:
        ending, content = memory.files[place]
        name = f"{pool.samples.keys[place]}.{ending}"
        write_atomically(folder / kept.MEMORY / name, content)
    text = "".join(f"{digest}\n" for digest in sorted({*known, *pool.samples.keys}))
    write_atomically(folder / kept.MEMORY / KNOWN, text.encode("ascii"))


def written_memory(pool: Pool, memory: Memory, newest: int) -> list[kept.Row]:
    """Return the rows of a new run's table: what it learns from and is scored with.

    Old pictures are those that it keeps; new ones (of the newest step) are all there, at
    their own place.
    """
    rows, names = [], pool.samples.class_names
    words = pool.samples.splits or ()
    inside = {*memory.exemplars, *memory.held_out}
    for place, (key, label, word) in enumerate(
        zip(pool.samples.keys, pool.samples.labels, words, strict=True)
    ):
        task, path = int(pool.tasks[place]), str(pool.samples.items[place])
        if task < newest:
            if place not in inside:
                continue
            path = f"{kept.MEMORY}/{key}.{memory.files[place][0]}"
        rows.append(kept.Row(path, names[label], word, task, key))
    return rows
