"""The main job: from labelled pictures to a complete run directory, resumable at any point."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tl_keras
from tl_keras.closing import close_run
from tl_keras.data import splits as splitting
from tl_keras.data.check import BadPicture, CheckReport, check_pictures, fingerprint
from tl_keras.data.samples import Samples
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits, find_shared, leave_out, shared_error
from tl_keras.errors import RunError, TrainingError
from tl_keras.runs import RunDirectory, refuse_existing

if TYPE_CHECKING:
    import keras

    from tl_keras.training.plans import Plan

__all__ = ["Checked", "Job", "build", "checked_data", "resume", "train"]

Progress = Callable[[str, int, int], None]
_VERSIONS = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn", "onnxruntime")


@dataclass(frozen=True)
class Job:
    """What to train, on what, and how.

    Attributes:
        data: A folder, a CSV file or a built-in name.
        base: A base's name or a `.keras` file.
        size: Side in pixels, None for the base's own.
        weights: "default", "imagenet", "none" or a file.
        pooling: See `tl_keras.models.heads.Head`.
        dense: Units of dense layers before the output.
        dropout: Rate of dropout in the head.
        plan: A plan's name.
        settings: Fields of `Plan` to set, such as batch_size, augment, views.
        epochs: Epochs of each stage in order; empty keeps the plan's.
        rate: Factor on every stage's rate, above 0.
        task: "classes", "tags" or "values".
        val: Share carved for validation where the data has none.
        test: Share carved for the test where the data has none.
        seed: Decides splits, initial weights, orders and views.
        precision: See `tl_keras.training.fit.FitOptions`.
        devices: GPUs to train on.
        skip_bad: Go on without pictures that cannot be used.
        save_every: Least seconds between snapshots within a stage.
    """

    data: str
    base: str = "mobilenet_v2"
    size: int | None = None
    weights: str = "default"
    pooling: str = "avg"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    plan: str = "lp-ft"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    rate: float = 1.0
    task: str = "classes"
    val: float = 0.2
    test: float = 0.0
    seed: int = 0
    precision: str = "auto"
    devices: int = 1
    skip_bad: bool = False
    save_every: float = 5.0


@dataclass(frozen=True)
class Checked:
    """Data that can be trained on.

    Attributes:
        splits: The samples.
        fingerprint: SHA-256 of their keys, labels and pixels.
        left_out: What was left out, each with a path and a reason.
    """

    splits: Splits
    fingerprint: str
    left_out: list[dict[str, str]]


def checked_data(job: Job, progress: Progress) -> Checked:
    """Load the samples, look at every picture, split.

    Raises:
        DataError: Pictures cannot be used, or the same one is in two splits or classes, and
            `skip_bad` is not set.
    """
    samples = load_samples(job.data, task=job.task)
    report = check_pictures(samples, progress=lambda d, n: progress("check of pictures", d, n))
    samples, digests, left_out = _without_bad(samples, report, job.skip_bad)
    words = splitting.assign(samples, job.val, job.test, job.seed, digests)
    shared = find_shared(samples, digests, words)
    if shared and not job.skip_bad:
        raise shared_error(shared)
    dropped = set(leave_out(samples, digests, words)) if shared else set()
    left_out += [{"path": samples.keys[i], "reason": "shared"} for i in sorted(dropped)]
    keep = [i for i in range(len(samples)) if i not in dropped]
    kept = dataclasses.replace(samples.take(keep), splits=tuple(words[i] for i in keep))
    mark = fingerprint(kept, [digests[i] for i in keep])
    return Checked(splitting.split(kept, job.val, job.test, job.seed), mark, left_out)


def _without_bad(
    samples: Samples, report: CheckReport, skip: bool
) -> tuple[Samples, list[str], list[dict[str, str]]]:
    if not report.bad:
        return samples, list(report.digests), []
    if not skip:
        raise report.error()
    good = report.good
    return samples.take(good), [report.digests[i] for i in good], _listed(report.bad)


def _listed(bad: Sequence[BadPicture]) -> list[dict[str, str]]:
    return [{"path": picture.path, "reason": picture.reason} for picture in bad]


def train(
    job: Job, out: str | Path, *, progress: Progress = lambda *_: None, command: str = ""
) -> RunDirectory:
    """Run a job into a new directory.

    Raises:
        TLKerasError: Anything a user can mend; a run that had begun stays and can be resumed.
    """
    refuse_existing(Path(out))
    plan = _plan(job)
    data = checked_data(job, progress)
    # Built before the directory is made: a name that is wrong should leave nothing behind.
    model = build(job, data.splits.train)
    run = RunDirectory.create(out, _first_record(job, data, model, command))
    run.write_split(data.splits)
    run.write_labels(data.splits.train.class_names)
    _save_model(model, run.state / "initial.keras")
    return _go_on(run, job, model, data.splits, plan, progress)


def resume(path: str | Path, *, progress: Progress = lambda *_: None) -> RunDirectory:
    """Go on with a run that was interrupted, from its last snapshot.

    Raises:
        RunError: It is complete already, or what resuming needs is gone.
    """
    import keras

    run = RunDirectory(path)
    if run.complete:
        raise RunError(f"{path} is complete; there is nothing to resume")
    values = dict(run.record["job"])
    job = Job(**{**values, "dense": tuple(values["dense"]), "epochs": tuple(values["epochs"])})
    initial = run.state / "initial.keras"
    if not initial.exists():
        raise RunError(f"{path} ended before training began; remove it and start anew")
    model = keras.saving.load_model(initial, compile=False, safe_mode=True)
    return _go_on(run, job, model, run.splits(), _plan(job), progress)


def _plan(job: Job) -> Callable[[keras.Model], Plan]:
    from tl_keras.errors import PlanError
    from tl_keras.models import graph
    from tl_keras.training.plans import named_plan

    named_plan(job.plan, **job.settings)
    if job.rate <= 0:
        raise PlanError(f"the factor on the rate is {job.rate}, expected a number above 0")

    def of(model: keras.Model) -> Plan:
        plan = named_plan(job.plan, blocks=len(graph.blocks(model)), **job.settings)
        epochs = dict(zip(plan.stages, job.epochs, strict=False))
        stages = tuple(
            dataclasses.replace(
                stage, rate=stage.rate * job.rate, epochs=epochs.get(stage, stage.epochs)
            )
            for stage in plan.stages
        )
        return dataclasses.replace(plan, stages=stages)

    return of


def build(job: Job, samples: Samples) -> keras.Model:
    """Build a job's model for its data; the same seed gives the same weights."""
    import keras

    from tl_keras.models.builders import build_model
    from tl_keras.models.heads import Head

    activation = {"classes": "softmax", "tags": "sigmoid", "values": "linear"}[job.task]
    head = Head(job.pooling, job.dense, job.dropout, activation)
    weights = None if job.weights == "none" else job.weights
    keras.utils.set_random_seed(job.seed)
    outputs = len(samples.class_names)
    return build_model(job.base, outputs, head=head, size=job.size, weights=weights)


def _first_record(job: Job, data: Checked, model: keras.Model, command: str) -> dict[str, Any]:
    parts = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    return {
        "state": "incomplete",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "tl_keras": tl_keras.__version__,
        "versions": {**_versions(), "python": platform.python_version()},
        "command": command,
        "job": dataclasses.asdict(job),
        "seed": job.seed,
        "data": {
            "root": data.splits.train.root,
            "task": job.task,
            "fingerprint": data.fingerprint,
            "counts": {name: part.counts() for name, part in parts.items() if part},
            "left_out": data.left_out,
        },
        "classes": list(data.splits.train.class_names),
        "base": job.base,
        "weights": job.weights,
        "size": int(model.input_shape[1]),
        "head": {"pooling": job.pooling, "dense": list(job.dense), "dropout": job.dropout},
        "timings": {},
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def _save_model(model: keras.Model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("writing.keras")
    model.save(temporary, include_optimizer=False)
    temporary.replace(path)


def _go_on(
    run: RunDirectory,
    job: Job,
    model: keras.Model,
    data: Splits,
    plan: Callable[[keras.Model], Plan],
    progress: Progress,
) -> RunDirectory:
    from tl_keras.training.fit import fit_with
    from tl_keras.training.options import FitOptions

    chosen, began = plan(model), time.perf_counter()
    run.update(plan=chosen.to_dict())
    options = FitOptions(
        seed=job.seed,
        state_dir=run.state,
        precision=job.precision,
        devices=job.devices,
        save_every=job.save_every,
        progress=progress,
        fingerprint=run.record["data"]["fingerprint"],
    )
    try:
        result = fit_with(model, data, chosen, options)
    except TrainingError as error:
        _save_model(model, run.path / "last_good.keras")
        raise TrainingError(f"{error}; the last good weights are in {run.path}") from error
    _record_fit(run, result, time.perf_counter() - began)
    _save_model(model, run.path / "model.keras")
    close_run(run, model, data, result.history, progress)
    return run


def _record_fit(run: RunDirectory, result: Any, seconds: float) -> None:
    engine = result.engine
    run.write_history(result.history)
    run.update(
        stages=result.stages,
        best_stage=result.best_stage,
        precision={"chosen": engine.name, "reason": engine.reason} if engine else {},
        timings={**run.record["timings"], "training": round(seconds, 2)},
    )
