"""The images of an update: what is left of the old ones, the new ones, and what is kept of both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tl_keras.continual.replay import order, within_budget
from tl_keras.data.builtin import is_builtin
from tl_keras.data.class_names import merged_classes
from tl_keras.data.samples import SPLITS, Samples, from_arrays, in_order
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import assign
from tl_keras.errors import DataError
from tl_keras.modalities.base import CheckReport, InputSpec
from tl_keras.runs import exemplars
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.prepare import PreparedData, prepare
from tl_keras.utils.files import write_atomically
from tl_keras.utils.progress import Progress
from tl_keras.workflows.update.config import UpdateConfig

__all__ = [
    "HELD_SHARE", "Pool", "ReplayBuffer", "choose_buffer", "find_previous", "join_pools",
    "list_rows", "load_new", "prepare_new", "write_buffer",
]  # fmt: skip

HELD_SHARE = 0.2
KNOWN = "known.txt"
"""In the memory's folder: the hash of every image that was ever learnt from or scored with."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures at hand.

    Attributes:
        samples: Their keys are hashes of their pixels, each there once; with splits.
        tasks: int64 (n,), the step in which each came.
        known: Hashes of all images that were seen, at hand or not.
        gone: How many of them are not at hand.
    """

    samples: Samples
    tasks: np.ndarray
    known: frozenset[str] = frozenset()
    gone: int = 0

    def of(self, *splits: str) -> np.ndarray:
        """Return the places of the images in some splits, int64 (n,)."""
        words = np.array(self.samples.splits or (), dtype="U5")
        return np.flatnonzero(np.isin(words, splits))

    def take(self, places: np.ndarray | Sequence[int]) -> Pool:
        """Return some of the images, in the given order."""
        index = np.asarray(places, np.int64)
        return dataclasses.replace(self, samples=self.samples.take(index), tasks=self.tasks[index])


def join_pools(parts: Sequence[Pool], class_names: Sequence[str]) -> Pool:
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


def find_previous(run: RunDirectory, progress: Progress) -> Pool:
    """Return what is at hand of the images that a run learnt from and was scored with.

    Args:
        run: A complete run of task "classes".
        progress: Called with a task's name, what is done and of how much.
    """
    if run.fact("data", "root") == exemplars.ROOT:
        return _pool_of_table(run)
    try:
        samples, splits, gone = run.find()
    except DataError:
        return _empty_pool(run)
    places = [i for name in SPLITS for i in splits[name]]
    words = tuple(name for name in SPLITS for _ in splits[name])
    chosen = dataclasses.replace(samples.take(places), splits=words)
    if set(words) == {"train"}:
        # What is forgotten can be measured on images only that are not learned from again.
        free = dataclasses.replace(chosen, splits=None)
        chosen = dataclasses.replace(chosen, splits=assign(free, HELD_SHARE, seed=run.fact("seed")))
    report = chosen.modality.check(
        chosen, progress=lambda d, n: progress("check of old images", d, n)
    )
    named = dataclasses.replace(chosen, keys=report.digests)
    pool = _without_copies(
        Pool(named, np.zeros(len(named), np.int64), gone=len(gone) + len(report.bad))
    )
    return dataclasses.replace(pool, known=frozenset(pool.samples.keys))


def _empty_pool(run: RunDirectory) -> Pool:
    counts = run.fact("data", "pictures")
    dot = from_arrays(np.zeros((1, 1, 1), np.uint8), [0], run.fact("classes"), splits=["train"])
    pool = Pool(dot, np.zeros(1, np.int64), gone=sum(counts.values()))
    return pool.take([])


def _without_copies(pool: Pool) -> Pool:
    """Leave out what has no hash, and copies."""
    first = {key: i for i, key in reversed(list(enumerate(pool.samples.keys))) if key}
    return pool.take(sorted(first.values()))


def _pool_of_table(run: RunDirectory) -> Pool:
    memory = run.path / exemplars.MEMORY
    copies = {path.stem: str(path.absolute()) for path in memory.glob("*.*")}
    rows, lost = [], 0
    for row in exemplars.read_rows(run.path):
        path = row.path if os.path.exists(row.path) else copies.get(row.digest)
        lost += path is None
        rows += [dataclasses.replace(row, path=path)] if path else []
    table = str(run.path / exemplars.TABLE)
    samples = exemplars.make_samples(rows, run.fact("classes"), table, run.modality)
    tasks = np.array([row.task for row in rows], np.int64)
    known = {*samples.keys, *_listed(memory / KNOWN)}
    return dataclasses.replace(
        _without_copies(Pool(samples, tasks, gone=lost)), known=frozenset(known)
    )


def _listed(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split() if path.exists() else []


def load_new(request: UpdateConfig, run: RunDirectory) -> tuple[Samples, tuple[str, ...]]:
    """Return the new images, not looked at yet, and all classes, the old ones first.

    Raises:
        DataError: There is nothing there, or a class is written almost as another.
    """
    samples = load_samples(request.data, fewest=1, modality=run.modality)
    if is_builtin(samples.root.removeprefix("builtin:")):
        raise DataError(
            f"update takes a folder or a CSV file, not the built-in set {request.data}; write its "
            "pictures to class folders first"
        )
    return samples, merged_classes(run.fact("classes"), samples.class_names, request.new_classes)


def prepare_new(
    request: UpdateConfig,
    config: RunConfig,
    samples: Samples,
    classes: tuple[str, ...],
    previous: Pool,
    progress: Progress,
) -> tuple[Pool, PreparedData]:
    """Check the new images and split them.

    Args:
        request: The update.
        config: Of the old run: its shares and its seed split the new images too.
        samples: From :func:`load_new`.
        classes: All classes, the old ones first.
        previous: What the run knows.
        progress: Called with a task's name, what is done and of how much.

    Returns:
        The images, their labels counted as the classes do; and the check's facts.

    Raises:
        DataError: Images cannot be used or are known already, or none is new.
    """
    report = samples.modality.check(
        samples, progress=lambda d, n: progress("check of images", d, n)
    )
    known = [i for i, digest in enumerate(report.digests) if digest in previous.known]
    if len(known) == len(samples):
        raise DataError(
            f"{request.data} holds no new picture: all {len(samples)} are known to the run"
        )
    if known and not request.skip_bad:
        raise DataError(_already_known(request, samples, known))
    rest = [i for i in range(len(samples)) if i not in set(known)]
    asked = config.replace(source=request.data, skip_bad=request.skip_bad)
    checked = prepare(asked, progress, _of_present(samples.take(rest)), _part(report, rest))
    left = [{"path": samples.keys[i], "reason": "known to the run"} for i in known]
    checked = dataclasses.replace(checked, left_out=[*checked.left_out, *left])
    return _pool(checked, classes, int(previous.tasks.max(initial=0)) + 1), checked


def _already_known(request: UpdateConfig, samples: Samples, known: list[int]) -> str:
    first = ", ".join(samples.keys[i] for i in known[:3])
    return (
        f"{len(known)} of the {len(samples)} pictures in {request.data} are known to the run "
        f"already (the same pixels), such as {first}; remove them, or leave them out: --skip-bad"
    )


def _of_present(samples: Samples) -> Samples:
    """Drop the names of classes that have no image left: they are old and known."""
    present = [samples.class_names[label] for label in np.unique(samples.labels)]
    return in_order(samples, present)


def _part(report: CheckReport, places: list[int]) -> CheckReport:
    index = {old: new for new, old in enumerate(places)}
    bad = tuple(
        dataclasses.replace(one, index=index[one.index]) for one in report.bad if one.index in index
    )
    digests = tuple(report.digests[i] for i in places)
    return dataclasses.replace(report, bad=bad, digests=digests)


def _pool(checked: PreparedData, classes: tuple[str, ...], task: int) -> Pool:
    named = {name: getattr(checked.splits, name) for name in SPLITS}
    parts = {name: in_order(part, classes) for name, part in named.items() if part is not None}
    first = parts["train"]
    keys = [key for part in parts.values() for key in part.keys]
    samples = dataclasses.replace(
        first,
        items=[item for part in parts.values() for item in part.items],
        labels=np.concatenate([part.labels for part in parts.values()]),
        keys=tuple(checked.digests[key] for key in keys),
        splits=tuple(name for name, part in parts.items() for _ in part.keys),
    )
    unique = sorted({key: i for i, key in reversed(list(enumerate(samples.keys)))}.values())
    return Pool(samples, np.full(len(samples), task, np.int64)).take(unique)


_TO_LEARN = 0.8
_WRITTEN = "newest"


@dataclass
class ReplayBuffer:
    """The images to keep.

    Attributes:
        exemplars: Places in the pool of the images to learn from again.
        held_out: Places of those to score with.
        files: Ending and content of each kept sample's file, by place.
    """

    exemplars: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    files: dict[int, tuple[str, bytes]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of all kept images."""
        return sum(len(self.files[i][1]) for i in {*self.exemplars, *self.held_out})


def choose_buffer(
    request: UpdateConfig,
    pool: Pool,
    specs: dict[str, InputSpec],
    seed: int,
    features: Callable[[np.ndarray], np.ndarray],
) -> ReplayBuffer:
    """Choose what the new run keeps, old and new images alike.

    Args:
        request: Its remedies, budget and way to choose.
        pool: All images at hand.
        specs: What the model sees.
        seed: Decides chance.
        features: From places in the pool to features (n, d); asked for by herding alone.

    Raises:
        DataError: With replay, the budget holds fewer than one image a class.
    """
    memory, budget = ReplayBuffer(), float(request.budget)

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
    if isinstance(item, str) and Path(item).parent.name == exemplars.MEMORY:
        # Compressed before: once more would only lose.
        return Path(item).suffix[1:], Path(item).read_bytes()
    return pool.samples.modality.compress(item, specs)


def _refuse_too_small(
    request: UpdateConfig,
    pool: Pool,
    train: np.ndarray,
    memory: ReplayBuffer,
    weight: Callable[[int], int],
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


def write_buffer(folder: Path, pool: Pool, memory: ReplayBuffer, known: Iterable[str]) -> None:
    """Write the kept images and what is known into a run.

    Raises:
        StorageError: The disk is full.
    """
    for place in {*memory.exemplars, *memory.held_out}:
        ending, content = memory.files[place]
        name = f"{pool.samples.keys[place]}.{ending}"
        write_atomically(folder / exemplars.MEMORY / name, content)
    for place, item in enumerate(pool.samples.items):
        if not isinstance(item, str):
            content = pool.samples.modality.compress(item, {})[1]
            write_atomically(folder / _written_at(pool, place), content)
    text = "".join(f"{digest}\n" for digest in sorted({*known, *pool.samples.keys}))
    write_atomically(folder / exemplars.MEMORY / KNOWN, text.encode("ascii"))


def _written_at(pool: Pool, place: int) -> str:
    """Return where in a run a sample is kept that has no file of its own, as those of a table."""
    ending = pool.samples.modality.compress(pool.samples.items[place], {})[0]
    return f"{_WRITTEN}/{pool.samples.keys[place]}.{ending}"


def list_rows(pool: Pool, memory: ReplayBuffer, newest: int) -> list[exemplars.Row]:
    """Return the rows of a new run's table: what it learns from and is scored with.

    Old images are those that it keeps; new ones (of the newest step) are all there, at
    their own place.
    """
    rows, names = [], pool.samples.class_names
    words = pool.samples.splits or ()
    inside = {*memory.exemplars, *memory.held_out}
    for place, (key, label, word) in enumerate(
        zip(pool.samples.keys, pool.samples.labels, words, strict=True)
    ):
        task, item = int(pool.tasks[place]), pool.samples.items[place]
        path = item if isinstance(item, str) else _written_at(pool, place)
        if task < newest:
            if place not in inside:
                continue
            path = f"{exemplars.MEMORY}/{key}.{memory.files[place][0]}"
        rows.append(exemplars.Row(path, names[label], word, task, key))
    return rows
