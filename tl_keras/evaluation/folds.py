"""Parts of the samples left out in turn, so that each is judged by what has not seen it."""

from __future__ import annotations

import warnings

import numpy as np

from tl_keras.errors import DataError

__all__ = ["assign_folds"]


def assign_folds(strata: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return each sample's fold, int64 (n,): every kind in each, copies in one.

    Args:
        strata: int (n,), 0 and up: kinds that every fold should hold its share of.
        groups: int (n,), samples of one number are in one fold.
        folds: at most how many; fewer where there are fewer groups.
        seed: another seed, other folds.

    Raises:
        DataError: there is one group only.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    many = min(folds, len(np.unique(groups)))
    if many < 2:
        raise DataError("all samples are copies of one; nothing can be learned from others")
    single = len(np.unique(groups)) == len(groups)
    # A fold holds some of a class or none: where all are rarer than folds, order alone decides.
    if np.bincount(strata).max() < many:
        strata = np.zeros_like(strata)
    kind = StratifiedKFold if single else StratifiedGroupKFold
    found: np.ndarray = np.zeros(len(strata), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer samples than folds
        cut = kind(many, shuffle=True, random_state=seed).split(strata, strata, groups)
        for number, (_, out) in enumerate(cut):
            found[out] = number
    return found
