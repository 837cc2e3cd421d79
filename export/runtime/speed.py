"""Quick timing, interleaved: which of several files is faster here, whatever else runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from export.quantize.recipes import FLOAT
from export.runtime.bench import bench
from export.variant import Variant
from tl_keras.utils.progress import Progress, silent

__all__ = ["RUNTIMES", "SLOWER", "default_of", "timed"]

RUNTIMES = {"tflite": "LiteRT", "onnx": "ONNX Runtime"}
SLOWER = 1.05
"""A file is called slower than the float one beyond this ratio: less is noise."""
_ROUNDS = 30


def timed(
    variants: Sequence[Variant],
    fresh: bool = True,
    progress: Progress = silent,
) -> list[Variant]:
    """Time the variants in turns, and note those slower than their float one.

    Args:
        variants: each with its file; the float one of each format among them.
        fresh: whether to measure first answers and memory too, in processes of their own.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        The same variants with their latencies, and a note where one is slower with all cores.
    """
    found = bench(
        {one.name: one.path for one in variants}, rounds=_ROUNDS, fresh=fresh, progress=progress
    )
    made = []
    for one in variants:
        plain = found.get(f"{one.format}-{FLOAT}", found[one.name])
        ratio = found[one.name][-1].median_ms / plain[-1].median_ms
        notes = one.notes + ((_slower(one, ratio),) if ratio > SLOWER else ())
        made.append(replace(one, latencies=found[one.name], notes=notes))
    return made


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
    limit = next((one.latencies[-1].median_ms for one in same if one.recipe == FLOAT), np.inf)
    allowed = [
        one
        for one in same
        if one.recipe == FLOAT
        or one.latencies[-1].median_ms <= limit
        and not any("slower" in note for note in one.notes)
    ]
    return min(allowed or same, key=lambda one: one.latencies[-1].median_ms).name
