"""Looks for what harms in a data set: reads it, computes features, examines them, writes a page."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.data_quality import Quality, examine
from tl_keras.analysis.weak_groups import group_by_value
from tl_keras.data.samples import Samples
from tl_keras.data.sources import load_samples
from tl_keras.errors import DataError
from tl_keras.features.backends import Batch
from tl_keras.features.extract import collect, open_backend
from tl_keras.features.places import candidate_places, feature_model
from tl_keras.modalities.base import in_order
from tl_keras.runs.config import RunConfig
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import usable
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["Description", "check_labels", "describe_samples", "hash_samples"]

_TASKS = ("classes", "tags", "values")
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class Description:
    """What a model and a look make of samples.

    Attributes:
        views: features float32 (n, d): plain and, of images, mirrored.
        brightness: float64 (n,), mean of the pixels, 0..255; NaN where there are none.
    """

    views: tuple[np.ndarray, ...]
    brightness: np.ndarray


@guard()
def check_labels(config: RunConfig, page: Path | None, progress: Progress = silent) -> Quality:
    """Find likely wrong labels, copies, outliers, hard classes and weak groups, and show them.

    Args:
        config: data, backbone, size, weights and seed.
        page: the HTML file to write, see `tl_keras.reports.data_report`; None for none. An older
            page of this kind is replaced, anything else is left alone.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    from tl_keras.reports.data_report import require_replaceable, write_data_report

    if config.data.task not in _TASKS:
        raise DataError(
            f"got task '{config.data.task}'; labels can be checked of {', '.join(_TASKS)}"
        )
    if page:
        require_replaceable(page, config.data.source)
    samples = load_samples(config.data.source, task=config.data.task, modality=config.data.modality)
    if len(samples) < _FEWEST:
        raise DataError(
            f"{config.data.source} holds {len(samples)} {samples.modality.noun}s; labels can be "
            f"checked of {_FEWEST} or more"
        )
    start_tensorflow()
    # Not at the top: workflows.probe is not needed for a plain check.
    from tl_keras.workflows.probe import open_backbone

    model = open_backbone(config)
    samples = usable(samples, config.data.skip_bad, progress)
    found = describe_samples(model, samples, config.run.precision, progress)
    hashes = hash_samples(samples, progress)
    about = {
        "brightness": group_by_value(found.brightness, ("the darkest quarter", "the brightest")),
        "size": group_by_value(_sides(samples), ("the smallest quarter", "the largest")),
    }
    quality = examine(samples, found.views, hashes, about, config.run.seed)
    if page:
        write_data_report(page, config.data.source, quality, config.model.backbone)
    return quality


def describe_samples(
    model: keras.Model, samples: Samples, precision: str = "auto", progress: Progress = silent
) -> Description:
    """Compute pooled features where a backbone ends; of images also those of the mirror image.

    Args:
        model: A backbone, see `tl_keras.workflows.probe.open_backbone`.
        samples: What to describe.
        precision: See :func:`tl_keras.features.extract.open_backend`.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        DataError: A sample cannot be read.
        ModelError: The model takes something else.
    """
    prefix = feature_model(model, candidate_places(model)[-1])
    reader = samples.reader(prefix)
    engine, predict = open_backend(prefix, reader, precision)

    def described(batch: Batch) -> list[np.ndarray]:
        plain = predict(batch)[0]
        if samples.modality.name != "image" or not isinstance(batch, Mapping):
            return [plain, np.full(len(plain), np.nan)]
        mirrored = {name: values[:, :, ::-1] for name, values in batch.items()}
        (image,) = batch.values()
        return [plain, image.mean((1, 2, 3), dtype=np.float64), predict(mirrored)[0]]

    told = functools.partial(progress, f"features ({engine.name})")
    plain, brightness, *mirrored = collect(described, reader, progress=told)
    return Description((plain, *mirrored), brightness)


def hash_samples(samples: Samples, progress: Progress = silent) -> list[np.ndarray | None]:
    """Return the perceptual hash of each sample, None where there is none."""
    kind, items, found = samples.modality, samples.items, []
    work = in_order(lambda i: kind.perceptual_hash(items[i]), len(samples), os.cpu_count() or 1)
    for made in work:
        found.append(made)
        progress("search for copies", len(found), len(samples))
    return found


def _sides(samples: Samples) -> np.ndarray:
    """The shorter side of each image in pixels, from its header; NaN where that says nothing."""
    if samples.modality.name != "image":
        return np.full(len(samples), np.nan)
    return np.array([_side(item) for item in samples.items])


def _side(item: Any) -> float:
    from PIL import Image

    if isinstance(item, np.ndarray):
        return float(min(item.shape[:2]))
    try:
        with Image.open(item) as image:
            return float(min(image.size))
    except (OSError, ValueError):
        return float("nan")


