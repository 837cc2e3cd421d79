"""Which base to take: candidates in the order of what they promise, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tl_keras.errors import DataError

__all__ = [
    "Appraisal", "Costs", "advice", "as_good", "fine_tune_seconds", "in_order", "recommendation",
]  # fmt: skip

# Measured to agree best with the true order, see benchmarks/README.md.
JUDGE = "ridge_log_likelihood"


@dataclass(frozen=True)
class Costs:
    """What a candidate costs on this machine.

    Attributes:
        fine_tuning: Seconds that the plan lp-ft would take on all training images, estimated
            from a few measured steps.
        size: Bytes of the candidate as an ONNX file, up to the features.
        latency: Milliseconds an image in ONNX Runtime, one at a time; a median.
        appraisal: Seconds that scores and measurements took.
    """

    fine_tuning: float
    size: int
    latency: float
    appraisal: float


@dataclass(frozen=True)
class Appraisal:
    """What was found about one candidate.

    Attributes:
        name: As the user wrote it.
        scores: By name, higher is better: "logme", "h_score", "knn", "ridge" (accuracies),
            "ridge_log_likelihood"; where the base has a classifier "leep" and "matching", the
            accuracy of its own classes with no training.
        intervals: 95 % intervals (low, high) of "knn", "ridge" and "matching".
        costs: What it costs.
        dimensions: Features an image.
        facts: What else is known, as text.
        matches: For each class the classes of the base's own classifier that stand for it, the
            most answered first: (index, mean probability).
    """

    name: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    costs: Costs
    dimensions: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    matches: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def in_order(appraisals: Sequence[Appraisal], by: str = JUDGE) -> list[Appraisal]:
    """Return the candidates, the most promising first; equal ones by their latency.

    Raises:
        DataError: There is no such score.
    """
    for one in appraisals:
        if by not in one.scores:
            names = ", ".join(one.scores)
            raise DataError(f"{one.name} has no score '{by}'; expected one of {names}")
    return sorted(appraisals, key=lambda one: (-one.scores[by], one.costs.latency))


def as_good(appraisals: Sequence[Appraisal]) -> list[Appraisal]:
    """Return the candidates that these images do not tell from the first, in their order.

    Their ridge accuracy lies within the 95 % interval of the most promising one's.
    """
    best = in_order(appraisals)[0]
    low = best.intervals["ridge"][0]
    return [one for one in in_order(appraisals) if one is best or one.scores["ridge"] >= low]


def advice(appraisals: Sequence[Appraisal]) -> dict[str, Any]:
    """Return what was found, as JSON takes it: the candidates in order, and what to take."""
    return {
        "judged_by": JUDGE,
        "recommendation": recommendation(appraisals),
        "as_good": [one.name for one in as_good(appraisals)],
        "candidates": [asdict(one) for one in in_order(appraisals)],
    }


def recommendation(appraisals: Sequence[Appraisal]) -> str:
    """Return what to take, in a sentence or two of plain text."""
    ordered, equals = in_order(appraisals), as_good(appraisals)
    best, fastest = ordered[0], min(equals, key=lambda one: one.costs.latency)
    said = f"{best.name} promises most: ridge accuracy {_percent(best.scores['ridge'])} %."
    if fastest is best or fastest.costs.latency > 0.9 * best.costs.latency:
        return said
    times = best.costs.latency / fastest.costs.latency
    return (
        f"{said} {fastest.name} is not clearly worse ({_percent(fastest.scores['ridge'])} %) and "
        f"{times:.1f} times as fast."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


@dataclass(frozen=True)
class Rates:
    """How fast a candidate runs here, in images a second.

    Attributes:
        forward: Frozen, in ONNX Runtime.
        training: All of it learning.
    """

    forward: float
    training: float


def fine_tune_seconds(pictures: int, views: int, epochs: int, rates: Rates) -> float:
    """Return what the plan lp-ft takes: each view once through the frozen base, then all of it.

    What the head takes on kept features is left out: it is small.

    Args:
        pictures: Training images.
        views: Views of each that the head sees.
        epochs: Epochs of the stage that trains all.
        rates: Measured.
    """
    return pictures * views / rates.forward + pictures * epochs / rates.training
