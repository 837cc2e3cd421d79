"""Describe the files that an export makes of a model, each with its proof."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.quantize.recipes import FLOAT

__all__ = ["Attempt", "Latency", "Variant", "Verdict", "choose_default", "is_slower"]

_SLOWER = 1.05
"""A file is called slower than another one beyond this ratio: less is noise."""
_OF_MEDIAN = 1.2533 / 1.2816
"""A median's standard error is 1.2533 of a mean's; 90 % lie below 1.2816 standard deviations."""


@dataclass(frozen=True)
class Verdict:
    """How a file answers, beside the Keras model it was made from, on the same samples.

    Intervals hold in 95 of 100 samples of the same kind, see `tl_keras.utils.stats`.

    Attributes:
        count: How many samples were compared.
        accuracy: Share of right labels, 0..1; None for a task without, or where none is known.
        low: Lower end of the accuracy's 95 % interval.
        high: Upper end.
        source_accuracy: The Keras model's on the same samples.
        agreement: Share of samples whose answer means the same as the Keras model's, 0..1.
        max_difference: Largest absolute difference of two outputs.
        mean_difference: Mean absolute difference.
        recall_drops: By class name, how much of its recall was lost (below 0: won), and the ends of
            the paired interval of that; only classes whose samples' answers changed.
        labelled: Of how many samples the labels are known: those that accuracies are of.
        drop_low: Lower end of the paired interval of the accuracy's drop; None without labels.
        drop_high: Upper end.
        divergence: Mean Kullback-Leibler divergence of the outputs from Keras', in nats.
        expected_drop: Mean of `Task.expected_losses`, 0..1: the drop of accuracy to expect if
            Keras' own probabilities are right.
        expected_high: Upper end of its interval.
        images: Which samples, in words, with how many there are: {"test images": 153}.
    """

    count: int
    accuracy: float | None
    low: float | None
    high: float | None
    source_accuracy: float | None
    agreement: float
    max_difference: float
    mean_difference: float
    recall_drops: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    labelled: int = 0
    drop_low: float | None = None
    drop_high: float | None = None
    divergence: float = 0.0
    expected_drop: float = 0.0
    expected_high: float = 1.0
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """How many samples' answers mean something else than the Keras model's."""
        return self.count - round(self.agreement * self.count)

    @property
    def drop(self) -> float:
        """Accuracy lost, 0..1 (below 0: won); without labels, the share that disagrees."""
        if self.accuracy is None or self.source_accuracy is None:
            return 1.0 - self.agreement
        return self.source_accuracy - self.accuracy


@dataclass(frozen=True)
class Attempt:
    """One strategy of the search for a quantized file, on the images that the search chooses by.

    Attributes:
        strategy: Its name, such as "more calibration".
        passed: Whether nothing spoke against it, and enough samples were there to say so.
        drop: `Verdict.drop`.
        agreement: Share of equal labels.
        seconds: What it cost.
        note: What it did in particular, such as the layers left in float.
        divergence: `Verdict.divergence`.
        why: What spoke for or against it, in words.
    """

    strategy: str
    passed: bool
    drop: float
    agreement: float
    seconds: float
    note: str = ""
    divergence: float = 0.0
    why: str = ""


@dataclass(frozen=True)
class Latency:
    """How fast a file answers for one sample.

    Attributes:
        runtime: "LiteRT", "ONNX Runtime" or "Keras".
        threads: Cores used.
        median_ms: Median after warm-up, in milliseconds.
        p90_ms: 90th percentile.
        first_ms: Loading and the first answer, in a process of its own.
        peak_mb: Peak resident memory of that process, in MB; None where it cannot be read.
        rounds: Answers that were timed.
    """

    runtime: str
    threads: int
    median_ms: float
    p90_ms: float
    first_ms: float | None = None
    peak_mb: float | None = None
    rounds: int = 1

    @property
    def noise_ms(self) -> float:
        """Standard error of the median, from the spread up to the 90th percentile."""
        return _OF_MEDIAN * max(0.0, self.p90_ms - self.median_ms) / math.sqrt(self.rounds)


@dataclass(frozen=True)
class Variant:
    """One file of a bundle.

    Attributes:
        format: "tflite" or "onnx".
        recipe: "fp32" or a quantization recipe's name.
        path: Where the file lies.
        input_dtype: "float32" or "uint8"; RGB 0..255 either way.
        output_dtype: "float32" or "uint8".
        bytes: Its size.
        sha256: Of its contents, in hexadecimal.
        verdict: How it answers.
        attempts: What the search tried.
        notes: Warnings for its user, such as "slower than fp32 here".
        latencies: Filled in by the bench.
        facts: More for the record: the tool that made it, calibration samples, versions.
        proven: Whether the samples sufficed to say that it keeps what it must keep.
    """

    format: str
    recipe: str
    path: Path
    input_dtype: str
    output_dtype: str
    bytes: int
    sha256: str
    verdict: Verdict
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    proven: bool = True

    @property
    def name(self) -> str:
        """Format and recipe, such as "tflite-int8"."""
        return f"{self.format}-{self.recipe}"


def choose_default(variants: Sequence[Variant]) -> str:
    """Choose what a bundle offers first.

    Of the first variant's format the fastest that was timed; what is not slower by more than noise
    (see `is_slower`) counts as equally fast, and of those the smallest file is taken. Never chosen
    is what is slower than the float file in its own runtime, or what too few images speak for, see
    `export.agreement.judge`.

    Args:
        variants: timed; the float one of each format among them, unless there is only one.
    """
    same = [one for one in variants if one.format == variants[0].format]
    last = {one.name: one.latencies[-1] for one in same}
    plain = [one for one in same if one.recipe == FLOAT]
    proven = [one for one in same if one.proven or one in plain]
    allowed = [
        one for one in proven
        if not any(is_slower(last[one.name], last[other.name]) for other in plain)
    ]  # fmt: skip
    fastest = min(allowed or same, key=lambda one: last[one.name].median_ms)
    near = [one for one in allowed or same if not is_slower(last[one.name], last[fastest.name])]
    return min(near, key=lambda one: one.bytes).name


def is_slower(slow: Latency, fast: Latency) -> bool:
    """Tell whether a median lies above another by more than noise.

    Noise is 5 %, and two standard errors of the difference.
    """
    noise = 2 * math.hypot(slow.noise_ms, fast.noise_ms)
    return slow.median_ms - fast.median_ms > max((_SLOWER - 1) * fast.median_ms, noise)
