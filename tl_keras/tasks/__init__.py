"""What a model is asked for: one class, several tags, numbers. Each task is one object here.

A new task is a subclass of :class:`tl_keras.tasks.base.Task` in a file of its own and a name in
`TASKS`, or :func:`register` from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_keras.tasks.base import Task
from tl_keras.utils.registry import Registry

__all__ = ["TASKS", "Task", "evaluate", "get", "names", "register"]

TASKS: Registry[Task] = Registry(
    "task",
    {
        "classes": "tl_keras.tasks.classification:Multiclass",
        "tags": "tl_keras.tasks.classification:Multilabel",
        "values": "tl_keras.tasks.regression:Regression",
    },
)
get, names, register = TASKS.get, TASKS.names, TASKS.register


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    task: str = "classes",
    seed: int = 0,
    temperature: float | None = None,
    thresholds: Sequence[float] | None = None,
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
        thresholds: From `fit_thresholds` of the task on other samples; "tags" only.

    Raises:
        DataError: Shapes, ranges, names or the task do not fit.
    """
    more = {} if thresholds is None else {"thresholds": thresholds}
    return get(task).evaluate(
        probabilities, labels, class_names, seed=seed, temperature=temperature, **more
    )
