"""How an update learns: the remedies on top of a plan, or a head solved from sums."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.continual.ewc import Anchor, anchor_weights, fisher, l2sp
from tl_keras.continual.growing import feature_model, output_layer, set_output
from tl_keras.continual.replay import order
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import RunError
from tl_keras.features.extract import open_backend, predict
from tl_keras.probing.linear import StreamingRidge
from tl_keras.probing.linear_head import calibrate
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.prepare import plan_for
from tl_keras.training.plan import Plan
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress
from tl_keras.workflows.update.config import UpdateConfig
from tl_keras.workflows.update.images import Pool

if TYPE_CHECKING:
    import keras

    from tl_keras.training.config import FitResult

__all__ = ["Learning", "extract_features", "learn", "refuse_lost", "solve"]

IMPORTANCE, SUMS = "importance.npz", "sums.npz"
_FISHER_PICTURES = 100
_GENTLE = 0.3
EWC, L2SP, LWF = 1e4, 0.01, 1.0


@dataclass(frozen=True)
class Learning:
    """What there is to learn.

    Attributes:
        request: The update.
        config: Of the old run.
        old: The old model.
        run: The old run.
        previous: Its images at hand.
        new: The new images.
        data: What is trained on and judged by.
        folder: The new run.
        progress: Called with a task's name, what is done and of how much.
    """

    request: UpdateConfig
    config: RunConfig
    old: keras.Model
    run: RunDirectory
    previous: Pool
    new: Pool
    data: Splits
    folder: Path
    progress: Progress


def refuse_lost(request: UpdateConfig, run: RunDirectory, previous: Pool) -> None:
    """Check that each remedy has the old images that it needs, or what stands for them.

    Raises:
        RunError: One has not; those that need none are named.
    """
    if len(previous.of("train")):
        return
    there = {"ewc": (run.path / IMPORTANCE).exists(), "streaming": (run.path / SUMS).exists()}
    lost = [word for word in request.keep if word == "replay" or not there.get(word, True)]
    if lost:
        left = [word for word, has in there.items() if has] + ["l2sp", "lwf"]
        raise RunError(
            f"{', '.join(lost)} needs old pictures, and the {previous.gone} of {run.path} are no "
            f"longer under {run.fact('data', 'root')}; put them back, or use what needs none: "
            f"--keep {','.join(left)}"
        )


def extract_features(
    model: keras.Model, samples: Samples, precision: str, progress: Progress
) -> np.ndarray:
    """Return what a model's output layer sees of samples, float32 (n, d)."""
    return predict(
        feature_model(model), samples, precision=precision,
        progress=functools.partial(progress, "features"),
    )  # fmt: skip


def solve(learning: Learning, grown: keras.Model) -> None:
    """Set a grown model's head from the sums of all features, and keep these in the new run.

    Ridge regression needs the features' Gram matrix and each class's sum alone, so old
    images need not be there once they were counted; nothing of the base changes. How sure
    the head is comes from the validation images.
    """
    features = feature_model(grown)
    sums = StreamingRidge(int(features.output_shape[-1]), int(grown.output_shape[-1]))
    kept = learning.run.path / SUMS
    parts = [learning.new]
    if kept.exists():
        with np.load(kept, allow_pickle=False) as saved:
            sums.load({name: saved[name] for name in ("counts", "sums", "gram")})
    else:
        parts.insert(0, learning.previous)
    for pool in parts:
        train = pool.samples.take(pool.of("train"))
        if len(train):
            found = extract_features(grown, train, learning.config.run.precision, learning.progress)
            sums.update(found, train.labels)
    head, held = sums.solve(), learning.data.val
    if len(held):
        # What a base was trained on lies too neatly: sums of it make a head far too sure.
        found = extract_features(grown, held, learning.config.run.precision, learning.progress)
        head = calibrate(head, found, held.labels)
    set_output(grown, head.weights, head.bias)
    _save(learning.folder / SUMS, sums.arrays())


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with atomic_path(path) as made:
        np.savez(made, **arrays)


def update_plan(request: UpdateConfig, config: RunConfig, model: keras.Model) -> Plan:
    """Return how an update is trained: the head, then all at a low rate.

    A run whose base never learnt ("probe") keeps its base.
    """
    plan = "probe" if config.plan.name in ("probe", "solved") else "lp-ft"
    asked = config.replace(plan=plan, epochs=request.epochs, lr_scale=request.rate)
    made = plan_for(asked, model)
    stages = tuple(
        stage
        if stage.name == "head"
        else dataclasses.replace(stage, learning_rate=stage.learning_rate * _GENTLE)
        for stage in made.stages
    )
    decay = 0.0 if "l2sp" in request.keep else made.weight_decay
    return dataclasses.replace(made, stages=stages, weight_decay=decay)


def learn(learning: Learning, grown: keras.Model) -> tuple[Plan, FitResult]:
    """Train a grown model through the update's plan, with the remedies asked for."""
    from tl_keras.training.config import FitOptions
    from tl_keras.training.trainer import fit_with

    request, config = learning.request, learning.config
    plan = update_plan(request, config, grown)
    state = learning.folder / "state"
    options = FitOptions(
        seed=config.run.seed, state_dir=state, precision=config.run.precision, save_every=1e9,
        progress=learning.progress,
    )  # fmt: skip
    if "lwf" in request.keep:
        options = dataclasses.replace(
            options, objective=_old_answers(learning, plan, state / "old")
        )
    with contextlib.ExitStack() as stack:
        if anchor := _anchor(learning):
            stack.enter_context(anchor_weights(grown, anchor, request.strength))
        result = fit_with(grown, learning.data, plan, options)
    if "ewc" in request.keep:
        _keep_importance(learning, grown)
    return plan, result


def _old_answers(learning: Learning, plan: Plan, folder: Path) -> Any:
    from tl_keras.continual.lwf import WithoutForgetting

    run, train = learning.config.run, learning.data.train
    _, old = open_backend(learning.old, train.reader(learning.old), run.precision)
    return WithoutForgetting(
        learning.data, plan, learning.old, old, folder, seed=run.seed,
        strength=LWF * learning.request.strength,
    )  # fmt: skip


def _anchor(learning: Learning) -> Anchor | None:
    anchor = None
    if "l2sp" in learning.request.keep:
        anchor = l2sp(learning.old, without=[output_layer(learning.old).name]) * L2SP
    if "ewc" in learning.request.keep:
        held = _importance(learning) * EWC
        anchor = anchor + held if anchor else held
    return anchor


def _importance(learning: Learning) -> Anchor:
    """Of the old images at hand, else what the old run kept."""
    kept = learning.run.path / IMPORTANCE
    if not kept.exists():
        return _measure_importance(learning, learning.old, learning.previous)
    held = l2sp(learning.old)
    with np.load(kept, allow_pickle=False) as saved:
        return Anchor(held.centers, {name: saved[name] for name in saved.files})


def _measure_importance(learning: Learning, model: keras.Model, pool: Pool) -> Anchor:
    train = pool.samples.take(pool.of("train"))
    ranked = order("balanced", train.labels, train.keys, learning.config.run.seed)[
        :_FISHER_PICTURES
    ]
    return fisher(
        model, train.take(ranked).reader(model).read(range(len(ranked))),
        progress=lambda done, total: learning.progress("importance of weights", done, total),
    )  # fmt: skip


def _keep_importance(learning: Learning, grown: keras.Model) -> None:
    """Keep the mean of the old and the new images' importance for the next update."""
    new, old = _measure_importance(learning, grown, learning.new), _importance(learning)
    counts = len(learning.previous.known), len(learning.new.samples)
    share = counts[0] / max(sum(counts), 1)
    _save(learning.folder / IMPORTANCE, dict((old * share + new * (1 - share)).importance))
