"""The main config: from labelled pictures to a complete run directory, resumable at any point."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tl_keras
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError, RunError, TrainingError
from tl_keras.peft.plans import described, finished
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import close_run
from tl_keras.runs.prepare import (
    PreparedData,
    build,
    plan_for,
    prepare,
)
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.workflows.auto_plan import best_known, decided

if TYPE_CHECKING:
    import keras

__all__ = ["first_record", "resume", "save_model", "train"]

_VERSIONS = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn", "onnxruntime")


def train(
    config: RunConfig, out: str | Path, *, progress: Progress = silent, command: str = ""
) -> RunDirectory:
    """Run a configuration into a new directory.

    Args:
        config: What to do.
        out: The directory to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.
        command: What the user wrote, for the record.

    Raises:
        TLKerasError: Anything a user can mend; a run that had begun stays and can be resumed.
    """
    refuse_existing(Path(out))
    config = config.with_defaults()
    # Before the directory is made: what is refused should leave nothing behind.
    model, data = _prepared(config, progress)
    run = RunDirectory.create(out, first_record(config, data, model, command))
    return _begin(run, config, model, data, progress)


def _prepared(config: RunConfig, progress: Progress) -> tuple[keras.Model, PreparedData]:
    samples = load_samples(config.data.source, task=config.data.task, modality=config.data.modality)
    start_tensorflow()
    _check_devices(config.run.devices)
    # The model first: it takes seconds, a look at every picture can take minutes.
    model = build(config, samples)
    plan_for(config, model)
    return model, prepare(config, progress, samples)


def _check_devices(wanted: int) -> None:
    import tensorflow as tf

    if wanted == 1:
        return
    gpus = tf.config.list_logical_devices("GPU")
    found = len(gpus or tf.config.list_logical_devices("CPU"))
    if found < wanted:
        kind = f"{found} GPUs" if gpus else "no GPU"
        raise PlanError(f"{wanted} devices asked for, {kind} found; use --devices {found or 1}")


def _begin(
    run: RunDirectory, config: RunConfig, model: keras.Model, data: PreparedData, progress: Progress
) -> RunDirectory:
    run.write_split(data.splits)
    run.write_labels(data.splits.train.class_names)
    if config.plan.name == "auto":
        config, model = decided(run, config, data.splits, progress)
    save_model(model, run.state / "initial.keras")
    run.update(state="incomplete")
    return _go_on(run, config, model, data.splits, progress)


def resume(
    path: str | Path, *, data: str | None = None, progress: Progress = silent
) -> RunDirectory:
    """Go on with a run that was interrupted, from its last snapshot.

    Args:
        path: The run's directory.
        data: Where the pictures are now, when they moved.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        RunError: It is complete already, or what resuming needs is gone.
        DataError: The pictures are not where they were.
    """
    run = RunDirectory(path)
    config = _config_of(run, data)
    if run.record["state"] == "beginning":
        model, checked = _prepared(config, progress)
        run.update(**first_record(config, checked, model, run.record.get("command", "")))
        return _begin(run, config, model, checked, progress)
    samples = run.splits(data)
    if data:
        run.update(data={**run.fact("data"), "root": samples.train.root})
    start_tensorflow()
    model = run.model(run.state / "initial.keras")
    return _go_on(run, config, model, samples, progress)


def _config_of(run: RunDirectory, data: str | None) -> RunConfig:
    if run.complete:
        raise RunError(f"{run.path} is complete; there is nothing to resume")
    if "distillation" in run.record:
        way = run.record.get("command") or "tl-export distill"
        raise RunError(f"{run.path} is an unfinished distillation; the same command ends it: {way}")
    if why := run.record.get("stopped"):
        raise RunError(f"{run.path} cannot go on, it would stop again: {why}")
    return run.config.replace(source=data or run.config.data.source)


def first_record(
    config: RunConfig, data: PreparedData, model: keras.Model, command: str
) -> dict[str, Any]:
    """Return what a run's record says from the start: what is done with what."""
    return {
        "state": "beginning",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "tl_keras": tl_keras.__version__,
        "versions": {**_versions(), "python": platform.python_version()},
        "command": command,
        "config": config.to_dict(),
        "seed": config.run.seed,
        "data": _data_facts(config, data),
        "classes": list(data.splits.train.class_names),
        "base": config.model.backbone,
        "weights": config.model.weights,
        "size": int(model.input_shape[1]),
        "adaptation": described(model),
        "head": {
            "pooling": config.model.pooling,
            "dense": list(config.model.dense),
            "dropout": config.model.dropout,
        },
        "timings": {"check": round(data.seconds, 2)},
    }


def _data_facts(config: RunConfig, data: PreparedData) -> dict[str, Any]:
    named = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    parts = {name: part for name, part in named.items() if part is not None}
    return {
        "root": data.splits.train.root,
        "task": config.data.task,
        "modality": data.splits.train.modality.name,
        "reading": data.splits.train.modality.settings,
        "notes": data.notes,
        "fingerprint": data.fingerprint,
        "pictures": {name: len(part) for name, part in parts.items()},
        "counts": {name: part.counts() for name, part in parts.items()},
        "left_out": data.left_out,
        "duplicates": data.duplicates,
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model without its optimizer, whole or not at all.

    Raises:
        StorageError: The disk is full.
    """
    with atomic_path(path) as made:
        model.save(made, include_optimizer=False)


def _go_on(
    run: RunDirectory, config: RunConfig, model: keras.Model, data: Splits, progress: Progress
) -> RunDirectory:
    from tl_keras.training.config import FitOptions
    from tl_keras.training.trainer import fit_with

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
    )
    with failures_told(run, config, model):
        result = fit_with(model, data, plan, options)
        if not _finite(model):
            raise TrainingError("the weights are not numbers after training; expected numbers.")
    _record_fit(run, result, time.perf_counter() - began)
    model = finished(best_known(run, model, data.val), run.path / "adapter.npz")
    save_model(model, run.path / "model.keras")
    close_run(run, model, data, result.history, progress)
    return run


@contextmanager
def failures_told(run: RunDirectory, config: RunConfig, model: keras.Model) -> Iterator[None]:
    """Say of a failed training what its user can do, and keep the last good weights.

    Raises:
        TrainingError: The weights are not numbers any more.
        RunError: The memory is too small.
        DataError: A picture can no longer be read.
    """
    import tensorflow as tf

    try:
        yield
    except TrainingError as error:
        # An epoch whose weights went bad at its end may have been kept as the best so far.
        good = model if _finite(model) else run.model(run.state / "initial.keras")
        save_model(good, run.path / "last_good.keras")
        why = f"{str(error).split(' Try a rate')[0]} {_gentler(config.plan.lr_scale)}"
        run.update(stopped=why)
        shutil.rmtree(run.state, ignore_errors=True)
        kept = run.path / "last_good.keras"
        raise TrainingError(f"{why}. The last good weights are in {kept}") from error
    except tf.errors.ResourceExhaustedError as error:
        raise RunError(
            "the memory does not hold a step of "
            f"{config.plan.settings.get('batch_size', 32)} pictures; "
            "start a new run with a smaller --batch-size or --size"
        ) from error
    except tf.errors.OpError as error:
        # What a reader of pictures raises within TensorFlow comes out as its text.
        found = [line for line in str(error).splitlines() if "PictureError: " in line]
        if not found:
            raise
        reason = found[-1].partition("PictureError: ")[2]
        raise DataError(f"{reason}; put the picture back and resume the run") from error


def _finite(model: keras.Model) -> bool:
    return all(bool(np.isfinite(weight).all()) for weight in model.get_weights())


def _gentler(rate: float) -> str:
    lower = 1.0 if rate > 1 else rate / 10
    return (
        f"Start a new run with --rate {lower:g}, which is a factor on the plan's rates, or find "
        "one with tl-keras lr-find"
    )


def _record_fit(run: RunDirectory, result: Any, seconds: float) -> None:
    engine = result.engine
    run.write_history(result.history)
    run.update(
        stages=result.stages,
        best_stage=result.best_stage,
        precision={"chosen": engine.name, "reason": engine.reason} if engine else {},
        timings={**run.record["timings"], "training": round(seconds, 2)},
    )
