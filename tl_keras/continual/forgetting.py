"""What a model that learns one task after another keeps, forgets and gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.errors import DataError

__all__ = ["transfer"]


def transfer(
    accuracy: Sequence[Sequence[float]], start: Sequence[float] | None = None
) -> dict[str, float | None]:
    """Summarise the accuracies of a model on its tasks after each of them.

    With R[i][j] the accuracy on task j after task i was learnt, and T tasks:
    average = mean over j of R[T-1][j]; backward = mean over j < T-1 of R[T-1][j] - R[j][j]
    and forward = mean over j > 0 of R[j-1][j] - start[j] (Lopez-Paz and Ranzato,
    arXiv 1706.08840); forgetting = mean over j < T-1 of max over i < T-1 of R[i][j] - R[T-1][j]
    (Chaudhry et al., arXiv 1801.10112).

    Args:
        accuracy: R, (T, T), values in 0..1; NaN where it is unknown.
        start: Accuracy of a model that has learnt nothing on each task, (T,); without it
            there is no forward transfer.

    Returns:
        "average", "forgetting", "backward", "forward"; None where there is nothing to say.

    Raises:
        DataError: The shapes are not as above.
    """
    matrix = np.array(accuracy, np.float64)
    tasks = len(matrix)
    if matrix.shape != (tasks, tasks) or not tasks:
        raise DataError(f"got accuracies of shape {matrix.shape}; expected one row a task, square")
    last, old = matrix[-1], np.arange(tasks - 1)
    best: list[float] = [np.nanmax(matrix[:-1, j], initial=-np.inf) for j in old]
    begin = np.full(tasks, np.nan) if start is None else np.array(start, np.float64)
    if begin.shape != (tasks,):
        raise DataError(f"got {len(begin)} accuracies at the start; expected {tasks}")
    return {
        "average": _mean(last),
        "forgetting": _mean(np.where(np.isfinite(best), best, np.nan) - last[:-1]),
        "backward": _mean(last[:-1] - matrix[old, old]),
        "forward": _mean(matrix[old, old + 1] - begin[1:]),
    }


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
