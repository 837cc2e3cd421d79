"""Describe the files that an export makes of a model, each with its proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Attempt", "Latency", "Variant", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """How a file answers, beside the Keras model it was made from, on validation samples.

    Attributes:
        count: How many samples were compared.
        accuracy: Share of right labels, 0..1; None for a task without labels.
        low: Lower end of the accuracy's 95 % interval.
        high: Upper end.
        source_accuracy: The Keras model's on the same samples.
        agreement: Share of samples whose answer means the same as the Keras model's, 0..1.
        max_difference: Largest absolute difference of two outputs.
        mean_difference: Mean absolute difference.
        per_class_drop: By class name, how much its recall fell; below 0 where it rose.
    """

    count: int
    accuracy: float | None
    low: float | None
    high: float | None
    source_accuracy: float | None
    agreement: float
    max_difference: float
    mean_difference: float
    per_class_drop: Mapping[str, float] = field(default_factory=dict)

    @property
    def drop(self) -> float:
        """Accuracy lost, 0..1 (below 0: won); without labels, the share that disagrees."""
        if self.accuracy is None or self.source_accuracy is None:
            return 1.0 - self.agreement
        return self.source_accuracy - self.accuracy


@dataclass(frozen=True)
class Attempt:
    """One strategy of the search for a quantized file.

    Attributes:
        strategy: Its name, such as "more calibration".
        passed: Whether the drop was within what is allowed.
        drop: What it was.
        agreement: Share of equal labels.
        seconds: What it cost.
        note: What it did in particular, such as the layers left in float.
    """

    strategy: str
    passed: bool
    drop: float
    agreement: float
    seconds: float
    note: str = ""


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
    """

    runtime: str
    threads: int
    median_ms: float
    p90_ms: float
    first_ms: float | None = None
    peak_mb: float | None = None


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
        attempts: What the search tried; the last one passed.
        notes: Warnings for its user, such as "slower than fp32 here".
        latencies: Filled in by the bench.
        facts: More for the record: the tool that made it, calibration samples, versions.
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

    @property
    def name(self) -> str:
        """Format and recipe, such as "tflite-int8"."""
        return f"{self.format}-{self.recipe}"
