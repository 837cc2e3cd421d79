"""Predictions and labels that do not fit together are named before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tl_keras.errors import DataError

__all__ = ["checked_classes", "checked_names", "checked_tags", "checked_values"]

_SUM_TOLERANCE = 0.1  # int8 outputs come in steps of 1/256 and need not sum to 1


def checked_classes(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of one class an image, and the true classes.

    Args:
        probabilities: (n, classes), 0..1, rows sum to 1 (within 0.1: rounded int8 outputs).
        labels: whole numbers (n,), 0..classes-1.

    Returns:
        float64 (n, classes) with rows that sum to 1 exactly, and int64 (n,).

    Raises:
        DataError: shapes, ranges or counts do not fit.
    """
    probabilities, labels = _numbers(probabilities, "probabilities", 2), np.asarray(labels)
    _same_length(probabilities, labels)
    if labels.ndim != 1 or not (np.asarray(labels, np.float64) % 1 == 0).all():
        raise DataError(
            f"labels have shape {labels.shape} and type {labels.dtype}; expected one class "
            "index a picture: shape (n,), whole numbers. One-hot rows: pass labels.argmax(1)."
        )
    classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but the predictions have "
            f"{classes} columns: expected 0 to {classes - 1}. Are they from the same data set?"
        )
    _check_range(probabilities)
    sums = probabilities.sum(1, keepdims=True)
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:
        raise DataError(
            f"a row of probabilities sums to {float(sums[np.abs(sums - 1).argmax()][0]):.3g}; "
            'expected 1. For several labels a picture use task="tags"; else apply softmax.'
        )
    return probabilities / sums, labels.astype(np.int64)


def checked_tags(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of several labels an image, and the truth.

    Args:
        probabilities: (n, tags), each 0..1.
        labels: (n, tags), each 0 or 1.

    Returns:
        float64 (n, tags) and int64 (n, tags).

    Raises:
        DataError: shapes or ranges do not fit.
    """
    probabilities, truth = _numbers(probabilities, "probabilities", 2), np.asarray(labels)
    _same_shape(probabilities, truth)
    _check_range(probabilities)
    if not np.isin(truth, (0, 1)).all():
        raise DataError(
            f"labels of tags hold {truth[~np.isin(truth, (0, 1))][0]!r}; expected only 0 and 1."
        )
    return probabilities, truth.astype(np.int64)


def checked_values(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted numbers and true numbers.

    Args:
        predictions: (n, outputs), or (n,) for one output.
        labels: the same shape.

    Returns:
        float64 (n, outputs), twice.

    Raises:
        DataError: shapes do not fit, or a number is not finite.
    """
    predictions, truth = _column(predictions), _column(labels)
    predictions = _numbers(predictions, "predictions", 2)
    truth = _numbers(truth, "labels", 2)
    _same_shape(predictions, truth)
    return predictions, truth


def checked_names(class_names: Iterable[object], outputs: int) -> list[str]:
    """Names as a list of the right length.

    Args:
        class_names: one name an output, in output order.
        outputs: how many the model has.

    Returns:
        The names.

    Raises:
        DataError: there are more or fewer names than outputs.
    """
    names = [str(name) for name in class_names]
    if len(names) != outputs:
        raise DataError(
            f"{len(names)} class names for {outputs} outputs; expected one name an output, "
            "in output order (labels.txt of the run)."
        )
    return names


def _column(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return array[:, None] if array.ndim == 1 else array


def _numbers(array: np.ndarray, name: str, axes: int) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim != axes or array.shape[0] == 0 or array.shape[1] == 0:
        raise DataError(
            f"{name} have shape {array.shape}; expected (pictures, outputs), at least one each."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(1))
        raise DataError(
            f"{name} of {len(rows)} of {len(array)} pictures (first: row {rows[0]}) are not "
            "finite numbers. Did training end in NaN? Try a lower rate."
        )
    return array


def _same_length(predictions: np.ndarray, labels: np.ndarray) -> None:
    if labels.ndim == 0 or len(labels) != len(predictions):
        got = "a single number" if labels.ndim == 0 else f"{len(labels)} labels"
        raise DataError(f"{len(predictions)} predictions but {got}: expected one label each.")


def _same_shape(predictions: np.ndarray, labels: np.ndarray) -> None:
    if predictions.shape != labels.shape:
        raise DataError(
            f"predictions have shape {predictions.shape}, labels {labels.shape}; expected the "
            "same: one column an output."
        )


def _check_range(probabilities: np.ndarray) -> None:
    if probabilities.min() < -1e-6 or probabilities.max() > 1 + 1e-3:
        raise DataError(
            f"probabilities run from {probabilities.min():.3g} to {probabilities.max():.3g}; "
            "expected 0 to 1. Are they logits? Apply softmax (sigmoid for tags) first."
        )
