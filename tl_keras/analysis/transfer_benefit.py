"""Pretrained against scratch: the same model, images and budget, several seeds each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError
from tl_keras.features.extract import predict
from tl_keras.training.plan import FOLDED_PLANS, Plan, Stage, named_plan, stage_epochs
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.stats import paired_difference

if TYPE_CHECKING:
    import keras

__all__ = [
    "Comparison", "MARGIN", "Verdict", "compare_transfer", "fresh", "scratch_plan",
    "transfer_verdict",
]  # fmt: skip

_FEWEST = 20


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the runs gave.

    Attributes:
        verdict: What they say together.
        pretrained: bool (seeds, images), right answers.
        scratch: bool (seeds, images).
    """

    verdict: Verdict
    pretrained: np.ndarray
    scratch: np.ndarray


_SCRATCH_STEPS = 600


def scratch_plan(plan: Plan, images: int = 0, rate: float = 2e-3) -> Plan:
    """Return the plan that trains all from scratch at the cost of another plan.

    The rate is plan "scratch"'s: a fresh model learns little at the gentle rates that suit a
    pretrained one. Neither stops early. Against a plan that makes trials on folds scratch gets
    plan "scratch"'s epochs, at least 600 steps: more than all trials together; against any other
    as many epochs, so that both see every image equally often.

    Args:
        plan: The pretrained model's.
        images: That are learned from.
        rate: Peak learning rate.
    """
    epochs = plan.epochs
    if plan.name in FOLDED_PLANS:
        own = named_plan("scratch").epochs
        epochs = stage_epochs(own, _SCRATCH_STEPS, max(images, 1), plan.batch_size)
    stage = Stage("scratch", ("all",), epochs=epochs, learning_rate=rate, batchnorm="train")
    return dataclasses.replace(plan, name="scratch", stages=(stage,), ema=True)


def fresh(model: keras.Model) -> keras.Model:
    """Return the same model with new initial weights; what only scales images is kept."""
    import keras

    made = keras.models.clone_model(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def compare_transfer(
    build: Callable[[int], keras.Model],
    data: Splits,
    plan: Plan,
    *,
    seeds: int = 3,
    first_seed: int = 0,
    progress: Progress = silent,
) -> Comparison:
    """Train pretrained and from scratch with the same budget, and compare.

    Both ways get their own usual rates, see :func:`scratch_plan`. They are judged on the test
    images; without any, on the validation images: a plan that chooses on folds does not look at
    them then, any other keeps its epoch by them, which flatters both alike.

    Args:
        build: Makes the pretrained model with its head, from a seed.
        data: Training, validation and maybe test samples of task "classes".
        plan: For the pretrained model.
        seeds: Runs of each way, at least 2.
        first_seed: The seeds count from here.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        PlanError: Fewer than 2 seeds.
        DataError: Another task, or fewer than 20 images to judge on.
    """
    judged = data.val if data.test is None else data.test
    _check(judged, seeds)
    if data.test is None and plan.name in FOLDED_PLANS:
        data = dataclasses.replace(data, val=data.val.take([]))
    plan = dataclasses.replace(
        plan, stages=tuple(dataclasses.replace(stage, patience=0) for stage in plan.stages)
    )
    rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number in range(seeds):
        seed = first_seed + number
        model = build(seed)
        with repeatable(seed):  # a clone's weights come from the seed alone
            ways = ((model, plan), (fresh(model), scratch_plan(plan, len(data.train))))
        for row, (one, of_plan), name in zip(rows, ways, ("pretrained", "scratch"), strict=True):
            row.append(_right(one, data, of_plan, judged, seed))
            done = 2 * number + (2 if name == "scratch" else 1)
            progress("pretrained and scratch", done, 2 * seeds)
    pretrained, scratch = np.stack(rows[0]), np.stack(rows[1])
    return Comparison(transfer_verdict(pretrained, scratch), pretrained, scratch)


def _check(judged: Samples, seeds: int) -> None:
    if seeds < 2:
        raise PlanError(f"got {seeds} seeds, expected at least 2: one run could be luck")
    judged.kind.require_single_label("the verdict")
    if len(judged) < _FEWEST:
        raise DataError(
            f"got {len(judged)} pictures to judge on, expected at least {_FEWEST}; add pictures, "
            "or hold out more with --test"
        )


def _right(model: keras.Model, data: Splits, plan: Plan, judged: Samples, seed: int) -> np.ndarray:
    from tl_keras.training.trainer import fit

    fit(model, data, plan, seed=seed)
    return predict(model, judged).argmax(axis=1) == judged.labels


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
        pictures: Images both were judged on.
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
        pretrained: bool (seeds, images), right answers of the pretrained runs.
        scratch: bool (seeds, images), those from scratch with the same budget.
        margin: Least difference that matters, a share of the images.
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
