"""What an update is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tl_keras.continual.replay import WAYS
from tl_keras.errors import PlanError
from tl_keras.runs.exemplars import parse_bytes

__all__ = ["REMEDIES", "UpdateConfig"]

REMEDIES = {
    "replay": "old pictures, kept in the run, are learnt again",
    "ewc": "weights that matter for the old classes are held, by Fisher's information",
    "l2sp": "all weights are held near the old ones",
    "lwf": "what the old model says of the new pictures is learnt too",
    "streaming": "the base stays, the head is solved from sums of all features ever seen",
}
"""What each remedy against forgetting does."""

_HOLDING = ("ewc", "l2sp", "lwf")


@dataclass(frozen=True)
class UpdateConfig:
    """What a run should learn, and how it keeps what it knows.

    Attributes:
        run: A complete run of task "classes".
        data: New images: class folders (one is enough), or a CSV file.
        keep: Of `REMEDIES`; none at all shows what is forgotten.
        memory: Bytes of the images that the new run keeps, such as "20MB": with replay four
            fifths to learn from, always one fifth to score with.
        exemplars: Of `tl_keras.continual.replay.WAYS`.
        new_classes: Classes that are new though their name looks like another's.
        epochs: Epochs of the stages, head and all; empty keeps the plan's.
        rate: Factor on the rates, above 0.
        strength: Factor on the pull of ewc, l2sp and lwf, above 0.
        skip_bad: Go on without images that cannot be used or are known already.
    """

    run: str
    data: str
    keep: tuple[str, ...] = ("replay",)
    memory: str = "20MB"
    exemplars: str = "herding"
    new_classes: tuple[str, ...] = ()
    epochs: tuple[int, ...] = ()
    rate: float = 1.0
    strength: float = 1.0
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Check what can be known from the options alone.

        Raises:
            TLKerasError: One is unknown, out of range, or contradicts another.
        """
        object.__setattr__(self, "keep", tuple(dict.fromkeys(self.keep)))
        if unknown := [word for word in self.keep if word not in REMEDIES]:
            raise PlanError(
                f"unknown remedy '{unknown[0]}'; expected some of {', '.join(REMEDIES)}, or none"
            )
        if "streaming" in self.keep and (held := set(self.keep) & set(_HOLDING)):
            raise PlanError(
                f"streaming solves the head and trains nothing, so {', '.join(sorted(held))} has "
                "nothing to hold; use streaming alone or with replay"
            )
        if self.exemplars not in WAYS:
            raise PlanError(f"unknown --exemplars '{self.exemplars}'; expected {', '.join(WAYS)}")
        for name in ("rate", "strength"):
            if not 0 < getattr(self, name) < math.inf:
                got = getattr(self, name)
                raise PlanError(f"--{name} is {got}, expected a number above 0")
        parse_bytes(self.memory)

    @property
    def budget(self) -> int:
        """Bytes that the new run may keep."""
        return parse_bytes(self.memory)

    @property
    def trains(self) -> bool:
        """Whether anything is learnt by steps."""
        return "streaming" not in self.keep
