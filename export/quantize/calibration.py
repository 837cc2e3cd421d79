"""Pictures that show a quantizer which values to expect: a small, fair sample of training data."""

from __future__ import annotations

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.errors import ExportError
from tl_keras.modalities.image.reader import PictureReader

__all__ = ["calibration_pictures", "stratified"]

_STRATA = 10


def stratified(samples: Samples, count: int, seed: int = 0) -> np.ndarray:
    """Choose samples so that each class has its share.

    The samples of each stratum are shuffled, and strata take turns in proportion to their size:
    every prefix of what is returned is stratified too, so that a larger sample of the same seed
    contains the smaller one. Strata are the classes; the tag of fewest pictures that a picture
    has; tenths of the first value.

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
            f"Got {len(samples)} training pictures and {count} to calibrate with; expected at "
            "least 1 of each."
        )
    generator, strata = np.random.default_rng(seed), _strata(samples)
    order: np.ndarray = generator.permutation(len(samples))
    turns: np.ndarray = np.empty(len(samples))
    for name in np.unique(strata):
        members = order[strata[order] == name]
        turns[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Ties between strata of one size are broken by the shuffle.
    return order[np.argsort(turns[order], kind="stable")][:count]


def _strata(samples: Samples) -> np.ndarray:
    labels = samples.labels
    if samples.task == "classes":
        return labels
    if samples.task == "values":
        edges = np.quantile(labels[:, 0], np.linspace(0, 1, _STRATA + 1)[1:-1])
        tenths: np.ndarray = np.digitize(labels[:, 0], edges)
        return tenths
    rarity = np.where(labels > 0, labels.sum(axis=0), np.inf)
    return np.where(labels.any(axis=1), rarity.argmin(axis=1), -1)


def calibration_pictures(samples: Samples, size: int, count: int, seed: int = 0) -> np.ndarray:
    """Read a stratified, seeded sample of plain pictures.

    Args:
        samples: of the training split.
        size: side in pixels.
        count: how many; all, if there are fewer.
        seed: another seed, another choice.

    Returns:
        uint8 (n, size, size, 3), RGB 0..255.

    Raises:
        ExportError: if there is no picture.
        DataError: if a picture cannot be read.
    """
    chosen = samples.take(stratified(samples, count, seed))
    return PictureReader(chosen, size).read(range(len(chosen)), 0)
