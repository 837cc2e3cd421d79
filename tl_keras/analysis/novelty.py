"""Which single pictures are unlike all that a model was trained on."""

from __future__ import annotations

import numpy as np

from tl_keras.analysis.drift_tests import squared_distances
from tl_keras.errors import DataError

__all__ = ["novelty"]

_NEIGHBOURS = 5


def novelty(
    bank: np.ndarray, known: np.ndarray, new: np.ndarray, *, neighbours: int = _NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Return how unlike the training pictures each picture is.

    The distance to the k-th nearest training picture between features scaled to length 1
    (Sun et al., 'Out-of-distribution detection with deep nearest neighbors', ICML 2022,
    arXiv 2204.06507). Pictures of the known kind that were not trained on show what is usual.

    Args:
        bank: float (b, features) of training pictures, b at least `neighbours`.
        known: float (n, features) of pictures of the known kind that are not in the bank.
        new: float (m, features) of the same layer.
        neighbours: k.

    Returns:
        The distances of the known pictures, float64 (n,), and of the new ones, (m,); 0..2.

    Raises:
        DataError: There are fewer training pictures than neighbours.
    """
    if len(bank) < neighbours:
        raise DataError(f"got {len(bank)} training pictures; expected at least {neighbours}")
    base = _unit(bank)
    near = [np.partition(squared_distances(_unit(side), base), neighbours - 1, axis=1)
            for side in (known, new)]  # fmt: skip
    return np.sqrt(near[0][:, neighbours - 1]), np.sqrt(near[1][:, neighbours - 1])


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
