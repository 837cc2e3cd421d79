"""The base class of all tasks: everything that depends on what a model is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.errors import DataError

__all__ = ["Scale", "Task", "kullback_leibler"]

_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and spread of each output's targets, under which a model learns.

    Attributes:
        mean: float64 (outputs,).
        spread: float64 (outputs,), above 0.
    """

    mean: np.ndarray
    spread: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return (values - mean) / spread as float32."""
        return ((np.asarray(values, np.float64) - self.mean) / self.spread).astype(np.float32)


class Task:
    """What a model is asked for. A subclass declares the attributes and the methods that differ.

    Labels are an array with one row a sample: whatever `parse` and `check` return. Outputs and
    targets are float arrays (n, outputs).

    Attributes:
        name: In commands, CSV files and records.
        kind: The field's word, as in "image-classification".
        activation: Of a head's last layer, see :class:`tl_keras.models.heads.Head`.
        fewest: Names (classes, tags, outputs) that data must have at least.
        single_label: Whether labels are class indices int64 (n,), one a sample.
        ranked: Whether the highest outputs are the answer; else all of them are.
        output_name: Of the output in exported files.
        output_values: What the numbers of an exported file mean.
        plural: What several outputs are called in a report.
        sections: Names of the sections of a run's report that show results, in order, see
            `tl_keras.reports.run_report.SECTIONS`; one that finds nothing to say is left out.
        figures: Names of the figures that are drawn for a split.
    """

    name = ""
    kind = ""
    activation = "linear"
    fewest = 1
    single_label = False
    ranked = False
    output_name = "values"
    output_values = "numbers"
    plural = "outputs"
    sections: tuple[str, ...] = ("confusion", "classes", "calibration", "outputs", "mistakes")
    figures: tuple[str, ...] = ()

    def require_single_label(self, what: str) -> None:
        """Check that each sample has one class.

        Args:
            what: What needs it, for the message ("a probe").

        Raises:
            DataError: It has not.
        """
        if not self.single_label:
            raise DataError(f"got task {self.name!r}; {what} needs one class a sample ('classes')")

    # Labels

    def parse(
        self, cells: Sequence[str], where: Callable[[int], str]
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read labels that somebody wrote in a table.

        Args:
            cells: One text a sample.
            where: Says where a row stands ("t.csv, line 3"), for messages.

        Returns:
            Names in output order, and labels.

        Raises:
            DataError: A label makes no sense; the message says where.
        """
        raise DataError(f"labels of task {self.name!r} cannot be read from a table")

    def check(
        self, labels: np.ndarray, class_names: Sequence[str] | None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Check labels that came as an array; arguments and errors as for `parse`."""
        return _check_columns(labels, class_names)

    def counts(self, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
        """Return how many samples each name has; empty where that means nothing."""
        return {}

    def missing(self, labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
        """Return the names that cannot be learned, since no sample has them."""
        return []

    def describe(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return one sample's label as text."""
        return "|".join(f"{value:g}" for value in np.atleast_1d(label))

    def write(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return one sample's label as `parse` reads it."""
        return "|".join(repr(float(np.float32(value))) for value in np.atleast_1d(label))

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return int64 (n,): samples of one number are alike, for fair shares of each kind."""
        return np.zeros(len(labels), np.int64)

    # Learning

    def scale(self, labels: np.ndarray) -> Scale | None:
        """Return how targets are scaled while a model learns; None where they are not."""
        return None

    def targets(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        """Return what a model should give, float32 (n, outputs)."""
        return np.asarray(labels, np.float32)

    def balanced_weights(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        """Return float32 (n,), mean 1, under which every class counts the same."""
        return np.ones(len(labels), np.float32)

    def loss_and_metrics(self, label_smoothing: float = 0.0) -> tuple[Any, list[Any]]:
        """Return what to compile with; one metric is "plain_loss", one may be "accuracy"."""
        raise NotImplementedError

    def sample_losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return each sample's loss, float64 (n,), without smoothing."""
        raise NotImplementedError

    # Judging

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
        """Return the figures of a split, JSON-able, with "task" and "count" among them.

        Args:
            outputs: float (n, outputs).
            labels: One row a sample.
            class_names: One name an output.
            seed: Of resampling.
            temperature: From :meth:`fit_temperature` on other samples.
            thresholds: From :meth:`fit_thresholds` on other samples.
        """
        raise NotImplementedError

    def warn(self, metrics: dict[str, Any]) -> list[str]:
        """Return what a user must be told of such figures, one sentence each."""
        return []

    def fit_temperature(self, outputs: np.ndarray, labels: np.ndarray) -> float | None:
        """Return the temperature that calibrates outputs; None where there is no such thing."""
        return None

    def fit_thresholds(self, outputs: np.ndarray, labels: np.ndarray) -> list[float] | None:
        """Return from which output on each name is given; None where there is no such thing."""
        return None

    def correct(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return bool (n,), which samples are answered right; None where none is wholly right."""
        return None

    def recognized(
        self, outputs: np.ndarray, labels: np.ndarray, index: int
    ) -> np.ndarray | None:
        """Return bool for each sample of one name, whether it was recognized; None as above."""
        return None

    def doubt_labels(
        self, outputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return how much each label is doubted by models that have not seen the sample.

        Args:
            outputs: What they say, float64 (n, outputs).
            labels: As the task has them.

        Returns:
            Doubt, the higher the likelier wrong, float64 (n,); which are taken for wrong, bool
            (n,); and for each sample a label that is likelier.

        Raises:
            DataError: The task has no such thing.
        """
        raise DataError(f"labels of task {self.name!r} cannot be checked")

    def describe_doubt(self, doubt: float) -> str:
        """Return how much a label is doubted, as text."""
        return f"{doubt:.0%} against it"

    # Two models, or a model and a file made from it

    def agree(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return bool (n,): for which samples two answers mean the same; False for NaN."""
        raise NotImplementedError

    def differences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return how far answers lie apart, float64 (n, outputs)."""
        return np.abs(np.asarray(outputs, np.float64) - np.asarray(others, np.float64))

    def divergences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return each sample's Kullback-Leibler divergence, float64 (n,), in nats; inf for NaN.

        It is of the distributions that the outputs stand for, the mean where there are several;
        the log loss that the others cost more, if the outputs are the truth.
        """
        raise NotImplementedError

    def expected_losses(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return how much less likely others are right for each sample, float64 (n,), 0..1.

        A sample whose answer means the same costs nothing. Of one whose answer changed it is the
        outputs' own belief in their answer less that in the other one, so that a tie which falls
        the other way costs next to nothing; all of it where outputs are no beliefs.
        """
        return 1.0 - self.agree(outputs, others)

    def agree_within(
        self, outputs: np.ndarray, others: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Return bool (n,): as `agree`, but what is a tie within the tolerance counts as agreed."""
        raise NotImplementedError


def kullback_leibler(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return p log(p / q) - p + q, elementwise, never below 0, in nats; inf for NaN.

    Its sum over distributions is their divergence. What lies below a thousandth counts as that:
    a file whose outputs are whole numbers has 0 there.
    """
    p, q = (np.clip(np.asarray(one, np.float64), _LEAST, None) for one in (p, q))
    found = p * np.log(p / q) - p + q
    return np.where(np.isfinite(found), np.maximum(found, 0.0), np.inf)


def _check_columns(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iufb":
        raise DataError(f"Labels are {labels.dtype}; expected numbers.")
    numbers: np.ndarray = labels.astype(np.float64)
    numbers = numbers[:, np.newaxis] if numbers.ndim == 1 else numbers
    largest = float(np.finfo(np.float32).max)
    if numbers.ndim != 2 or not (np.abs(numbers) <= largest).all():
        raise DataError(
            f"Labels of shape {np.shape(labels)}: expected finite numbers (n, outputs), "
            f"at most {largest:.2g} in size."
        )
    columns = numbers.shape[1]
    numbered = ["value"] if columns == 1 else [f"value {i + 1}" for i in range(columns)]
    chosen = class_names or numbered
    if len(chosen) != columns:
        raise DataError(f"Got {len(chosen)} class names for {columns} outputs.")
    return tuple(chosen), numbers.astype(np.float32)


def read_numbers(cell: str, where: str) -> list[float]:
    """Read numbers separated by "|", each finite as float32.

    Raises:
        DataError: One is not; `where` stands in the message.
    """
    try:
        numbers = [float(part) for part in cell.split("|")]
    except ValueError:
        numbers = [math.nan]
    largest = float(np.finfo(np.float32).max)
    if not all(math.isfinite(number) and abs(number) <= largest for number in numbers):
        raise DataError(
            f"{where}: label {cell!r} is no finite number of at most {largest:.2g} in size "
            "(several numbers are separated by '|')."
        )
    return numbers
