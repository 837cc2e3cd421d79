"""Learning-rate range test."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_keras.data.splits import Splits
from tl_keras.errors import TrainingError
from tl_keras.models.rewrite import flat_view
from tl_keras.training.batches import Epochs, batches, permutation
from tl_keras.training.checkpoint import assign, model_variables, values
from tl_keras.training.config import FitOptions
from tl_keras.training.plan import Plan, Stage
from tl_keras.training.repeatable import repeatable
from tl_keras.training.stage_runner import StageRunner
from tl_keras.utils.progress import Progress

__all__ = ["RateSearch", "lr_find", "suggest"]

_LOW, _HIGH = 1e-6, 1.0


@dataclass(frozen=True)
class RateSearch:
    """What a range test saw.

    Attributes:
        rates: Learning rates tried, rising.
        losses: The training loss at each, smoothed.
        suggestion: Where the loss falls fastest.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float


def lr_find(
    model: keras.Model,
    data: Splits,
    train: Sequence[str] = ("head",),
    *,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> RateSearch:
    """Train for some steps at rates that rise from 1e-6 to 1 and watch the loss.

    Source: the range test of Smith, arXiv 1506.01186, with exponential spacing; stops when
    the smoothed loss is four times its least. The model's weights are put back.

    Args:
        model: A functional or built sequential model.
        data: Samples; as many training images are read as the steps need.
        train: Selectors of what learns.
        steps: Steps at most, at least 10.
        batch_size: Images a step.
        seed: Decides which images, in which order.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        PlanError: A selector matches nothing.
        TrainingError: The loss is not a number from the start.
    """
    few = permutation(len(data.train), seed, 0)[: steps * batch_size]
    some = Splits(data.train.take(np.sort(few)), data.val.take([]), None)
    stage = Stage("lr-find", tuple(train), epochs=1, learning_rate=_LOW)
    plan = Plan("lr-find", (stage,), batch_size, ema=False, weight_decay=0.0)
    before = values(model_variables(model))
    options = FitOptions(seed=seed, progress=progress or FitOptions().progress)
    try:
        with tempfile.TemporaryDirectory() as folder, repeatable(seed):
            runner = StageRunner(
                flat_view(model).model, some, plan, replace(options, state_dir=folder))
            trainer = runner.trainer(0)
            losses = _climb(trainer, np.geomspace(_LOW, _HIGH, steps), Path(folder))
    finally:
        assign(model_variables(model), before)
    rates = [float(rate) for rate in np.geomspace(_LOW, _HIGH, steps)[: len(losses)]]
    return RateSearch(rates, losses, suggest(rates, losses))


def _climb(trainer: Any, rates: np.ndarray, folder: Path) -> list[float]:
    trainer.compile()
    data, average = trainer.data, 0.0
    smoothed: list[float] = []
    epochs = Epochs(data.rows, trainer.plan.batch_size, trainer.seed, 0, len(rates))
    for step, batch in enumerate(batches(data.train, data.spec, epochs)):
        if step == len(rates):
            break
        trainer.suffix.optimizer.learning_rate = float(rates[step])
        trainer.suffix.reset_metrics()
        loss = float(trainer.suffix.train_on_batch(*batch, return_dict=True)["loss"])
        average = 0.9 * average + 0.1 * loss
        value = average / (1 - 0.9 ** (step + 1))
        if not np.isfinite(value) or (smoothed and value > 4 * min(smoothed)):
            break
        smoothed.append(value)
    return smoothed


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls fastest per factor of the rate.

    The first tenth of the steps, where the average is over few batches, and all behind the
    least loss are not considered.

    Raises:
        TrainingError: Fewer than five losses are numbers.
    """
    if len(losses) < 5:
        raise TrainingError(
            f"the loss was a number for {len(losses)} steps only, expected 5 at least; are the "
            "labels and the weights right?"
        )
    slopes = np.gradient(np.asarray(losses), np.log(rates))
    first = max(1, len(losses) // 10)
    last = max(first + 1, int(np.argmin(losses)) + 1)
    return float(rates[first + int(np.argmin(slopes[first:last]))])
