"""Linear classifiers that learn from a stream: sums of the features are all they keep.

The order and the size of the batches do not matter, and nothing learnt is forgotten: the
result is that of all samples at once.
"""

from __future__ import annotations

import numpy as np

from tl_keras.errors import DataError
from tl_keras.probing.linear_head import (
    PENALTIES,
    Facts,
    LinearHead,
    bounded_scale,
    check_features,
    fold_scaling,
)

__all__ = ["StreamingLDA", "StreamingRidge"]

_ROBUST = 0.2


class _Sums:
    """Counts and sums of a stream of labelled features; classes may be added as they come."""

    def __init__(self, dimensions: int, classes: int = 0) -> None:
        self.counts: np.ndarray = np.zeros(classes)
        self.sums: np.ndarray = np.zeros((classes, dimensions))
        self.gram: np.ndarray = np.zeros((dimensions, dimensions))

    @property
    def dimensions(self) -> int:
        """Features a sample."""
        return len(self.gram)

    @property
    def classes(self) -> int:
        """Classes known so far."""
        return len(self.counts)

    def update(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Add samples; a label past the last class adds classes.

        Args:
            features: (n, d), finite.
            labels: Class indices, 0 or more, (n,).

        Raises:
            DataError: They are not as above.
        """
        highest = int(np.max(labels, initial=-1)) + 1
        features, labels = check_features(features, labels, max(highest, self.classes))
        if features.shape[1] != self.dimensions:
            raise DataError(
                f"got {features.shape[1]} features a sample, expected {self.dimensions}: "
                "use the layer the first samples came from"
            )
        self._grow(highest)
        wide: np.ndarray = features.astype(np.float64)
        self.gram += wide.T @ wide
        self.sums += np.eye(self.classes)[labels].T @ wide
        self.counts += np.bincount(labels, minlength=self.classes)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that is kept: float64 "counts" (c,), "sums" (c, d), "gram" (d, d)."""
        return {"counts": self.counts, "sums": self.sums, "gram": self.gram}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what :meth:`arrays` gave.

        Raises:
            DataError: The arrays are of other features.
        """
        shape = np.shape(arrays["gram"])
        if shape != self.gram.shape:
            raise DataError(f"got sums of {shape[0]} features, expected {self.dimensions}")
        self.counts, self.sums = np.array(arrays["counts"]), np.array(arrays["sums"])
        self.gram = np.array(arrays["gram"])

    def _grow(self, classes: int) -> None:
        more = max(0, classes - self.classes)
        self.counts = np.pad(self.counts, (0, more))
        self.sums = np.pad(self.sums, ((0, more), (0, 0)))

    def _moments(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean, scale, and the standardised features' scatter around the mean."""
        count = float(self.counts.sum())
        if count < 2:
            raise DataError(f"got {count:.0f} samples so far, expected 2 or more; update first")
        mean = self.sums.sum(0) / count
        scatter = self.gram - count * np.outer(mean, mean)
        scale = bounded_scale(mean, np.diag(scatter) / count)
        return count, mean, scale, scatter / np.outer(scale, scale)


class StreamingRidge(_Sums):
    """Ridge regression on one-hot targets, from the Gram matrix alone.

    Args:
        dimensions: Features a sample.
        classes: Classes known beforehand; labels past them add more.
    """

    def solve(self, penalty: float | None = None) -> LinearHead:
        """Return the head of all samples so far.

        Without samples at hand the penalty is chosen by robust generalised cross-validation
        (Lukas 2006), which needs the sums alone and, unlike the plain one, does not fall for
        tiny penalties where features outnumber samples. The residual variance v gives the
        confidence: targets seen through Gaussian noise have the log odds score / v.

        Args:
            penalty: Factor on the covariance's mean eigenvalue; None chooses.

        Raises:
            DataError: There are fewer than 2 samples.
        """
        from scipy import linalg

        count, mean, scale, scatter = self._moments()
        share = self.counts / count
        cross = (self.sums - np.outer(self.counts, mean)).T / scale[:, None]
        values, vectors = linalg.eigh(scatter, check_finite=False)
        kept = values > max(values[-1], 1e-300) * 1e-10
        values, vectors = values[kept], vectors[:, kept]
        along = vectors.T @ cross
        unit = float(values.mean()) if len(values) else 1.0
        given = PENALTIES if penalty is None else (penalty,)
        tried = [(*self._validate(values, along, unit * one), one) for one in given]
        _, variance, chosen = min(tried)
        weights = vectors @ (along / (values + chosen * unit)[:, None])
        facts: Facts = {"penalty": chosen}
        return fold_scaling(weights, share, mean, scale, facts).scale(1.0 / max(variance, 1e-3))

    def _validate(
        self, values: np.ndarray, along: np.ndarray, penalty: float
    ) -> tuple[float, float]:
        """Robust generalised cross-validation's score; one output's residual variance."""
        count = float(self.counts.sum())
        left = penalty / (values + penalty)
        energy = (along**2).sum(1) / values
        outside = count - (self.counts**2).sum() / count - energy.sum()
        residual = max(float(outside), 0.0) + (left**2 * energy).sum()
        free = max(count - 1.0 - len(values), 0.0) + left.sum()
        variance = float(count * residual / max(free, 1e-9) ** 2 / max(self.classes, 1))
        memory = float(((1.0 - left) ** 2).sum()) / count
        return variance * (_ROBUST + (1.0 - _ROBUST) * memory), variance


class StreamingLDA(_Sums):
    """Linear discriminant analysis from the same sums.

    A streaming form of Hayes and Kanan 2020 (arXiv 1909.01520): the shared covariance is
    shrunk as far as the oracle approximating estimator says (Chen et al. 2010), which needs
    the covariance alone.

    Args:
        dimensions: Features a sample.
        classes: Classes known beforehand; labels past them add more.
    """

    def solve(self) -> LinearHead:
        """Return the head of all samples so far.

        Raises:
            DataError: There are fewer than 2 samples, or a class has none.
        """
        from scipy import linalg

        count, mean, scale, scatter = self._moments()
        if not self.counts.all():
            raise DataError(f"no sample of class {int(np.argmin(self.counts))} so far")
        means = (self.sums / self.counts[:, None] - mean) / scale
        within = (scatter - (means.T * self.counts) @ means) / count
        share, level = _oracle(within, count)
        shrunk = (1 - share) * within + max(share * level, 1e-9) * np.eye(len(within))
        weights = linalg.solve(shrunk, means.T, assume_a="pos")
        bias = np.log(self.counts / count) - 0.5 * np.einsum("cd,dc->c", means, weights)
        return fold_scaling(weights, bias, mean, scale, {"shrinkage": share})


def _oracle(covariance: np.ndarray, count: float) -> tuple[float, float]:
    """Chen et al. 2010, 'Shrinkage algorithms for MMSE covariance estimation', equation 23."""
    size = len(covariance)
    level = float(np.trace(covariance)) / size
    mean_square = float((covariance**2).mean())
    above = mean_square + level**2
    below = (count + 1.0) * (mean_square - level**2 / size)
    return (1.0 if below <= 0 else min(above / below, 1.0)), level
