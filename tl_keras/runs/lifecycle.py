"""What ends a run: its scores, plots and report."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.features.predict import predict
from tl_keras.runs.directory import RunDirectory
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

    from tl_keras.evaluation.mistakes import Mistake

__all__ = ["close_run", "draw", "score"]

# What a task shows of its results: names in `tl_keras.reports.figures.FIGURES`.

def close_run(
    run: RunDirectory,
    model: keras.Model,
    data: Splits,
    history: list[dict[str, Any]],
    progress: Progress,
    more_plots: Mapping[str, Path] | None = None,
) -> None:
    """Score the model on validation and test, draw, report, and mark the run complete.

    The temperature is found on the validation split and applied to both.

    Args:
        run: The run; its record gets `metrics` and `temperature`.
        model: The trained model.
        data: Its samples.
        history: A row an epoch.
        progress: Called with a task's name, what is done and of how much.
        more_plots: Pictures for the report, by name.
    """
    began, history = time.perf_counter(), _marked(run, history)
    parts = {"val": data.val} if data.test is None else {"val": data.val, "test": data.test}
    outputs = {
        name: predict(model, part, progress=functools.partial(progress, f"scores, {name}"))
        for name, part in parts.items()
        if len(part)
    }
    temperature = None
    if "val" in outputs:
        temperature = data.train.kind.fit_temperature(outputs["val"], data.val.labels)
    metrics = {
        name: score(values, parts[name], run.record["seed"], temperature)
        for name, values in outputs.items()
    }
    run.update(metrics=metrics, temperature=temperature)
    main = "test" if "test" in outputs else "val"
    plots, mistakes = draw(
        run.path / "plots", history, outputs[main], parts[main], metrics[main], temperature
    )
    timings = {**run.record["timings"], "scores and plots": round(time.perf_counter() - began, 2)}
    timings.pop("total", None)
    run.update(timings={**timings, "total": round(sum(timings.values()), 2)})
    _write_report(run, history, {**plots, **(more_plots or {})}, mistakes)
    run.finish()


def _marked(run: RunDirectory, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say in the history which epoch's weights the model has."""
    best = str(run.record.get("best_stage")).split(" + ")
    kept = [(s["name"], s.get("best_epoch")) for s in run.record["stages"] if s["name"] in best]
    return [{**row, "kept": (row["stage"], row["stage_epoch"]) in kept} for row in history]


def score(
    outputs: np.ndarray, samples: Samples, seed: int, temperature: float | None
) -> dict[str, Any]:
    """Return the scores of a model's outputs for samples, see `tl_keras.evaluate`."""
    return samples.kind.evaluate(
        outputs, samples.labels, samples.class_names, seed=seed, temperature=temperature
    )


def draw(
    folder: Path,
    history: list[dict[str, Any]],
    outputs: np.ndarray,
    samples: Samples,
    metrics: dict[str, Any],
    temperature: float | None,
) -> tuple[dict[str, Path], list[Mistake]]:
    """Draw what there is to see; return the pictures by name, and the worst mistakes.

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
    )
