"""Choose samples to calibrate with, collect what tensors hold for them, and clip the ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.errors import ExportError
from tl_keras.modalities.base import InputSpec

__all__ = [
    "CLIPS", "Observed", "Ranges", "choose_stratified", "clip_ranges", "collect",
    "read_calibration_inputs",
]  # fmt: skip

CLIPS = ("min-max", "percentile", "mse")
Ranges = Mapping[str, tuple[float, float]]
_KEPT = 2048
_PERCENT = 0.01
_SHRINKS = np.linspace(1.0, 0.3, 22)


def choose_stratified(samples: Samples, count: int, seed: int = 0) -> np.ndarray:
    """Choose samples so that each class has its share.

    The samples of each stratum are shuffled, and strata take turns in proportion to their size:
    every prefix of what is returned is stratified too, so that a larger sample of the same seed
    contains the smaller one. What the strata are is for the task to say.

    Args:
        samples: what to choose from.
        count: how many; all, if there are fewer.
        seed: another seed, another choice.

    Returns:
        int64 (min(count, samples),), indices without repetition.

    Raises:
        ExportError: if there are no samples, or less than one is asked for.
    """
    if not len(samples) or count < 1:
        raise ExportError(
            f"Got {len(samples)} training samples and {count} to calibrate with; expected at "
            "least 1 of each."
        )
    generator, strata = np.random.default_rng(seed), samples.kind.strata(samples.labels)
    order: np.ndarray = generator.permutation(len(samples))
    turns: np.ndarray = np.empty(len(samples))
    for name in np.unique(strata):
        members = order[strata[order] == name]
        turns[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Ties between strata of one size are broken by the shuffle.
    return order[np.argsort(turns[order], kind="stable")][:count]


def read_calibration_inputs(
    samples: Samples, specs: Mapping[str, InputSpec], count: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Read a stratified, seeded choice of plain samples.

    Args:
        samples: of the training split.
        specs: of the model's inputs.
        count: how many; all, if there are fewer.
        seed: another seed, another choice.

    Returns:
        By the input's name, (n, ...).

    Raises:
        ExportError: if there is no sample.
        DataError: if a sample cannot be read.
    """
    chosen = samples.take(choose_stratified(samples, count, seed))
    return chosen.modality.reader(chosen, dict(specs)).read(range(len(chosen)), 0)


@dataclass(eq=False)
class Observed:
    """What was seen of one tensor.

    Attributes:
        low: the least value.
        high: the largest.
        values: a part of all values, drawn evenly, one array for each sample or batch.
    """

    low: float
    high: float
    values: list[np.ndarray]


def collect(outputs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Observed]:
    """Collect what tensors hold, sample after sample.

    Args:
        outputs: for each sample or batch, the values of every tensor by its name.

    Raises:
        ExportError: if a tensor holds NaN or infinity.
    """
    observed: dict[str, Observed] = {}
    for tensors in outputs:
        for name, tensor in tensors.items():
            low, high = float(tensor.min()), float(tensor.max())
            if not np.isfinite((low, high)).all():
                raise ExportError(
                    f"The model computes {low} to {high} in {name}; expected finite numbers: it "
                    "cannot be quantized."
                )
            kept = _draw(tensor.reshape(-1))
            one = observed.setdefault(name, Observed(low, high, []))
            one.low, one.high = min(one.low, low), max(one.high, high)
            one.values.append(kept)
    return observed


def _draw(values: np.ndarray) -> np.ndarray:
    """A part of a tensor; drawn, because an even stride would meet the same few channels."""
    if len(values) <= _KEPT:
        return values.copy()
    return values[np.random.default_rng(0).integers(len(values), size=_KEPT)]


def clip_ranges(
    observed: Mapping[str, Observed], clip: str = "min-max", bits: int = 8
) -> dict[str, tuple[float, float]]:
    """Choose a range for each tensor.

    Args:
        observed: by a tensor's name, what it held.
        clip: "min-max" keeps every value; "percentile" leaves out 0.01 % at each end; "mse"
            takes the shrunken range whose rounding has the least mean squared error
            (Banner et al. 2019, arXiv 1810.05723, by search instead of a formula).
        bits: of the whole numbers that the values are rounded to.

    Returns:
        (low, high) for each tensor, with 0 between them: quantizers need an exact zero.

    Raises:
        ExportError: if the way is unknown.
    """
    if clip not in CLIPS:
        raise ExportError(f"Unknown clipping {clip!r}; expected one of: {', '.join(CLIPS)}.")
    if clip == "mse":
        return {name: _minimize_error(one, bits) for name, one in observed.items()}
    choose = _keep_all if clip == "min-max" else _cut_tails
    return {name: _include_zero(*choose(one)) for name, one in observed.items()}


def _keep_all(observed: Observed) -> tuple[float, float]:
    return observed.low, observed.high


def _cut_tails(observed: Observed) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate(observed.values), [_PERCENT, 100 - _PERCENT])
    return float(low), float(high)


def _minimize_error(observed: Observed, bits: int) -> tuple[float, float]:
    values = np.concatenate(observed.values)
    low, high = _include_zero(observed.low, observed.high)
    ends = [(low * float(shrink), high * float(shrink)) for shrink in _SHRINKS]
    return min(ends, key=lambda pair: _measure_error(values, pair, bits))


def _measure_error(values: np.ndarray, ends: tuple[float, float], bits: int) -> float:
    low, high = ends
    # 16 bits are symmetric around zero, 8 bits have a zero point.
    span = 2 * max(-low, high) if bits == 16 else high - low
    scale = span / (2**bits - 1) or 1.0
    rounded = np.rint(np.clip(values, low, high) / scale) * scale
    return float(np.square(rounded - values).mean())


def _include_zero(low: float, high: float) -> tuple[float, float]:
    return min(low, 0.0), max(high, 0.0)
