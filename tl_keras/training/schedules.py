"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math

__all__ = ["warmup_cosine"]


def warmup_cosine(step: int, steps: int, peak: float, warmup: float = 0.1) -> float:
    """Return the rate at a step: a linear climb to the peak, then half a cosine to zero.

    Source: Loshchilov and Hutter, arXiv 1608.03983 (without restarts), with the linear
    warm-up of Goyal et al., arXiv 1706.02677.

    Args:
        step: Steps taken so far, 0 or more.
        steps: Steps in all, at least 1.
        peak: Highest rate.
        warmup: Share of the steps in which the rate climbs, in [0, 1).
    """
    climb = int(round(warmup * steps))
    if step < climb:
        return peak * (step + 1) / climb
    progress = min(1.0, (step - climb) / max(1, steps - climb))
    return 0.5 * peak * (1.0 + math.cos(math.pi * progress))
