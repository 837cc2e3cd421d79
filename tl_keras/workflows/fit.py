"""Trains a model: from labelled samples to a complete run directory, resumable at any point."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.data.splits import Splits
from tl_keras.errors import PlanError, RunError
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import (
    create,
    finish,
    guard,
    hold,
    initial_model,
    record_training,
    reopen,
)
from tl_keras.runs.prepare import PreparedData, build, load, plan_for, prepare
from tl_keras.training.plan import FOLDED_PLANS
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.workflows.auto_plan import decide_plan, keep_best
from tl_keras.workflows.baselines import add_baselines
from tl_keras.workflows.check_data import examine_training, save_previews

if TYPE_CHECKING:
    import keras

__all__ = ["resume", "train"]


def train(
    config: RunConfig, out: str | Path, *, progress: Progress = silent, command: str = ""
) -> RunDirectory:
    """Train what a configuration asks for, into a new directory.

    Args:
        config: What to do.
        out: The directory to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.
        command: What the user wrote, for the record.

    Raises:
        TLKerasError: Anything a user can mend; a run that had begun stays and can be resumed.
    """
    refuse_existing(Path(out), config.data.source)
    usual = not config.plan.name
    config = config.with_defaults()
    # Before the directory is made: what is refused should leave nothing behind.
    with guard():
        config, model, whole = _prepare_all(config, usual, progress)
        data, quality = examine_training(config, model, whole, progress)
    state = "choosing" if config.plan.name == "auto" else "incomplete"
    facts = {"state": state, "data_quality": quality}
    create(out, config, data, model, command=command, resumable=True, **facts)
    with hold(out):
        save_previews(RunDirectory(out), whole)
        return _go_on(RunDirectory(out), data.splits, progress)


def _prepare_all(
    config: RunConfig, usual: bool, progress: Progress
) -> tuple[RunConfig, keras.Model, PreparedData]:
    """Return the configuration, its plan one that suits the model if it is the usual one."""
    samples = load(config)
    start_tensorflow()
    _check_devices(config.run.devices)
    # The model first: it takes seconds, a look at every sample can take minutes.
    model = build(config, samples)
    if usual and config.plan.name in FOLDED_PLANS:
        from tl_keras.training.solve_stage import can_solve

        config = config if can_solve(model) else config.replace(plan="lp-ft")
    plan_for(config, model)
    return config, model, prepare(config, progress, samples)


def _check_devices(wanted: int) -> None:
    import tensorflow as tf

    if wanted == 1:
        return
    gpus = tf.config.list_logical_devices("GPU")
    found = len(gpus or tf.config.list_logical_devices("CPU"))
    if found < wanted:
        kind = f"{found} GPUs" if gpus else "no GPU"
        raise PlanError(f"{wanted} devices asked for, {kind} found; use --devices {found or 1}")


def resume(
    path: str | Path, *, data: str | None = None, progress: Progress = silent
) -> RunDirectory:
    """Go on with a run that was interrupted, from its last snapshot.

    Args:
        path: The run's directory.
        data: Where the samples are now, when they moved.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        RunError: It is complete already, another process writes to it, what resuming needs is
            gone, or the data changed.
        DataError: The samples are not where they were.
    """
    run = reopen(path)
    if "distillation" in run.record:
        way = run.record.get("command") or "tl-export distill"
        raise RunError(f"{run.path} is an unfinished distillation; the same command ends it: {way}")
    with hold(run.path):
        run = reopen(path)
        samples = run.splits(data)
        run.require_unchanged(samples, progress)
        if data:
            run.update(
                data={**run.fact("data"), "root": samples.train.root},
                config=run.config.replace(source=data).to_dict(),
            )
        start_tensorflow()
        return _go_on(run, samples, progress)


def _go_on(run: RunDirectory, data: Splits, progress: Progress) -> RunDirectory:
    from tl_keras.training.config import FitOptions
    from tl_keras.training.trainer import fit_with

    if run.record["state"] == "choosing":
        with guard(run):
            decide_plan(run, data, progress)
    config, model = run.config, initial_model(run)
    plan, began = plan_for(config, model), time.perf_counter()
    run.update(plan=plan.to_dict())
    options = FitOptions(
        seed=config.run.seed,
        state_dir=run.state,
        precision=config.run.precision,
        devices=config.run.devices,
        save_every=config.run.save_every,
        progress=progress,
        fingerprint=run.fact("data", "fingerprint"),
        minutes=config.plan.minutes,
    )
    with guard(run, model):
        result = fit_with(model, data, plan, options)
    record_training(run, result, {"training": time.perf_counter() - began})
    with guard(run):
        model = keep_best(run, model, data.val)
        add_baselines(run, data, progress)
        finish(run, model, data, result.history, progress, out_of_fold=result.out_of_fold)
    return run
