"""Does pretraining help here? Two ways compared on the same pictures, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tl_keras.utils.stats import paired_difference

__all__ = ["MARGIN", "Verdict", "transfer_verdict"]

MARGIN = 0.01
"""A difference in accuracy below this share counts as none, however sure it is."""


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
