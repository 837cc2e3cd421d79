"""Quick timing, interleaved: which of several files is faster here, whatever else runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from export.recipes import FLOAT
from export.runtimes import default_threads, load
from export.variant import Latency, Variant

__all__ = ["RUNTIMES", "SLOWER", "default_of", "timed"]

RUNTIMES = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}
SLOWER = 1.05
"""A file is called slower than the float one beyond this ratio: less is noise."""
_WARMUPS, _ROUNDS, _LEAST, _SECONDS = 2, 30, 5, 8.0


def timed(
    variants: Sequence[Variant], pictures: np.ndarray, seconds: float = _SECONDS
) -> list[Variant]:
    """Time the variants in turns, one picture each, and note those slower than their float one.

    Args:
        variants: each with its file; the float one of each format among them.
        pictures: (n, height, width, 3), RGB 0..255.
        seconds: about how long to go on after the first five rounds.

    Returns:
        The same variants, each with one `Latency` more, and a note where it is slower.
    """
    threads = default_threads()
    took = _rounds([load(one.path, threads) for one in variants], pictures, seconds)
    floats = {one.format: row for one, row in zip(variants, took, strict=True)
              if one.recipe == FLOAT}  # fmt: skip
    made = []
    for one, row in zip(variants, took, strict=True):
        median, p90 = (float(value) for value in np.percentile(row, [50, 90]))
        latency = Latency(RUNTIMES[one.format], threads, median, p90)
        # Ratios of neighbours in time: what else ran slowed both.
        ratio = float(np.median(row / floats[one.format])) if one.format in floats else 1.0
        notes = one.notes + ((_slower(one, ratio),) if ratio > SLOWER else ())
        made.append(replace(one, latencies=(*one.latencies, latency), notes=notes))
    return made


def _rounds(runtimes: Sequence, pictures: np.ndarray, seconds: float) -> np.ndarray:
    """Milliseconds of each runtime in each round, (runtimes, rounds)."""
    rows, begun = [], time.perf_counter()
    for number in range(_WARMUPS + _ROUNDS):
        one, row = pictures[number % len(pictures)][np.newaxis], []
        for runtime in runtimes:
            start = time.perf_counter()
            runtime.predict(one)
            row.append(1000 * (time.perf_counter() - start))
        rows.append(row)
        if number >= _WARMUPS + _LEAST - 1 and time.perf_counter() - begun > seconds:
            break
    return np.array(rows[_WARMUPS:]).T


def _slower(variant: Variant, ratio: float) -> str:
    return (
        f"{ratio:.1f} times slower than fp32 in {RUNTIMES[variant.format]} here: "
        "measure it on your device before you choose it for speed."
    )


def default_of(variants: Sequence[Variant]) -> str:
    """Choose what a bundle offers first.

    Of the first variant's format the fastest that was timed; one that is slower than the float
    file in its own runtime is never chosen.

    Args:
        variants: timed, the float one of each format among them.
    """
    same = [one for one in variants if one.format == variants[0].format]
    limit = next((one.latencies[0].median_ms for one in same if one.recipe == FLOAT), np.inf)
    allowed = [
        one
        for one in same
        if one.recipe == FLOAT
        or one.latencies[0].median_ms <= limit
        and not any("slower" in note for note in one.notes)
    ]
    return min(allowed or same, key=lambda one: one.latencies[0].median_ms).name
