"""Mix samples in pairs (mixup) as views: the seed decides which, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.modalities.base import Reader
from tl_keras.training.batches import permutation

__all__ = ["MixedReader", "Mixing"]

_SALT = 0x6D69  # keeps the shares' stream apart from that of the orders


class Mixing:
    """Pairs the samples of each view; view 0 stays unmixed.

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", arXiv 1710.09412.

    Args:
        rows: Images.
        seed: Decides the pairs, with the view's number.
        alpha: Parameter of the Beta distribution of the shares, above 0.
    """

    def __init__(self, rows: int, seed: int, alpha: float) -> None:
        self.rows, self.seed, self.alpha = rows, seed, alpha
        self._views: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def view(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each sample's partner int64 (rows,) and its own share float32 (rows,)."""
        if number not in self._views:
            self._views[number] = self._draw(number)
        return self._views[number]

    def _draw(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number == 0:
            return np.arange(self.rows), np.ones(self.rows, np.float32)
        generator = np.random.Generator(np.random.Philox(key=[self.seed + (_SALT << 32), number]))
        shares = generator.beta(self.alpha, self.alpha, self.rows).astype(np.float32)
        # The larger share is the sample's own, so that each counts mostly once in a view.
        return permutation(self.rows, self.seed + (_SALT << 32), number), np.maximum(
            shares, 1 - shares
        )

    def of(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return partners int64 (n,) and shares float32 (n,) of samples in their views."""
        partners: np.ndarray = np.array(indices)
        shares: np.ndarray = np.ones(len(indices), np.float32)
        for number in np.unique(views):
            chosen = views == number
            others, own = self.view(int(number))
            partners[chosen], shares[chosen] = others[indices[chosen]], own[indices[chosen]]
        return partners, shares

    def mixed(self, rows: np.ndarray, views: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return rows (n, ...) mixed from those of all samples (rows, ...), float32."""
        partners, shares = self.of(views, indices)
        shares = shares.reshape(-1, *[1] * (rows.ndim - 1))
        return (shares * rows[indices] + (1 - shares) * rows[partners]).astype(np.float32)


class MixedReader:
    """Reads samples mixed in pairs; both of a pair are seen in the same view.

    Only what numbers measure can be mixed, as pixels are; token ids cannot.

    Args:
        plain: Reads the samples.
        mixing: Says which pairs.
    """

    def __init__(self, plain: Reader, mixing: Mixing) -> None:
        self.plain, self.mixing = plain, mixing
        self.samples, self.specs = plain.samples, plain.specs

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.plain)

    @property
    def varied(self) -> bool:
        """Whether augmented views differ from the plain sample: they do."""
        return True

    def read(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> dict[str, np.ndarray]:
        """Return mixed arrays of the inputs' dtypes, see `tl_keras.modalities.base.Reader`."""
        chosen = np.asarray(indices)
        seen: np.ndarray = np.broadcast_to(views, len(indices))
        partners, shares = self.mixing.of(seen, chosen)
        own = self.plain.read(chosen, seen)
        if (shares == 1).all():
            return own
        other = self.plain.read(partners, seen)
        return {name: _mix(own[name], other[name], shares) for name in own}


def _mix(own: np.ndarray, other: np.ndarray, shares: np.ndarray) -> np.ndarray:
    share = shares.reshape(-1, *[1] * (own.ndim - 1))
    mixed = share * own + (1 - share) * other
    return (np.rint(mixed) if own.dtype.kind in "iu" else mixed).astype(own.dtype)
