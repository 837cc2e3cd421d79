"""Compare what a file answers with what its Keras model answers: parity, and agreement."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.runtime.runtimes import Runtime
from export.source import Shown, Source
from export.variant import Verdict
from tl_keras import tasks
from tl_keras.errors import ExportError, ParityError
from tl_keras.features.extract import Arrays, collect
from tl_keras.tasks.base import Task
from tl_keras.utils.progress import Progress
from tl_keras.utils.stats import paired_interval, wilson

__all__ = [
    "LEAST_DIVERGENCE", "Decision", "Parity", "can_decide", "compare", "is_refuted", "judge",
    "judge_trained", "measure", "measure_agreement", "predict_all", "require_parity",
]  # fmt: skip

LEAST_DIVERGENCE = 1e-3
"""Nats below which outputs count as the same, however little may be lost."""
_ROUNDING = 1e-12

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
    """Compare answers for the samples of a source, and both with the labels where they are known.

    Args:
        truth: (n, outputs), what Keras answers.
        given: (n, outputs), what the file answers.
        source: its labels, class names and task.

    Raises:
        ExportError: if the shapes differ.
    """
    return measure(truth, given, source.shown, source.kind, source.class_names)


def measure(
    truth: np.ndarray, given: np.ndarray, shown: Shown, task: Task, class_names: Sequence[str]
) -> Verdict:
    """Compare answers for samples of which the first have labels, or none.

    Accuracy is the share of samples that are answered right as a whole, with Wilson's interval at
    95 %, its drop has Tango's; where the task has no such thing (numbers), what counts is how many
    agree with Keras.

    Args:
        truth: (n, outputs), what Keras answers.
        given: (n, outputs), what the file answers.
        shown: the samples that both were asked for.
        task: what the outputs mean.
        class_names: one per output.

    Raises:
        ExportError: if the shapes differ.
    """
    _require_shapes(truth, given)
    difference = np.abs(truth.astype(np.float64) - given.astype(np.float64))
    expected = task.expected_losses(truth, given)
    found = Verdict(
        count=len(truth),
        accuracy=None,
        low=None,
        high=None,
        source_accuracy=None,
        agreement=float(task.agree(truth, given).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        divergence=float(task.divergences(truth, given).mean()),
        expected_drop=float(expected.mean()),
        expected_high=wilson(float(expected.sum()), len(expected))[1],
        images=shown.images,
    )
    labels = shown.labels
    if labels is None or not len(labels):
        return found
    truth, given = truth[: len(labels)], given[: len(labels)]
    before, after = task.correct(truth, labels), task.correct(given, labels)
    if before is None or after is None:
        return found
    low, high = wilson(after.sum(), len(after))
    drop_low, drop_high = _measure_drop(before, after)
    return replace(
        found,
        accuracy=float(after.mean()),
        low=low,
        high=high,
        source_accuracy=float(before.mean()),
        labelled=len(labels),
        drop_low=drop_low,
        drop_high=drop_high,
        recall_drops=_measure_recall_drops(truth, given, labels, task, class_names),
    )


def _measure_drop(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """The paired interval of how much fewer are right after than before."""
    return paired_interval(int((before & ~after).sum()), int((after & ~before).sum()), len(before))


def _measure_recall_drops(
    truth: np.ndarray,
    given: np.ndarray,
    labels: np.ndarray,
    task: Task,
    class_names: Sequence[str],
) -> dict[str, tuple[float, float, float]]:
    drops = {}
    for index, name in enumerate(class_names):
        before, after = (task.recognized(one, labels, index) for one in (truth, given))
        if before is not None and after is not None and (before != after).any():
            drop = float(before.mean() - after.mean())
            drops[name] = (drop, *_measure_drop(before, after))
    return drops


@dataclass(frozen=True)
class Decision:
    """What a verdict says of a file.

    Attributes:
        passed: whether nothing speaks against the file.
        proven: whether the samples were enough to say so.
        why: the figures that decided, in words.
    """

    passed: bool
    proven: bool
    why: str


def judge(verdict: Verdict, max_drop: float) -> Decision:
    """Decide whether a file keeps what its model answers.

    Four things must hold, so that neither luck on few labels nor a model whose answers are worth
    nothing lets a file pass:

    - the paired interval of the accuracy's drop, where labels are known, does not lie above
      `max_drop` as a whole;
    - no more answers changed than twice `max_drop` of the samples, or one: accuracy cannot fall by
      more than the share of answers that changed;
    - the drop to expect from the changed answers, by Keras' own probabilities, is within
      `max_drop`: a tie that fell the other way weighs little, a sure answer that was lost all;
    - the outputs' mean Kullback-Leibler divergence from Keras', in nats, is within `max_drop` (or
      `LEAST_DIVERGENCE`, below which rounding lies): a log loss that is higher by so much at most.

    The samples are too few to decide where the interval of the expected drop reaches beyond
    twice `max_drop`: a file that loses so much could have looked as good. The cautious answer is
    then that the file is not proven: it is written with a warning, where nothing better is
    found, and is never offered as a bundle's default.

    Args:
        verdict: of the file, on samples that nothing about the file was decided by.
        max_drop: accuracy that may be lost, 0..1.
    """
    most = max(1, math.floor(2 * max_drop * verdict.count + 1e-9)) if max_drop else 0
    reasons = [
        f"{_points(verdict.drop)} points of accuracy lost on {verdict.labelled} labelled samples "
        f"(95 % interval {_points(verdict.drop_low)} to {_points(verdict.drop_high)})"
    ] if _is_lost(verdict, max_drop) else []  # fmt: skip
    if verdict.changed > most:
        reasons.append(f"{most} may change")
    if not verdict.expected_drop <= max_drop + _ROUNDING:
        reasons.append(f"an expected loss of {_points(max_drop)} points is allowed")
    if not verdict.divergence <= max(max_drop, LEAST_DIVERGENCE):
        reasons.append(f"a divergence of {max(max_drop, LEAST_DIVERGENCE):g} is allowed")
    figures = (
        f"{verdict.changed} of {verdict.count} answers changed, expected loss "
        f"{_points(verdict.expected_drop)} points, divergence {verdict.divergence:.2g}"
    )
    proven = verdict.expected_high <= 2 * max_drop + _ROUNDING
    return Decision(not reasons, not reasons and proven, "; ".join([figures, *reasons]))


def judge_trained(verdict: Verdict, max_drop: float) -> Decision:
    """Decide whether a model that was trained on is as good as the one that it was made from.

    Its answers are its own, so that accuracy alone counts where labels are known, and the share of
    answers that changed where none are. Not proven is what could lose twice `max_drop`.

    Args:
        verdict: of the file, on samples that it was not trained with.
        max_drop: accuracy that may be lost, 0..1.
    """
    high = verdict.drop_high
    if high is None:
        high = wilson(verdict.changed, verdict.count)[1]
    passed = verdict.drop <= max_drop + _ROUNDING
    images = " and ".join(f"{count} {name}" for name, count in verdict.images.items())
    why = f"{_points(verdict.drop)} points lost, at most {_points(high)}, on {images}"
    return Decision(passed, passed and high <= 2 * max_drop + _ROUNDING, why)


def can_decide(count: int, max_drop: float) -> bool:
    """Tell whether so many samples could prove a file that loses nothing at all."""
    return wilson(0, count)[1] <= 2 * max_drop + _ROUNDING


def is_refuted(verdict: Verdict, max_drop: float) -> bool:
    """Tell whether other samples show that a file which passed loses more than was allowed.

    Unlike :func:`judge` it takes intervals alone: a share of these few samples proves nothing.
    """
    changed, _ = wilson(verdict.changed, verdict.count)
    expected, _ = wilson(verdict.expected_drop * verdict.count, verdict.count)
    return _is_lost(verdict, max_drop) or changed > 2 * max_drop or expected > max_drop


def _is_lost(verdict: Verdict, max_drop: float) -> bool:
    return verdict.drop_low is not None and verdict.drop_low > max_drop


def _points(share: float | None) -> str:
    return f"{100 * (share or 0.0):.2f}"


def _require_shapes(truth: np.ndarray, given: np.ndarray) -> None:
    if truth.shape != given.shape or truth.ndim != 2 or not len(truth):
        raise ExportError(
            f"Keras answers with shape {truth.shape}, the file with {given.shape}; expected the "
            "same (samples, outputs), and at least one sample."
        )


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
