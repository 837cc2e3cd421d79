"""Chooses a plan by short runs on a share of the images, the better half going on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError, TrainingError
from tl_keras.features.extract import predict
from tl_keras.training.plan import Plan
from tl_keras.utils.progress import Progress, silent

if TYPE_CHECKING:
    import keras

__all__ = ["ARMS", "Choice", "Trial", "choose_plan", "score", "share_of"]

ARMS = ("probe", "lora", "top", "lp-ft", "full", "scratch")
"""Plans that are tried, the cheap ones first: what time is left goes to the others."""
SHARES = (0.25, 0.5)
_FEWEST = 8


@dataclass(frozen=True)
class Trial:
    """One short run.

    Attributes:
        plan: Its plan's name.
        share: Of the training images, 0..1.
        accuracy: On all validation images, 0..1; None where it did not end.
        loss: There, the mean negative log-likelihood (or squared error).
        seconds: What it took.
        note: Why it did not end.
    """

    plan: str
    share: float
    accuracy: float | None
    loss: float | None
    seconds: float
    note: str = ""

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: accuracy, then the loss."""
        if self.loss is None:
            return (-np.inf, -np.inf)
        return (self.accuracy or 0.0, -self.loss)


@dataclass
class Choice:
    """What was chosen, and why.

    Attributes:
        plan: The plan's name.
        why: Sentences for the reader.
        trials: Every short run in order.
        model: The best model that a short run gave; None where none ended.
        best: Its trial.
    """

    plan: str
    why: str
    trials: list[Trial] = field(default_factory=list)
    model: keras.Model | None = None
    best: Trial | None = None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able values, without the model."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        best = None if self.best is None else dataclasses.asdict(self.best)
        return {"plan": self.plan, "why": self.why, "trials": trials, "best": best}


class _OutOfTimeError(Exception):
    pass


def choose_plan(
    make: Callable[[str], tuple[keras.Model, Plan]],
    data: Splits,
    *,
    arms: Sequence[str] = ARMS,
    minutes: float = 10.0,
    seed: int = 0,
    progress: Progress = silent,
) -> Choice:
    """Try plans on a quarter of the training images, the better half of them on one half.

    Successive halving (Jamieson and Talwalkar, 'Non-stochastic best arm identification and
    hyperparameter optimization', AISTATS 2016, arXiv 1502.07943). All are judged on the whole
    validation split: by accuracy, where that is equal by the loss. Every trial has its share
    of the time that is left and is stopped there.

    Args:
        make: Gives a plan's untrained model and the plan, by its name.
        data: Training and validation samples.
        arms: Names of plans, the cheap ones first.
        minutes: For all trials together, above 0.
        seed: Decides which images are in a share.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        DataError: There are no validation images to judge by.
    """
    if not len(data.val):
        raise DataError("plan auto is judged on validation pictures and there are none; set --val")
    # Here, so that the time it takes to load is not the first trial's.
    from tl_keras.training.trainer import fit

    end = time.monotonic() + 60 * minutes
    choice, left = Choice(arms[0], ""), list(arms)
    for rung, share in enumerate(SHARES):
        part = dataclasses.replace(data, train=share_of(data.train, share, seed))
        trials = []
        for place, name in enumerate(left):
            slots = len(left) - place + (len(arms) // 2 if rung == 0 else 0)
            slice_end = time.monotonic() + max(0.0, end - time.monotonic()) / slots
            try:
                trials.append(_trial(fit, make(name), part, share, slice_end, choice))
            except PlanError as error:
                # Such as LoRA on a base that is too small for it: the others go on.
                trials.append(Trial(name, share, None, None, 0.0, str(error)))
            progress(f"plans on {share:.0%} of the pictures", place + 1, len(left))
        choice.trials += trials
        ended = sorted((t for t in trials if t.loss is not None), key=lambda t: t.rank)[::-1]
        if not ended:
            break
        left = [t.plan for t in ended[: max(1, len(arms) // 2)]]
    choice.plan = left[0]
    choice.why = _why(choice, minutes)
    return choice


def share_of(train: Samples, share: float, seed: int) -> Samples:
    """Return a share of the samples, at least 8, as much of each class as there is in all."""
    count = min(len(train), max(_FEWEST, round(share * len(train))))
    order = np.random.default_rng(seed).permutation(len(train))
    # One of each stratum in turn, so that no class is missing from a share that has room.
    place, strata = np.empty(len(train)), train.kind.strata(train.labels)
    for stratum in np.unique(strata):
        rows = order[strata[order] == stratum]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = order[np.argsort(place[order], kind="stable")]
    return train.take(np.sort(order[:count]))


def _trial(
    fit: Callable[..., Any],
    arm: tuple[keras.Model, Plan],
    part: Splits,
    share: float,
    end: float,
    choice: Choice,
) -> Trial:
    def watch(*_: Any) -> None:
        if time.monotonic() > end:
            raise _OutOfTimeError

    began, (model, plan) = time.monotonic(), arm
    try:
        watch()
        fit(model, part, plan, progress=watch)
    except (_OutOfTimeError, TrainingError) as error:
        note = str(error) or "its share of the time was up"
        return Trial(plan.name, share, None, None, round(time.monotonic() - began, 1), note)
    accuracy, loss = score(model, part.val)
    trial = Trial(plan.name, share, accuracy, loss, round(time.monotonic() - began, 1))
    if choice.best is None or trial.rank > choice.best.rank:
        choice.model, choice.best = model, trial
    return trial


def score(model: keras.Model, samples: Samples) -> tuple[float | None, float]:
    """Return accuracy (None for values) and loss of a model on samples."""
    outputs, task = predict(model, samples), samples.kind
    right = task.correct(outputs, samples.labels)
    targets = task.targets(samples.labels, outputs.shape[1])
    loss = float(task.sample_losses(outputs, targets).mean())
    return (None if right is None else float(right.mean())), loss


def _why(choice: Choice, minutes: float) -> str:
    ended = [trial for trial in choice.trials if trial.loss is not None]
    if not ended:
        return (
            f"No plan ended a short run within {minutes:g} minutes; {choice.plan} is the cheapest. "
            "With more minutes the choice would be made by trial."
        )
    last = max(trial.share for trial in ended)
    told = sorted((t for t in ended if t.share == last), key=lambda t: t.rank)[::-1]
    listed = ", ".join(f"{trial.plan} {_said(trial)}" for trial in told)
    judged = {trial.plan for trial in ended}
    dropped = [trial.plan for trial in choice.trials if trial.plan not in judged]
    without = f" Not judged: {', '.join(dropped)}." if dropped else ""
    if len(judged) == 1:
        return (
            f"{choice.plan} alone ended a short run within {minutes:g} minutes: {listed}.{without} "
            "With more minutes there would be a choice."
        )
    return (
        f"{choice.plan} was best on the validation pictures after short runs on {last:.0%} of the "
        f"training pictures: {listed}.{without}"
    )


def _said(trial: Trial) -> str:
    loss = f"loss {trial.loss:.3f}"
    return loss if trial.accuracy is None else f"{100 * trial.accuracy:.1f} % ({loss})"
