"""What a model is asked for: one class, several tags, numbers. Each task is one object here.

A new task is a subclass of :class:`tl_keras.tasks.base.Task` in a file of its own and a name in
`_BUILTIN`, or :func:`register` from anywhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.tasks.base import Task

__all__ = ["Task", "evaluate", "get", "names", "register"]

_BUILTIN = {
    "classes": "tl_keras.tasks.classification:Multiclass",
    "tags": "tl_keras.tasks.classification:Multilabel",
    "values": "tl_keras.tasks.regression:Regression",
}
_REGISTERED: dict[str, Task] = {}


def names() -> list[str]:
    """Return the names of all tasks, those of the package first."""
    return [*_BUILTIN, *(name for name in _REGISTERED if name not in _BUILTIN)]


def get(name: str) -> Task:
    """Return a task by its name.

    Raises:
        DataError: There is none of that name.
    """
    if name not in _REGISTERED:
        if name not in _BUILTIN:
            raise DataError(f"unknown task {name!r}; expected one of {', '.join(names())}")
        module, _, kind = _BUILTIN[name].partition(":")
        _REGISTERED[name] = getattr(importlib.import_module(module), kind)()
    return _REGISTERED[name]


def register(task: Task) -> Task:
    """Add a task under its own name, and return it."""
    _REGISTERED[task.name] = task
    return task


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    task: str = "classes",
    seed: int = 0,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Return every figure for one split, as plain numbers, strings and lists.

    What figures there are depends on the task, see `evaluate` of
    :class:`tl_keras.tasks.classification.Multiclass`,
    :class:`~tl_keras.tasks.classification.Multilabel` and
    :class:`~tl_keras.tasks.regression.Regression`.

    Args:
        probabilities: (n, outputs): softmax rows, sigmoid columns, or values.
        labels: int (n,) class indices; (n, outputs) of 0/1 for tags, of numbers for values.
        class_names: One name an output, in output order.
        task: "classes", "tags" or "values".
        seed: Of the bootstrap.
        temperature: From `fit_temperature` on another split; "classes" only.

    Raises:
        DataError: Shapes, ranges, names or the task do not fit.
    """
    return get(task).evaluate(
        probabilities, labels, class_names, seed=seed, temperature=temperature
    )
