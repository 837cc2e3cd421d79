"""Compare what a file answers with what its Keras model answers: parity, and agreement."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.runtime.runtimes import Runtime
from export.source import Source
from export.variant import Verdict
from tl_keras import tasks
from tl_keras.errors import ExportError, ParityError
from tl_keras.features.extract import Arrays, collect
from tl_keras.utils.progress import Progress
from tl_keras.utils.stats import wilson

__all__ = ["Parity", "compare", "measure_agreement", "predict_all", "require_parity"]

_BATCH = 16
_NAMED = 5


def predict_all(
    runtime: Runtime, inputs: Mapping[str, np.ndarray], progress: Progress, name: str
) -> np.ndarray:
    """Ask a runtime for all samples.

    Args:
        runtime: what answers.
        inputs: by the input's name, (n, ...).
        progress: told after each batch.
        name: what to call it there.

    Returns:
        float32 (n, outputs).
    """
    told = functools.partial(progress, f"asking {name}")
    (given,) = collect(
        lambda batch: [runtime.predict(batch)],  # type: ignore[arg-type]
        Arrays(inputs), batch_size=_BATCH, progress=told,
    )  # fmt: skip
    return given


def measure_agreement(truth: np.ndarray, given: np.ndarray, source: Source) -> Verdict:
    """Compare answers, and both with the labels where they are known.

    Accuracy is the share of samples that are answered right as a whole, with Wilson's interval at
    95 %; where the task has no such thing (numbers), what counts is how many agree with Keras.

    Args:
        truth: (n, outputs), what Keras answers.
        given: (n, outputs), what the file answers.
        source: its labels, class names and task.

    Raises:
        ExportError: if the shapes differ.
    """
    _require_shapes(truth, given)
    difference = np.abs(truth.astype(np.float64) - given.astype(np.float64))
    task, labels = source.kind, source.labels
    right = None if labels is None else task.correct(given, labels)
    before = None if labels is None else task.correct(truth, labels)
    low, high = (None, None) if right is None else wilson(right.sum(), len(right))
    return Verdict(
        count=len(truth),
        accuracy=None if right is None else float(right.mean()),
        low=low,
        high=high,
        source_accuracy=None if before is None else float(before.mean()),
        agreement=float(task.agree(truth, given).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        per_class_drop=_measure_class_drops(truth, given, source),
    )


def _require_shapes(truth: np.ndarray, given: np.ndarray) -> None:
    if truth.shape != given.shape or truth.ndim != 2 or not len(truth):
        raise ExportError(
            f"Keras answers with shape {truth.shape}, the file with {given.shape}; expected the "
            "same (samples, outputs), and at least one sample."
        )


def _measure_class_drops(
    truth: np.ndarray, given: np.ndarray, source: Source
) -> dict[str, float]:
    if source.labels is None:
        return {}
    drops = {}
    for index, name in enumerate(source.class_names):
        before, after = (
            source.kind.recognized(one, source.labels, index) for one in (truth, given)
        )
        if before is not None and after is not None and len(before):
            drops[name] = float(before.mean() - after.mean())
    return drops


@dataclass(frozen=True)
class Parity:
    """How far an artifact's answers are from its source's.

    Attributes:
        count: samples that were compared.
        max_difference: largest difference of two outputs, as the task measures it. NaN if one
            side gave NaN.
        mean_difference: mean of the same differences.
        agreed: samples whose answers mean the same; what ties within the tolerance does.
        tolerance: the largest difference allowed.
        differing: indices of the samples that differ by more, in meaning, or in NaN.
        per_sample: the largest difference of each sample.
    """

    count: int
    max_difference: float
    mean_difference: float
    agreed: int
    tolerance: float
    differing: tuple[int, ...]
    per_sample: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether every sample's answer is the same within the tolerance."""
        return not self.differing


def compare(
    truth: np.ndarray, given: np.ndarray, tolerance: float, task: str = "classes"
) -> Parity:
    """Compare an artifact's answers with its source's.

    Args:
        truth: (n, outputs), what the Keras model gave for n samples.
        given: (n, outputs), what the artifact gave for the same samples.
        tolerance: largest difference of an output that is allowed, as the task measures it.
        task: name of the task.

    Raises:
        ExportError: if there is no sample, or the shapes differ.
    """
    _require_shapes(truth, given)
    kind = tasks.get(task)
    difference = kind.differences(truth, given)
    worst, same = difference.max(axis=1), kind.agree_within(truth, given, tolerance)
    # "Not within" instead of "beyond": NaN is neither, and must not pass.
    differing = np.flatnonzero(~(worst <= tolerance) | ~same)
    return Parity(
        count=len(truth),
        max_difference=float(worst.max()),
        mean_difference=float(difference.mean()),
        agreed=int(same.sum()),
        tolerance=tolerance,
        differing=tuple(int(index) for index in differing),
        per_sample=tuple(float(value) for value in worst),
    )


def require_parity(parity: Parity, name: str, keys: Sequence[str]) -> None:
    """Let an artifact pass, or say why not.

    Args:
        parity: of the artifact with its source.
        name: what to call the artifact.
        keys: one name per sample.

    Raises:
        ParityError: if it differs; the first samples that do are named.
    """
    if parity.passed:
        return
    first = parity.differing[:_NAMED]
    named = ", ".join(f"{keys[index]} ({parity.per_sample[index]:.2g})" for index in first)
    more = len(parity.differing) - len(first)
    raise ParityError(
        f"{name} does not give the answers of the Keras model: largest difference "
        f"{parity.max_difference:.3g} (allowed {parity.tolerance:.0e}), the same meaning for "
        f"{parity.agreed} of {parity.count} samples. First to differ: {named}"
        + (f" and {more} more" if more else "")
        + ". Nothing was written."
    )
