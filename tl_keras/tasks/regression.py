"""Regression: one number a sample, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.metrics import evaluate_values
from tl_keras.tasks.base import Scale, Task, read_numbers

__all__ = ["NEAR", "Regression"]

NEAR = 0.05
"""Two answers agree that differ by at most this share of their spread over the samples."""
_STRATA = 10
_FAR = 4.5


class Regression(Task):
    """Numbers. Labels are float32 (n, outputs), outputs are in the labels' own units.

    While a model learns, each output's targets have mean 0 and standard deviation 1, whatever
    their units: see :meth:`scale`.
    """

    name = "values"
    kind = "regression"
    output_values = "numbers in the units of the labels"
    plural = "values"
    sections = ("outputs",)
    figures = ("scatter",)

    def parse(
        self, cells: Sequence[str], where: Callable[[int], str]
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read numbers separated by "|", as many in each row."""
        rows = [read_numbers(cell, where(row)) for row, cell in enumerate(cells)]
        count = len(rows[0])
        for row, numbers in enumerate(rows):
            if len(numbers) != count:
                raise DataError(f"{where(row)}: {len(numbers)} values, expected {count} as above.")
        names = ("value",) if count == 1 else tuple(f"value {i + 1}" for i in range(count))
        return names, np.array(rows, np.float32)

    def doubt_labels(
        self, outputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Doubt by the residual in robust standard deviations (of its median deviation)."""
        residuals = outputs - labels
        residuals = residuals - np.median(residuals, axis=0)
        spread = 1.4826 * np.median(np.abs(residuals), axis=0)
        bound = 1e-6 * np.maximum(np.abs(labels).max(0), np.finfo(np.float32).tiny)
        scores = (np.abs(residuals) / np.maximum(spread, bound)).max(1)
        return scores, scores > _FAR, outputs

    def describe_doubt(self, doubt: float) -> str:
        """Return how many robust standard deviations it is off."""
        return f"{doubt:.1f} robust standard deviations off"

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return tenths of the first value."""
        if not len(labels):
            return np.zeros(0, np.int64)
        edges = np.quantile(labels[:, 0], np.linspace(0, 1, _STRATA + 1)[1:-1])
        return np.digitize(labels[:, 0], edges).astype(np.int64)

    def scale(self, labels: np.ndarray) -> Scale | None:
        """Return mean and standard deviation of each output; a constant output keeps its size."""
        wide = np.asarray(labels, np.float64)
        spread = wide.std(axis=0)
        # Rounding leaves a constant column with a spread that is not quite 0.
        constant = spread <= 1e-7 * np.maximum(1e-30, np.abs(wide).max(axis=0))
        return Scale(wide.mean(axis=0), np.where(constant, 1.0, spread))

    def loss_and_metrics(self, label_smoothing: float = 0.0) -> tuple[Any, list[Any]]:
        """Return the squared error, mean over outputs."""
        import keras

        return keras.losses.MeanSquaredError(), [
            keras.metrics.MeanSquaredError(name="plain_loss")
        ]

    def sample_losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the squared error, mean over outputs."""
        return ((np.asarray(outputs, np.float64) - targets) ** 2).mean(1)

    def evaluate(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """See :func:`tl_keras.evaluation.metrics.evaluate_values`."""
        return {"task": self.name, **evaluate_values(outputs, labels, class_names, seed)}

    def warn(self, metrics: dict[str, Any]) -> list[str]:
        """Say which outputs are predicted worse than by their mean."""
        return [
            f"'{row['name']}' is predicted worse than by always saying its mean (r² is "
            f"{row['r2']:.2g}): train longer, or check the labels"
            for row in metrics.get("per_output", ())
            if row["r2"] is not None and row["r2"] < 0
        ]

    def differences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return differences as shares of each output's largest size among the samples."""
        wide = np.asarray(outputs, np.float64)
        size = np.maximum(np.abs(wide).max(axis=0), 1e-12)
        return np.abs(wide - np.asarray(others, np.float64)) / size

    def agree(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return where no output lies further away than `NEAR` times its spread."""
        spread = np.maximum(outputs.std(axis=0), 1e-6)
        near = (np.abs(outputs - others) <= NEAR * spread).all(axis=1)
        return near & np.isfinite(others).all(axis=1)

    def divergences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return that of normal distributions as wide as an output is spread, mean over outputs."""
        spread = np.maximum(np.asarray(outputs, np.float64).std(axis=0), 1e-6)
        off = (np.asarray(others, np.float64) - outputs) / spread
        return np.where(np.isfinite(off), off**2 / 2, np.inf).mean(axis=1)

    def agree_within(
        self, outputs: np.ndarray, others: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Return where answers are numbers: how near they are is for `differences` to say."""
        return np.isfinite(others).all(axis=1)
