"""Configure what a student learns from its teacher, and how much of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tl_keras.errors import ExportError
from tl_keras.utils.suggest import did_you_mean

__all__ = ["LOSSES", "DistillationConfig"]

LOSSES = ("kd", "dist", "features")


@dataclass(frozen=True)
class DistillationConfig:
    """A weighted sum of losses.

    The defaults were chosen on validation images of two sets, see benchmarks/README.md.

    Attributes:
        loss: Names joined with "+": "kd" (KL divergence of softened probabilities), "dist"
            (their correlations over classes and over the batch), "features" (mean squared
            difference at named layers, the student's behind a 1x1 projection).
        temperature: Divides the logits in kd and dist, above 0.
        alpha: Weight of kd and dist, in [0, 1]; the labels' is 1 - alpha. Two of them share it.
        beta: Weight of the features, above 0; the labels keep theirs.
        layers: Pairs (teacher's layer, student's layer) for the features; empty is the last
            feature map of each.
        mixup: Parameter of the Beta distribution from which the shares of two samples are
            drawn; 0 mixes none, 1 draws every share as likely as another. Source: Zhang et al.,
            arXiv 1710.09412.

    Raises:
        ExportError: A value is out of its range, or a loss is unknown.
    """

    loss: str = "kd"
    temperature: float = 4.0
    alpha: float = 0.9
    beta: float = 1.0
    layers: tuple[tuple[str, str], ...] = ()
    mixup: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        object.__setattr__(self, "layers", tuple((str(a), str(b)) for a, b in self.layers))
        for part in self.parts:
            if part not in LOSSES:
                raise ExportError(_unknown(part))
        self._require(bool(self.parts), "loss", f"some of {', '.join(LOSSES)}, with + between")
        self._require(0 < self.temperature < math.inf, "temperature", "a number above 0")
        self._require(0 <= self.alpha <= 1, "alpha", "a number from 0 to 1")
        self._require(0 < self.beta < math.inf, "beta", "a number above 0")
        self._require(0 <= self.mixup < math.inf, "mixup", "0 or more")
        if self.layers and "features" not in self.parts:
            raise ExportError(
                f"Layers are named and the loss is '{self.loss}', which does not look at them; "
                f"use the loss '{self.loss}+features'."
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The losses' names."""
        return tuple(word.strip() for word in self.loss.split("+") if word.strip())

    @property
    def soft(self) -> float:
        """Weight of the teacher's answers as a whole."""
        return self.alpha if {"kd", "dist"} & set(self.parts) else 0.0

    @property
    def share(self) -> float:
        """Weight of one of kd and dist."""
        return self.soft / max(1, len({"kd", "dist"} & set(self.parts)))

    def _require(self, holds: bool, field: str, expected: str) -> None:
        if not holds:
            raise ExportError(f"The {field} is {getattr(self, field)!r}; expected {expected}.")


def _unknown(part: str) -> str:
    hint = did_you_mean(part, LOSSES, cutoff=0.3)
    return f"Unknown loss '{part}'; expected {', '.join(LOSSES)}, or several with +.{hint}"
