"""A run's life: begun, guarded while it works, scored and reported at its end."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tl_keras
from tl_keras import tasks
from tl_keras.analysis.heatmaps import add_heatmaps
from tl_keras.analysis.occlusion import add_words
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, RunError, TrainingError
from tl_keras.features.extract import predict
from tl_keras.models.backbones.requirements import required_packages
from tl_keras.models.graph import feature_point
from tl_keras.peft.branches import describe_branches
from tl_keras.peft.files import merge_and_save
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.prepare import PreparedData
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.files import atomic_path, remove_leavings
from tl_keras.utils.limits import name_full_disk, name_small_memory
from tl_keras.utils.locks import lock_folder
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

    from tl_keras.evaluation.mistakes import Mistake
    from tl_keras.training.config import FitResult

__all__ = [
    "INITIAL", "create", "draw", "finish", "first_record", "guard", "hold", "initial_model",
    "record_training",
    "reopen", "save_model", "score",
]  # fmt: skip

INITIAL = "initial.keras"
"""In the state: the model before training."""
_VERSIONS = ("tensorflow", "keras", "numpy", "pillow", "scikit-learn", "onnxruntime")


@contextlib.contextmanager
def hold(path: str | Path) -> Iterator[None]:
    """Be the only one that writes to a run, and clear what a killed writer left.

    Raises:
        RunError: Another process writes to it.
    """
    path = Path(path)
    with lock_folder(path):
        for folder in (path, *(one for one in path.rglob("*") if one.is_dir())):
            remove_leavings(folder)
        yield


def create(
    path: str | Path,
    config: RunConfig,
    data: PreparedData,
    model: keras.Model,
    *,
    command: str = "",
    resumable: bool = False,
    **facts: Any,
) -> RunDirectory:
    """Make a run's directory, with all that is known before it trains, whole or not at all.

    Args:
        path: The directory; it must not exist, or be empty.
        config: What was asked for.
        data: What is trained on.
        model: What is trained.
        command: What the user wrote, for the record.
        resumable: Whether the model is kept as it is before training.
        **facts: More for the record.

    Raises:
        RunError: Something is there already.
        StorageError: It cannot be written.
    """
    refuse_existing(Path(path))
    with atomic_path(path) as folder:
        record = {**first_record(config, data, model, command), **facts}
        run = RunDirectory.create(folder, record, data.splits.train.modality.files)
        run.write_split(data.splits, data.digests)
        run.write_labels(data.splits.train.class_names)
        if resumable:
            save_model(model, run.state / INITIAL)
    return RunDirectory(path)


def reopen(path: str | Path) -> RunDirectory:
    """Return a run that can go on.

    Raises:
        RunError: It is complete, or would stop again.
    """
    run = RunDirectory(path)
    if run.complete:
        raise RunError(f"{run.path} is complete; there is nothing to resume")
    if why := run.record.get("stopped"):
        raise RunError(f"{run.path} cannot go on, it would stop again: {why}")
    return run


def initial_model(run: RunDirectory) -> keras.Model:
    """Return a run's model as it is before training, the same whenever it is asked for.

    Files do not hold the seeds of dropout layers: they come from the run's seed.
    """
    with repeatable(run.fact("seed")):
        return run.model(run.state / INITIAL)


def first_record(
    config: RunConfig, data: PreparedData, model: keras.Model, command: str = ""
) -> dict[str, Any]:
    """Return what a run's record says from the start: what is done with what."""
    named = {"train": data.splits.train, "val": data.splits.val, "test": data.splits.test}
    parts = {name: part for name, part in named.items() if part is not None}
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    modality = data.splits.train.modality
    return {
        "state": "incomplete",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "tl_keras": tl_keras.__version__,
        "versions": {**versions, "python": platform.python_version()},
        "command": command,
        "config": config.to_dict(),
        "seed": config.run.seed,
        "data": {
            "root": data.splits.train.root,
            "task": config.data.task,
            "modality": modality.name,
            "reading": modality.settings,
            "notes": data.notes,
            "fingerprint": data.fingerprint,
            "pictures": {name: len(part) for name, part in parts.items()},
            "counts": {name: part.counts() for name, part in parts.items()},
            "left_out": data.left_out,
            "duplicates": data.duplicates,
        },
        "classes": list(data.splits.train.class_names),
        "base": config.model.backbone,
        "weights": config.model.weights,
        **modality.facts(modality.specs(model)),
        "features": feature_point(model).layer,
        "feature_map": len(feature_point(model).shape) == 4,
        "requires": required_packages(model),
        "adaptation": describe_branches(model),
        "head": {
            "pooling": config.model.pooling,
            "dense": list(config.model.dense),
            "dropout": config.model.dropout,
        },
        "timings": {"check": round(data.seconds, 2)},
    }


@contextlib.contextmanager
def guard(run: RunDirectory | None = None, model: keras.Model | None = None) -> Iterator[None]:
    """Say of work that cannot go on what its user can do.

    Args:
        run: What is trained into; None for work that can only be repeated.
        model: What is trained. If its weights are no numbers any more, the last good ones are
            kept in the run, which then cannot be resumed.

    Raises:
        TrainingError: The weights are not numbers any more.
        RunError: The memory is too small.
        StorageError: The disk is full.
        DataError: A sample can no longer be read.
    """
    try:
        with name_small_memory(), name_full_disk(run.path if run else Path()):
            yield
            if model is not None and not _finite(model):
                raise TrainingError("the weights are not numbers after training")
    except TrainingError as error:
        way = f"{str(error).split(' Try a ')[0].rstrip('.')}. {_gentler(run)}"
        if run is None or model is None:
            raise TrainingError(way) from error
        # An epoch whose weights went bad at its end may have been kept as the best so far.
        kept = run.path / "last_good.keras"
        save_model(model if _finite(model) else run.model(run.state / INITIAL), kept)
        run.update(stopped=way)
        shutil.rmtree(run.state, ignore_errors=True)
        raise TrainingError(f"{way}. The last good weights are in {kept}") from error
    except DataError as error:
        reason = getattr(error, "reason", "")
        if not reason or run is None or not run.state.exists():
            raise
        raise DataError(f"{error.path}: {reason}; put it back and resume the run") from error  # type: ignore[attr-defined]


def _finite(model: keras.Model) -> bool:
    return all(bool(np.isfinite(weight).all()) for weight in model.get_weights())


def _gentler(run: RunDirectory | None) -> str:
    scale = run.config.plan.lr_scale if run else 1.0
    lower = 1.0 if scale > 1 else scale / 10
    return (
        f"Start a new run with --lr-scale {lower:g}, which is a factor on the plan's learning "
        "rates, or find one with tl-keras lr-find"
    )


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model without its optimizer, whole or not at all.

    Raises:
        StorageError: The disk is full.
    """
    with atomic_path(path) as made:
        model.save(made, include_optimizer=False)


def record_training(run: RunDirectory, result: FitResult, seconds: Mapping[str, float]) -> None:
    """Write what a fit told to a run's record and its history.

    Args:
        run: The run.
        result: What the fit told.
        seconds: What its parts took, for the record's timings.
    """
    engine = result.engine
    run.write_history(result.history)
    run.update(
        stages=result.stages,
        best_stage=result.best_stage,
        precision={"chosen": engine.name, "reason": engine.reason} if engine else {},
        timings=run.record["timings"] | {name: round(s, 2) for name, s in seconds.items()},
    )


def finish(
    run: RunDirectory,
    model: keras.Model,
    data: Splits,
    history: list[dict[str, Any]],
    progress: Progress,
    more_plots: Mapping[str, Path] | None = None,
    out_of_fold: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Save the model, score it on validation and test, draw, report; the run is complete then.

    Temperature and thresholds are found on the validation split, or out of fold, and applied to
    all.

    Args:
        run: The run; its record gets `metrics`, `temperature` and, for tags, `thresholds`.
        model: The trained model; branches are merged, and kept in a file of their own.
        data: Its samples.
        history: A row an epoch.
        progress: Called with a task's name, what is done and of how much.
        more_plots: Figures for the report, by name.
        out_of_fold: Rows of training samples and what models that had not seen them said of them,
            see :class:`tl_keras.training.config.FitResult`.
    """
    model = merge_and_save(model, run.path / "adapter.npz")
    save_model(model, run.path / "model.keras")
    began, history = time.perf_counter(), _marked(run, history)
    parts = {"val": data.val} if data.test is None else {"test": data.test, "val": data.val}
    if data.test is None and not len(data.val) and out_of_fold is None:
        parts = {"train": data.train}  # better than nothing, and named so
    outputs = {
        name: predict(model, part, progress=functools.partial(progress, f"scores, {name}"))
        for name, part in parts.items()
        if len(part)
    }
    if out_of_fold is not None:
        parts["out_of_fold"], outputs["out_of_fold"] = keep_out_of_fold(run, data, *out_of_fold)
    temperature, thresholds = None, None
    held = next((name for name in ("out_of_fold", "val") if name in outputs), None)
    if held is not None:
        labels = parts[held].labels
        temperature = data.train.kind.fit_temperature(outputs[held], labels)
        thresholds = data.train.kind.fit_thresholds(outputs[held], labels)
    metrics = {
        name: score(values, parts[name], run.record["seed"], temperature, thresholds)
        for name, values in outputs.items()
    }
    run.update(metrics=metrics, temperature=temperature)
    if thresholds is not None:
        run.update(thresholds=thresholds)
    main = next(name for name in ("test", "val", "out_of_fold", "train") if name in outputs)
    plots, mistakes = draw(
        run.path / "plots", history, outputs[main], parts[main], metrics[main], temperature
    )
    explain = EXPLAINERS.get(parts[main].modality.name)
    mistakes = explain(model, parts[main], mistakes) if explain else mistakes
    timings = {**run.record["timings"], "scores and plots": round(time.perf_counter() - began, 2)}
    timings.pop("total", None)
    run.update(timings={**timings, "total": round(sum(timings.values()), 2)})
    _write_report(run, history, {**plots, **(more_plots or {})}, mistakes)
    run.finish()


OUT_OF_FOLD = "out_of_fold.npz"
EXPLAINERS: dict[str, Callable[..., list[Mistake]]] = {"image": add_heatmaps, "text": add_words}
"""By modality, what shows which part of a sample a mistake rests on."""


def keep_out_of_fold(
    run: RunDirectory, data: Splits, rows: np.ndarray, outputs: np.ndarray
) -> tuple[Samples, np.ndarray]:
    """Write what was said out of fold to a run, and return the samples and what was said of them.

    The file holds `rows` int64 (m,), places in the training split, and `outputs` float32
    (m, outputs).
    """
    order = np.argsort(rows)
    with atomic_path(run.path / OUT_OF_FOLD) as made, open(made, "wb") as handle:
        np.savez(handle, rows=rows[order], outputs=outputs[order])
    return data.train.take(rows[order]), outputs[order]


def _marked(run: RunDirectory, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say in the history which epoch's weights the model has."""
    best = str(run.record.get("best_stage")).split(" + ")
    kept = [(s["name"], s.get("best_epoch")) for s in run.record["stages"] if s["name"] in best]
    return [{**row, "kept": (row["stage"], row["stage_epoch"]) in kept} for row in history]


def score(
    outputs: np.ndarray,
    samples: Samples,
    seed: int,
    temperature: float | None,
    thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the scores of a model's outputs for samples, see `tl_keras.evaluate`."""
    return tasks.evaluate(
        outputs, samples.labels, samples.class_names, task=samples.kind.name, seed=seed,
        temperature=temperature, thresholds=thresholds,
    )  # fmt: skip


def draw(
    folder: Path,
    history: list[dict[str, Any]],
    outputs: np.ndarray,
    samples: Samples,
    metrics: dict[str, Any],
    temperature: float | None,
) -> tuple[dict[str, Path], list[Mistake]]:
    """Draw what there is to see; return the images by name, and the worst mistakes.

    Args:
        folder: Where to write.
        history: A row an epoch; empty leaves the curves out.
        outputs: float32 (n, outputs).
        samples: What was predicted.
        metrics: From :func:`score`.
        temperature: See `tl_keras.evaluation.calibration`.
    """
    from tl_keras.evaluation.mistakes import collect_mistakes
    from tl_keras.reports.figures import draw_figures, plot_curves

    plots: dict[str, Path] = {}
    if history:
        plots["curves"] = plot_curves(history, folder / "curves.png")
    names, labels, mistakes = samples.class_names, samples.labels, []
    if "mistakes" in samples.kind.figures:
        show = samples.modality.thumbnail
        mistakes = collect_mistakes(samples.items, show, outputs, labels, names)
    evidence = {
        "outputs": outputs, "targets": labels, "class_names": names, "metrics": metrics,
        "temperature": temperature, "mistakes": mistakes,
    }  # fmt: skip
    return {**plots, **draw_figures(samples.kind.figures, folder, evidence)}, mistakes


def _write_report(
    run: RunDirectory,
    history: list[dict[str, Any]],
    plots: dict[str, Path],
    mistakes: list[Mistake],
) -> None:
    from tl_keras.reports.run_report import write_report

    # The report is written before the record says so: it describes a run that is complete.
    write_report(
        run.path / "report.html",
        run={**run.record, "state": "complete"},
        history=history,
        evaluations=run.record["metrics"],
        plots=plots,
        mistakes=mistakes,
        previews={
            key: run.path / place
            for key, place in (run.record.get("data_quality") or {}).get("previews", {}).items()
        },
    )
