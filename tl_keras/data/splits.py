"""Seeded splits that no added picture disturbs, and pictures found where they must not be.

A picture's split is a pure function of the seed and its own key (or group): a 64-bit hash,
read as a number in [0, 1), falls below the share of test, of validation, or above both.
Adding, removing or reordering other pictures cannot move it. Each class is hashed alike, so
strata hold approximately (a binomial's spread), with one exception that the sizes of small
classes force: a class of two or more pictures always has one in train and one in
validation (of three or more, one in test too if there is a test share), by moving the picture
whose number is nearest to the border. Only such a class can change when pictures are added.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_keras.data.samples import SPLITS, Samples
from tl_keras.errors import DataError

__all__ = [
    "Shared", "Splits", "assign", "check_shares", "find_shared", "leave_out", "shared_error",
    "split",
]  # fmt: skip

_SHOWN = 20


@dataclass(frozen=True)
class Splits:
    """Samples to learn from, to choose by, and (maybe) to report on."""

    train: Samples
    val: Samples
    test: Samples | None


@dataclass(frozen=True)
class Shared:
    """The same picture at two places.

    Attributes:
        keys: the two samples' keys.
        places: "split: class" of each.
        kind: "splits" if the splits differ (whatever the classes), else "classes".
    """

    keys: tuple[str, str]
    places: tuple[str, str]
    kind: str

    def __str__(self) -> str:
        """Name both."""
        return f"{self.keys[0]} ({self.places[0]}) = {self.keys[1]} ({self.places[1]})"


def split(
    samples: Samples,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Splits:
    """Split samples into train, validation and test.

    Where the source says a split it is kept; what is missing is carved from the rest, as
    `assign` describes.

    Args:
        samples: what to split.
        val: share (0..1, exclusive) to carve for validation, if the source has none.
        test: share (0..1) to carve for test, if the source has none; 0 leaves test None.
        seed: another seed, another split.
        groups: one name a sample: samples of one group stay together (the pictures' digests,
            so that copies never end up on two sides; or patients, places, cameras).

    Raises:
        DataError: if a share makes no sense or train or validation would be empty.
    """
    words = np.array(assign(samples, val, test, seed, groups))
    parts = {name: samples.take(np.flatnonzero(words == name)) for name in SPLITS}
    for name in ("train", "val"):
        if not len(parts[name]):
            raise DataError(
                f"The {name} split of {samples.root or 'the samples'} is empty "
                f"({len(samples)} pictures in all): add pictures or change the shares."
            )
    return Splits(parts["train"], parts["val"], parts["test"] if len(parts["test"]) else None)


def check_shares(val: float, test: float) -> None:
    """Check shares of validation and test.

    Raises:
        DataError: if one makes no sense, or nothing would be left to train on.
    """
    if not 0 < val < 1 or not 0 <= test < 1 or val + test >= 1:
        raise DataError(
            f"Shares val={val}, test={test}: expected 0 < val < 1, 0 <= test < 1, "
            "and something left to train on."
        )


def assign(
    samples: Samples,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Say "train", "val" or "test" for each sample; arguments as for `split`."""
    check_shares(val, test)
    words = np.array(samples.splits or ("",) * len(samples), dtype="U5")
    said = set(words)
    shares = (0.0 if "test" in said else test, 0.0 if "val" in said else val)
    pool = np.flatnonzero((words == "") | (words == "train"))
    # A group without a name (a damaged picture's digest) is a picture on its own.
    names = [group or key for group, key in zip(groups or samples.keys, samples.keys, strict=True)]
    numbers = _numbers(names, pool, seed)
    for stratum in _strata(samples, pool):
        words[pool[stratum]] = _carve(numbers[stratum], *shares)
    return tuple(words.tolist())


def find_shared(
    samples: Samples, digests: Sequence[str], words: Sequence[str]
) -> tuple[Shared, ...]:
    """Find the same picture under two splits or two classes.

    Args:
        samples: all samples, of all splits.
        digests: a hash of each sample's decoded pixels; "" is never equal to another.
        words: the split of each sample, from `assign`.

    Returns:
        One pair for each place (split and label) beyond the picture's first.
    """
    found = []
    for members in _conflicts(samples, digests, words):
        first, places = members[0], {_place(samples, words, members[0])}
        for other in members[1:]:
            place = _place(samples, words, other)
            if place not in places:
                places.add(place)
                kind = "splits" if words[other] != words[first] else "classes"
                keys = (samples.keys[first], samples.keys[other])
                found.append(Shared(keys, (_place(samples, words, first), place), kind))
    return tuple(found)


def shared_error(shared: Sequence[Shared]) -> DataError:
    """Build the error that lists the pairs (the first 20, and how many there are)."""
    lines = [f"  {pair}" for pair in shared[:_SHOWN]]
    if len(shared) > _SHOWN:
        lines.append(f"  ... and {len(shared) - _SHOWN} more")
    return DataError(
        f"The same picture is found under two splits or two classes, {len(shared)} times:\n"
        + "\n".join(lines)
        + "\nRemove one of each, or skip bad pictures (--skip-bad) to leave them out."
    )


def leave_out(samples: Samples, digests: Sequence[str], words: Sequence[str]) -> tuple[int, ...]:
    """Say which samples to drop so that no picture is shared.

    What is in test is dropped from train and validation, what is in validation from train;
    of a picture under two classes all copies go, as nobody knows which is right.

    Returns:
        Indices into `samples`, ascending.
    """
    drop: list[int] = []
    rank = {name: i for i, name in enumerate(SPLITS)}
    for members in _conflicts(samples, digests, words):
        if len({samples.labels[i].tobytes() for i in members}) > 1:
            drop.extend(members)
        else:
            highest = max(rank[words[i]] for i in members)
            drop.extend(i for i in members if rank[words[i]] < highest)
    return tuple(sorted(drop))


def _numbers(names: Sequence[str], pool: np.ndarray, seed: int) -> np.ndarray:
    salt = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    # A key of blake2b keeps seeds apart for every possible name.
    hashes = [
        hashlib.blake2b(
            names[i].encode("utf-8", "surrogateescape"), digest_size=8, key=salt
        ).digest()
        for i in pool
    ]
    return np.frombuffer(b"".join(hashes), "<u8") / 2.0**64


def _strata(samples: Samples, pool: np.ndarray) -> list[np.ndarray]:
    if samples.task != "classes":
        return [np.arange(len(pool))]
    labels = samples.labels[pool]
    order = np.argsort(labels, kind="stable")
    borders: np.ndarray = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, borders)


def _carve(numbers: np.ndarray, test: float, val: float) -> np.ndarray:
    """Give each number its word; the borders move only to keep a part from being empty."""
    levels = np.unique(numbers)
    first, second = (int(np.searchsorted(levels, share)) for share in (test, test + val))
    parts = len(levels) - 1 if len(levels) < 3 else 2
    if test and (parts == 2 or (parts == 1 and not val)):
        first = max(first, 1)
    second = max(second, first + 1 if val and parts else first)
    second = min(second, len(levels) - 1)
    first = min(first, second - 1) if val and parts else min(first, second)
    rank = np.searchsorted(levels, numbers)
    return np.where(rank < first, "test", np.where(rank < second, "val", "train"))


def _conflicts(samples: Samples, digests: Sequence[str], words: Sequence[str]) -> list[list[int]]:
    if not len(samples) == len(digests) == len(words):
        raise DataError(f"Got {len(samples)} samples, {len(digests)} digests, {len(words)} splits.")
    by_digest: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest:
            by_digest[digest].append(i)
    return [
        members
        for members in by_digest.values()
        if len({(words[i], samples.labels[i].tobytes()) for i in members}) > 1
    ]


def _place(samples: Samples, words: Sequence[str], index: int) -> str:
    label = samples.labels[index]
    if samples.task == "classes":
        text = samples.class_names[int(label)]
    elif samples.task == "tags":
        names = zip(samples.class_names, label, strict=True)
        text = "|".join(name for name, on in names if on) or "no tag"
    else:
        text = "|".join(f"{value:g}" for value in label)
    return f"{words[index]}: {text}"
