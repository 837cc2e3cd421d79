"""Measure what a platform's own way of resizing costs: the share of answers that stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.runtime.runtimes import Runtime
from export.source import Source
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.stats import wilson

__all__ = ["MOST", "measure_platforms"]

MOST = 64
"""Files that are read; each is decoded once."""


def measure_platforms(
    source: Source, runtime: Runtime, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Compare answers for files that are resized as platforms do with those resized right.

    Args:
        source: at most `MOST` of its files are taken, spread evenly.
        runtime: what answers.
        progress: told after each file.

    Returns:
        For each way: `way`, `used_by`, `remedy`, `same` (share of equal answers), `low` and `high`
        (95 %), `count`, `difference` (of the pixels, mean, of 255). Empty where nothing is known of
        the modality, or the samples are no files.

    Raises:
        DataError: if a file cannot be read any more.
    """
    ways = source.modality.other_ways()
    if not source.files or not ways:
        return []
    places = np.linspace(0, len(source) - 1, min(MOST, len(source))).round().astype(int)
    ((name, right),) = source.inputs.items()
    right = right[places]
    side, seen = right.shape[1], [np.empty_like(right, np.uint8) for _ in ways]
    for row, place in enumerate(places):
        image = source.modality.open(source.files[place])
        for way, batch in zip(ways, seen, strict=True):
            batch[row] = way.resize(image, side)
        progress("platforms' own resizing", row + 1, len(places))
    truth = runtime.predict({name: right})
    found = []
    for way, batch in zip(ways, seen, strict=True):
        same = source.kind.agree(truth, runtime.predict({name: batch}))
        low, high = wilson(same.sum(), len(same))
        apart = np.abs(batch.astype(np.float32) - right.astype(np.float32)).mean()
        found.append({
            "way": way.name, "used_by": way.used_by, "remedy": way.remedy,
            "same": float(same.mean()), "low": low, "high": high, "count": len(same),
            "difference": round(float(apart), 2),
        })  # fmt: skip
    return found
