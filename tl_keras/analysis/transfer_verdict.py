"""Does pretraining help here? Two ways compared on the same pictures, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_keras.errors import DataError

__all__ = ["MARGIN", "Verdict", "paired_difference", "transfer_verdict"]

MARGIN = 0.01
"""A difference in accuracy below this share counts as none, however sure it is."""
_RESAMPLES = 4000


@dataclass(frozen=True)
class Verdict:
    """Pretrained against scratch.

    Attributes:
        word: "helps", "no difference" or "hurts".
        difference: Accuracy of the pretrained minus that of scratch, -1..1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        pretrained: Mean accuracy over the seeds, 0..1.
        scratch: The same, trained from scratch.
        seeds: Runs of each way.
        pictures: Pictures both were judged on.
    """

    word: str
    difference: float
    low: float
    high: float
    pretrained: float
    scratch: float
    seeds: int
    pictures: int

    @property
    def sentence(self) -> str:
        """The verdict for a reader, with what would make it surer."""
        words = {
            "helps": "Pretraining helps",
            "hurts": "Pretraining hurts: train from scratch, or take another base",
            "no difference": "No difference that is large enough and beyond chance",
        }
        wide = self.word == "no difference" and self.high - self.low > 0.06
        more = "; more seeds or more pictures would say more" if wide else ""
        return (
            f"{words[self.word]}: {100 * self.difference:+.1f} points of accuracy, 95 % interval "
            f"{100 * self.low:+.1f} to {100 * self.high:+.1f}{more}."
        )


def paired_difference(
    after: np.ndarray, before: np.ndarray, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the difference of two accuracies on the same pictures, with a 95 % interval.

    Bootstrap (Efron 1979) over pictures, the same ones for both ways, and over seeds, those
    of each way on their own: runs with another seed would have come out otherwise too. Where
    the resampled spread is less than one picture the interval is one picture wide each way.

    Args:
        after: bool (seeds, pictures), right answers of one way.
        before: bool (other seeds, pictures), those of the other on the same pictures.
        seed: Makes the resamples repeatable.

    Returns:
        Difference (after minus before), lower and upper end.

    Raises:
        DataError: The shapes do not fit, or there is nothing to compare.
    """
    after, before = np.atleast_2d(after).astype(float), np.atleast_2d(before).astype(float)
    if after.shape[1] != before.shape[1] or not after.size or not before.size:
        raise DataError(
            f"right answers of shapes {after.shape} and {before.shape}; expected (seeds, pictures) "
            "over the same pictures, at least one"
        )
    generator, pictures = np.random.default_rng(seed), after.shape[1]
    # Pictures that all runs answered alike are drawn together: few kinds, however many pictures.
    kinds, many = np.unique(np.concatenate([after, before]), axis=1, return_counts=True)
    counts = generator.multinomial(pictures, many / pictures, _RESAMPLES)
    sides = kinds[: len(after)], kinds[len(after) :]
    drawn = np.subtract(*(_resampled(side, counts, generator) for side in sides))
    value = float(after.mean() - before.mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    least = 1 / pictures
    return value, float(min(low, value - least)), float(max(high, value + least))


def _resampled(right: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Accuracy of every resample: kinds of pictures by their counts, seeds drawn anew."""
    of_seeds = counts @ right.T / counts[0].sum()
    chosen = generator.integers(0, len(right), of_seeds.shape)
    drawn, mean = np.take_along_axis(of_seeds, chosen, axis=1).mean(axis=1), of_seeds.mean(axis=1)
    # Few seeds drawn anew spread less than seeds do: their variance is (n - 1) / n of it.
    return mean + (drawn - mean) * np.sqrt(len(right) / max(1, len(right) - 1))


def transfer_verdict(
    pretrained: np.ndarray, scratch: np.ndarray, *, margin: float = MARGIN, seed: int = 0
) -> Verdict:
    """Say whether pretraining helps, hurts, or makes no difference.

    It helps where the interval of the difference lies above 0 and the difference is at least
    `margin`, hurts where the opposite holds, and makes no difference otherwise.

    Args:
        pretrained: bool (seeds, pictures), right answers of the pretrained runs.
        scratch: bool (seeds, pictures), those from scratch with the same budget.
        margin: Least difference that matters, a share of the pictures.
        seed: Makes the interval repeatable.

    Raises:
        DataError: The shapes do not fit, or there is nothing to compare.
    """
    value, low, high = paired_difference(pretrained, scratch, seed=seed)
    word = "no difference"
    if low > 0 and value >= margin:
        word = "helps"
    elif high < 0 and value <= -margin:
        word = "hurts"
    shape = np.atleast_2d(pretrained).shape
    return Verdict(
        word, value, low, high, float(np.mean(pretrained)), float(np.mean(scratch)), *shape
    )
