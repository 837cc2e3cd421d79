"""Which values the tensors of a model take, and where to clip them before they are rounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tl_keras.errors import ExportError

__all__ = ["CLIPS", "Ranges", "Seen", "clip_ranges", "observe"]

CLIPS = ("min-max", "percentile", "mse")
Ranges = Mapping[str, tuple[float, float]]
_KEPT = 2048
_PERCENT = 0.01
_SHRINKS = np.linspace(1.0, 0.3, 22)
_LEVELS = 255


@dataclass(eq=False)
class Seen:
    """What was seen of one tensor.

    Attributes:
        low: the least value.
        high: the largest.
        values: a part of all values, drawn evenly, one array for each picture or batch.
    """

    low: float
    high: float
    values: list[np.ndarray]


def observe(outputs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Seen]:
    """Collect what tensors hold, picture after picture.

    Args:
        outputs: for each picture or batch, the values of every tensor by its name.

    Raises:
        ExportError: if a tensor holds NaN or infinity.
    """
    seen: dict[str, Seen] = {}
    for tensors in outputs:
        for name, tensor in tensors.items():
            low, high = float(tensor.min()), float(tensor.max())
            if not np.isfinite((low, high)).all():
                raise ExportError(
                    f"The model computes {low} to {high} in {name}; expected finite numbers: it "
                    "cannot be quantized."
                )
            kept = _some(tensor.reshape(-1))
            one = seen.setdefault(name, Seen(low, high, []))
            one.low, one.high = min(one.low, low), max(one.high, high)
            one.values.append(kept)
    return seen


def _some(values: np.ndarray) -> np.ndarray:
    """A part of a tensor; drawn, because an even stride would meet the same few channels."""
    if len(values) <= _KEPT:
        return values.copy()
    return values[np.random.default_rng(0).integers(len(values), size=_KEPT)]


def clip_ranges(seen: Mapping[str, Seen], clip: str = "min-max") -> dict[str, tuple[float, float]]:
    """Choose a range for each tensor.

    Args:
        seen: by a tensor's name, what it held.
        clip: "min-max" keeps every value; "percentile" leaves out 0.01 % at each end; "mse"
            takes the shrunken range whose 8-bit rounding has the least mean squared error
            (Banner et al. 2019, arXiv 1810.05723, by search instead of a formula).

    Returns:
        (low, high) for each tensor, with 0 between them: quantizers need an exact zero.

    Raises:
        ExportError: if the way is unknown.
    """
    if clip not in CLIPS:
        raise ExportError(f"Unknown clipping {clip!r}; expected one of: {', '.join(CLIPS)}.")
    chosen = {"min-max": _whole, "percentile": _percentile, "mse": _least_error}[clip]
    return {name: _with_zero(*chosen(one)) for name, one in seen.items()}


def _whole(seen: Seen) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Seen) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate(seen.values), [_PERCENT, 100 - _PERCENT])
    return float(low), float(high)


def _least_error(seen: Seen) -> tuple[float, float]:
    values, (low, high) = np.concatenate(seen.values), _with_zero(seen.low, seen.high)
    ends = [(low * float(shrink), high * float(shrink)) for shrink in _SHRINKS]
    return min(ends, key=lambda pair: _rounding_error(values, *pair))


def _rounding_error(values: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / _LEVELS or 1.0
    rounded = np.rint(np.clip(values, low, high) / scale) * scale
    return float(np.square(rounded - values).mean())


def _with_zero(low: float, high: float) -> tuple[float, float]:
    return min(low, 0.0), max(high, 0.0)
