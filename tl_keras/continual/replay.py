"""Exemplars: which old images are kept, so that they can be learnt from again.

Each way gives an order of all images; the first that a budget of bytes holds are kept. So
a smaller budget keeps a part of what a larger one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from tl_keras.errors import DataError

__all__ = ["WAYS", "order", "select_by_herding", "within_budget"]

WAYS = ("herding", "balanced", "reservoir")


def select_by_herding(features: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return the order in which samples of one class best stand for its mean.

    Each next sample is the one that brings the mean of those chosen closest to the mean of
    all, on features of length one (iCaRL, Rebuffi et al., arXiv 1611.07725, algorithm 4).

    Args:
        features: (n, d).
        count: How many to choose; None orders all.

    Returns:
        int64 (count,) indices.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    x = np.asarray(features, np.float64) / np.maximum(lengths, 1e-12)
    wanted, total = x.mean(0), np.zeros(x.shape[1])
    free: np.ndarray = np.ones(len(x), bool)
    chosen: list[int] = []
    squares = (x**2).sum(1)
    for number in range(1, min(count or len(x), len(x)) + 1):
        # |wanted - (total + x) / number|², without what all samples share.
        distance = squares / number - 2 * x @ (wanted - total / number)
        best = int(np.where(free, distance, np.inf).argmin())
        free[best] = False
        total += x[best]
        chosen.append(best)
    return np.array(chosen, np.int64)


def order(
    way: str,
    labels: np.ndarray,
    digests: Sequence[str],
    seed: int = 0,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return samples in the order in which they should be kept.

    Args:
        way: "herding" and "balanced" take one of each class in turn, by
            :func:`select_by_herding` or by chance; "reservoir" takes by chance whatever the
            class: a uniform sample of all that was ever seen, as reservoir sampling gives
            (Vitter 1985). Chance is a hash of seed and digest, so that an image's rank
            never changes when others come.
        labels: int (n,).
        digests: What each sample is, as text.
        seed: Another seed, another chance.
        features: (n, d), for "herding".

    Raises:
        DataError: The way is unknown, or features are missing.
    """
    if way not in WAYS:
        raise DataError(f"unknown way to choose exemplars '{way}'; expected {', '.join(WAYS)}")
    if way == "herding" and (features is None or len(features) != len(labels)):
        raise DataError("herding needs the features of every sample; expected (n, d)")
    chance = np.array([_chance(seed, digest) for digest in digests], np.float64)
    if way == "reservoir":
        return np.argsort(chance, kind="stable")
    ranks: np.ndarray = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        sorted_members = members[
            select_by_herding(features[members])
            if way == "herding" and features is not None
            else np.argsort(chance[members], kind="stable")
        ]
        ranks[sorted_members] = np.arange(len(members))
    return np.lexsort((labels, ranks))


def _chance(seed: int, digest: str) -> float:
    name = f"{seed}/{digest}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big") / 2.0**48


def within_budget(
    ordered: Sequence[int] | np.ndarray, size: Callable[[int], int], budget: float
) -> list[int]:
    """Return the first samples of an order that a budget holds.

    Args:
        ordered: Indices.
        size: Bytes of a sample; asked for in turn until the budget is full.
        budget: Bytes.
    """
    kept, used = [], 0
    for index in np.asarray(ordered).tolist():
        used += size(index)
        if used > budget:
            break
        kept.append(index)
    return kept
