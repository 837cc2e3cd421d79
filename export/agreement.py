"""The gate: how a file answers on validation pictures, beside the model that it was made from."""

from __future__ import annotations

import os

import numpy as np

from export.runtime.runtimes import Runtime, load
from export.source import Source
from export.variant import Verdict
from tl_keras.errors import ExportError
from tl_keras.utils.progress import Progress
from tl_keras.utils.stats import wilson

__all__ = ["NEAR", "answers", "gate", "same_labels", "verdict"]

_BATCH = 16
NEAR = 0.05
"""For task "values": two answers agree that differ by at most this share of their spread."""


def gate(
    path: str | os.PathLike[str], source: Source, truth: np.ndarray, progress: Progress
) -> Verdict:
    """Run a file in its own runtime on all pictures of a source.

    Args:
        path: of the .tflite or .onnx file.
        source: the model's pictures and labels.
        truth: float32 (pictures, outputs), what Keras answers.
        progress: told (what is being done, pictures done, of how many).

    Raises:
        ExportError: if the file cannot be loaded or answers in another shape.
    """
    given = answers(load(path), source.pictures, progress, os.path.basename(path))
    return verdict(truth, given, source)


def answers(runtime: Runtime, pictures: np.ndarray, progress: Progress, name: str) -> np.ndarray:
    """Ask a runtime for all pictures.

    Args:
        runtime: what answers.
        pictures: (n, height, width, 3), RGB 0..255.
        progress: told after each batch.
        name: what to call it there.

    Returns:
        float32 (n, outputs).
    """
    total, given = len(pictures), []
    for start in range(0, total, _BATCH):
        progress(f"asking {name}", start, total)
        given.append(runtime.predict(pictures[start : start + _BATCH]))
    progress(f"asking {name}", total, total)
    return np.concatenate(given)


def verdict(truth: np.ndarray, given: np.ndarray, source: Source) -> Verdict:
    """Compare answers.

    Where labels are known, accuracy is the share of pictures whose label ("classes") or whose
    tags altogether ("tags") are right, with Wilson's interval at 95 %. Numbers ("values") have
    no accuracy: what counts is how many agree with Keras.

    Args:
        truth: (n, outputs), what Keras answers.
        given: (n, outputs), what the file answers.
        source: its labels, class names and task.

    Raises:
        ExportError: if the shapes differ.
    """
    if truth.shape != given.shape or not len(truth):
        raise ExportError(
            f"Keras answers with shape {truth.shape}, the file with {given.shape}; expected the "
            "same (pictures, outputs), and at least one picture."
        )
    difference = np.abs(truth.astype(np.float64) - given.astype(np.float64))
    right = _right(given, source)
    before = _right(truth, source)
    low, high = (None, None) if right is None else wilson(right.sum(), len(right))
    return Verdict(
        pictures=len(truth),
        accuracy=None if right is None else float(right.mean()),
        low=low,
        high=high,
        source_accuracy=None if before is None else float(before.mean()),
        agreement=float(same_labels(truth, given, source.task).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        per_class_drop=_per_class_drop(truth, given, source),
    )


def same_labels(truth: np.ndarray, given: np.ndarray, task: str) -> np.ndarray:
    """Tell for which pictures two answers mean the same.

    Args:
        truth: (n, outputs).
        given: (n, outputs).
        task: "classes" (the same largest output), "tags" (the same outputs of at least 0.5) or
            "values" (no output further away than `NEAR` times its spread over the pictures).

    Returns:
        bool (n,); False where an answer is NaN.
    """
    finite = np.isfinite(given).all(axis=1)
    if task == "classes":
        return finite & (truth.argmax(axis=1) == given.argmax(axis=1))
    if task == "tags":
        return finite & ((truth >= 0.5) == (given >= 0.5)).all(axis=1)
    spread = np.maximum(truth.std(axis=0), 1e-6)
    return finite & (np.abs(truth - given) <= NEAR * spread).all(axis=1)


def _right(given: np.ndarray, source: Source) -> np.ndarray | None:
    if source.labels is None or source.task == "values":
        return None
    if source.task == "classes":
        right = given.argmax(axis=1) == source.labels
    else:
        right = ((given >= 0.5) == (source.labels >= 0.5)).all(axis=1)
    return right & np.isfinite(given).all(axis=1)


def _per_class_drop(truth: np.ndarray, given: np.ndarray, source: Source) -> dict[str, float]:
    if source.labels is None or source.task == "values":
        return {}
    drops = {}
    for index, name in enumerate(source.class_names):
        before, after = (_recalled(one, source, index) for one in (truth, given))
        if len(before):
            drops[name] = float(before.mean() - after.mean())
    return drops


def _recalled(given: np.ndarray, source: Source, index: int) -> np.ndarray:
    """Among the pictures of a class or tag, which are recognised."""
    labels = np.asarray(source.labels)
    if source.task == "classes":
        return given[labels == index].argmax(axis=1) == index
    return given[labels[:, index] >= 0.5, index] >= 0.5
