"""Split samples by seed and name, share by share in each class; find images on two sides.

Within each class the samples are ordered by a hash of the seed and their key (the path below
the data's root, or the content of an array); the first round(test * n) are test, the next
validation, the others train. So the shares are met in every class to the sample, the order of
the files, their place and a re-saved image change nothing, and the command and the Python API
split alike. What an added or removed sample can move: at each border (test to validation,
validation to train) at most one other sample of its class. (Tags and values have strata of
at least ten samples in place of classes; they are cut from the data, so more may move.)

Samples of one group (copies of an image, by the check's digests; or patients, places,
cameras) are taken together, at the place of the group's first key, wherever at least half of
them are still wanted. A class of two or more groups always has one in train and one in
validation; of three or more, one in test too if there is a test share.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tl_keras.data.samples import SPLITS, Samples
from tl_keras.errors import DataError

__all__ = [
    "Shared", "Splits", "assign", "check_shares", "divide", "find_shared", "leave_out",
    "shared_error", "split",
]  # fmt: skip

_SHOWN = 20
_FEWEST = 10


@dataclass(frozen=True)
class Splits:
    """Samples to learn from, to choose by, and (maybe) to report on.

    Raises:
        DataError: if their classes differ.
    """

    train: Samples
    val: Samples
    test: Samples | None

    def __post_init__(self) -> None:
        """Refuse parts whose labels count different classes."""
        for name in ("val", "test"):
            part = getattr(self, name)
            if part is not None and part.class_names != self.train.class_names:
                raise DataError(
                    f"{name} has the classes {list(part.class_names)[:10]}, train "
                    f"{list(self.train.class_names)[:10]}: pass the same class_names to both."
                )


@dataclass(frozen=True)
class Shared:
    """The same sample at two places.

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
        groups: one name a sample: samples of one group stay together (the samples' digests,
            so that copies never end up on two sides; or patients, places, cameras).

    Raises:
        DataError: if a share makes no sense or train or validation would be empty.
    """
    return divide(replace(samples, splits=assign(samples, val, test, seed, groups)))


def divide(samples: Samples, *, folded: bool = False) -> Splits:
    """Sort samples by the splits that they name.

    Args:
        samples: What to sort.
        folded: Whether there may be no validation split, since folds stand in for it.

    Raises:
        DataError: if train or validation is empty.
    """
    parts = {name: samples.where(name) for name in SPLITS}
    for name in ("train",) if folded else ("train", "val"):
        if not len(parts[name]):
            raise DataError(
                f"The {name} split of {samples.root or 'the samples'} is empty "
                f"({len(samples)} {samples.modality.noun}s in all): add some or change the shares."
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
    val: float | None = 0.2,
    test: float = 0.0,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Say "train", "val" or "test" for each sample; arguments as for `split`.

    With `val` None nothing is carved for validation.
    """
    check_shares(0.2 if val is None else val, test)
    words = list(samples.splits or ("",) * len(samples))
    said = set(words)
    shares = {"test": 0.0 if "test" in said else test, "val": 0.0 if "val" in said else val or 0.0}
    pool = [i for i, word in enumerate(words) if word in ("", "train")]
    strata = _strata(samples)
    waiting = _ordered_groups(samples.keys, pool, groups, seed)
    sizes = Counter(strata[i] for i in pool)
    left = Counter(stratum for group in waiting for stratum in {strata[i] for i in group})
    below, keep = 0.0, 1 + bool(shares["val"])
    for word, share in shares.items():
        if share:
            wanted = {
                stratum: max(1, _rounded((below + share) * n) - _rounded(below * n))
                for stratum, n in sizes.items()
            }
            taken, waiting = _take(waiting, strata, wanted, left, keep)
            for i in (i for group in taken for i in group):
                words[i] = word
        below, keep = below + share, 1
    for i in (i for group in waiting for i in group):
        words[i] = "train"
    return tuple(words)


def find_shared(
    samples: Samples, digests: Sequence[str], words: Sequence[str]
) -> tuple[Shared, ...]:
    """Find the same sample under two splits or two classes.

    Args:
        samples: all samples, of all splits.
        digests: a hash of each sample's decoded pixels; "" is never equal to another.
        words: the split of each sample, from `assign`.

    Returns:
        One pair for each place (split and label) beyond the sample's first.
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


def shared_error(shared: Sequence[Shared], noun: str = "sample") -> DataError:
    """Build the error that lists the pairs (the first 20, and how many there are)."""
    lines = [f"  {pair}" for pair in shared[:_SHOWN]]
    if len(shared) > _SHOWN:
        lines.append(f"  ... and {len(shared) - _SHOWN} more")
    return DataError(
        f"The same {noun} is found under two splits or two classes, {len(shared)} times:\n"
        + "\n".join(lines)
        + "\nRemove one of each, or skip bad ones (--skip-bad) to leave them out."
    )


def leave_out(
    samples: Samples,
    digests: Sequence[str],
    words: Sequence[str],
    *,
    contradictions: bool = True,
) -> tuple[int, ...]:
    """Say which samples to drop so that no sample is shared.

    What is in test is dropped from train and validation, what is in validation from train;
    of a sample under two classes all copies go, as nobody knows which is right.

    Args:
        samples: All samples, of all splits.
        digests: A hash of each sample's content; "" is never equal to another.
        words: The split of each sample, from `assign`.
        contradictions: Whether copies under two classes of one split go.

    Returns:
        Indices into `samples`, ascending.
    """
    drop: list[int] = []
    rank = {name: i for i, name in enumerate(SPLITS)}
    for members in _conflicts(samples, digests, words):
        if contradictions and len({samples.labels[i].tobytes() for i in members}) > 1:
            drop.extend(members)
        else:
            highest = max(rank[words[i]] for i in members)
            drop.extend(i for i in members if rank[words[i]] < highest)
    return tuple(sorted(drop))


def _rounded(number: float) -> int:
    return int(number + 0.5)


def _strata(samples: Samples) -> list[int]:
    strata = samples.kind.strata(samples.labels).tolist()
    if samples.kind.single_label:
        return strata
    counts = Counter(strata)
    return [stratum if counts[stratum] >= _FEWEST else -1 for stratum in strata]


def _ordered_groups(
    keys: Sequence[str], pool: Sequence[int], groups: Sequence[str] | None, seed: int
) -> list[list[int]]:
    """Collect the pool's samples in groups, ordered by a hash of each group's first key."""
    salt = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()

    def place(group: list[int]) -> tuple[bytes, str]:
        first = min(keys[i] for i in group)
        # A key of blake2b keeps seeds apart for every possible name.
        name = first.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(name, digest_size=8, key=salt).digest(), first

    if groups is None:
        return sorted(([i] for i in pool), key=place)
    members: dict[str | int, list[int]] = defaultdict(list)
    for i in pool:
        # What has no group (a damaged image has no digest) stands alone.
        members[groups[i] or i].append(i)
    return sorted(members.values(), key=place)


def _take(
    groups: list[list[int]],
    strata: Sequence[int],
    wanted: dict[int, int],
    left: Counter[int],
    keep: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """Take groups in order until each stratum has what is wanted; return taken and others.

    Args:
        groups: Indices of the samples of each.
        strata: Of each sample.
        wanted: Samples of each stratum to take; counted down here.
        left: Groups of each stratum that are not taken yet; counted down here.
        keep: Groups that must be left in each stratum.
    """
    taken: list[list[int]] = []
    others: list[list[int]] = []
    lacking = {stratum for stratum in wanted if left[stratum] > keep}

    def counted(group: list[int]) -> dict[int, int]:
        return Counter(strata[i] for i in group) if len(group) > 1 else {strata[group[0]]: 1}

    def spare(counts: dict[int, int]) -> bool:
        return all(left[stratum] > keep for stratum in counts)

    def take(group: list[int], counts: dict[int, int]) -> None:
        taken.append(group)
        for stratum, count in counts.items():
            wanted[stratum] -= count
            left[stratum] -= 1
            lacking.discard(stratum)

    for group in groups:
        counts = counted(group)
        fits = sum(min(max(wanted[stratum], 0), count) for stratum, count in counts.items())
        if 2 * fits >= len(group) and spare(counts):
            take(group, counts)
        else:
            others.append(group)
    # Where every group is too large the smallest goes, so that no class is without.
    while lacking:
        stratum = min(lacking)
        lacking.remove(stratum)
        fitting = [g for g in others if stratum in counted(g) and spare(counted(g))]
        if fitting:
            group = min(fitting, key=len)
            others.remove(group)
            take(group, counted(group))
    return taken, others


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
    text = samples.kind.describe(samples.labels[index], samples.class_names)
    return f"{words[index]}: {text}"
