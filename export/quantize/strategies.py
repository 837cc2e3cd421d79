"""The rungs of the ladder, in the order in which they are tried.

Each takes the workshop and the best settings so far, and yields settings to try with a note of
what it did in particular; one that has nothing to offer yields none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from export.quantize.equalize import bias_corrected, equalized, folded
from export.quantize.ranges import CLIPS, clip_ranges
from export.quantize.search import Rung, Settings, Workshop
from export.quantize.tools import TOOLS
from export.runtime.runtimes import load

__all__ = ["RUNGS", "by_error"]

_SHARES = (0.05, 0.1, 0.25)
_JUDGED = 16


def first_try(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Quantize with the first calibration pictures, the biases corrected for rounded weights."""
    notes = [f"{best.pictures} calibration pictures"] if best.pictures else []
    task, count = workshop.task, workshop.available(workshop.limits.calibration)
    if task.recipe.weights == "int8" and count:
        workshop.progress("correcting biases", 0, 1)
        model = folded(task.source.model)
        notes.append(f"{bias_corrected(model, workshop.pictures(count))} biases")
        best = replace(best, contents=task.convert(model))
    yield best, ", ".join(notes)


def more_calibration(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Take ranges from more pictures, if there are more."""
    count = workshop.available(workshop.limits.more)
    if workshop.task.recipe.calibrated and count > best.pictures:
        yield replace(best, pictures=count), f"{count} calibration pictures"


def range_clipping(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Leave rare, large values out of the ranges."""
    for clip in CLIPS[1:] if workshop.task.recipe.calibrated else ():
        yield replace(best, clip=clip), clip


def equalization(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Spread ranges evenly over the channels, and correct the biases for rounded weights."""
    task = workshop.task
    if task.recipe.weights != "int8" or not workshop.available(1):
        return
    workshop.progress("equalizing", 0, 1)
    pictures = workshop.pictures(workshop.limits.calibration)
    made = equalized(task.source.model, pictures)
    layers = bias_corrected(made.model, pictures)
    note = f"{made.pairs} pairs of layers, {layers} biases"
    note += f", {made.unbounded} ReLU6 became ReLU" if made.unbounded else ""
    yield replace(best, contents=task.convert(made.model), clip=CLIPS[0], keep=()), note


def float_layers(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Leave more and more of the layers in float whose rounding alone harms most."""
    if workshop.task.recipe.weights != "int8" or not workshop.available(1):
        return
    worst = by_error(workshop, best)
    counts = dict.fromkeys(max(1, round(share * len(worst))) for share in _SHARES)
    for count in counts:
        keep = tuple(worst[:count])
        yield replace(best, keep=keep), ", ".join(map(_short, keep))


def by_error(workshop: Workshop, settings: Settings) -> list[str]:
    """Order layers by the error of the outputs when one of them alone is rounded, worst first."""
    task, tool = workshop.task, TOOLS[workshop.task.recipe.format]
    pictures, path = workshop.pictures(_JUDGED), task.path.with_name(f"one-{task.path.name}")
    ranges = clip_ranges(workshop.seen(settings), settings.clip) if settings.pictures else None
    path.write_bytes(settings.contents)
    truth = load(path).predict(pictures)
    names, errors = tool.layers(settings.contents), {}
    for place, name in enumerate(names):
        workshop.progress("rounding one layer at a time", place, len(names))
        path.write_bytes(tool.quantize(settings.contents, task.recipe, ranges, only=name))
        errors[name] = float(np.abs(load(path).predict(pictures) - truth).mean())
    path.unlink()
    return sorted(names, key=lambda name: -errors[name])


def _short(name: str) -> str:
    """A layer's own name, without the model's and what was merged into it."""
    parts = name.split(";")[0].split("/")
    return parts[1] if len(parts) > 2 else parts[0]


def quantization_aware(workshop: Workshop, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Train a little with rounded weights and activations."""
    task = workshop.task
    ready = task.recipe.name == "int8" and task.recipe.format == "tflite"
    if not ready or not workshop.limits.train or task.source.data is None:
        return
    from export.compress.methods import quantization_aware_training

    made = quantization_aware_training(
        task.source.model, task.source.data, seed=workshop.limits.seed, progress=workshop.progress
    )
    yield replace(best, finished=made, pictures=0, keep=()), ""


RUNGS: tuple[tuple[str, Rung], ...] = (
    ("first try", first_try),
    ("more calibration", more_calibration),
    ("range clipping", range_clipping),
    ("equalization and bias correction", equalization),
    ("sensitive layers in float", float_layers),
    ("quantization-aware training", quantization_aware),
)
