"""Figures for predictions: how good, and how sure one can be of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    negative_log_likelihood,
)
from tl_keras.evaluation.resampling import error_figures, macro_auroc, ranking_figures
from tl_keras.evaluation.thresholds import checked_thresholds
from tl_keras.evaluation.validation import (
    checked_classes,
    checked_names,
    checked_tags,
    checked_values,
)
from tl_keras.utils.stats import bootstrap, wilson

__all__ = [
    "confusion_matrix", "evaluate_classes", "evaluate_tags", "evaluate_values", "worst_mistakes",
]  # fmt: skip

_TOP = (3, 5)


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was taken for each other.

    Args:
        predicted: int (n,), predicted class indices.
        labels: int (n,), true class indices.
        classes: how many there are.

    Returns:
        int64 (classes, classes), rows are the true class.
    """
    cells = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, n: int = 16) -> np.ndarray:
    """The images the model got wrong and was most sure of.

    Args:
        probabilities: (m, classes), rows sum to 1.
        labels: int (m,), true class indices.
        n: at most how many.

    Returns:
        int64 (<= n,) indices of wrong predictions only, highest confidence first.

    Raises:
        DataError: shapes or ranges do not fit.
    """
    probabilities, labels = checked_classes(probabilities, labels)
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")
    return wrong[order][: max(0, n)]


def evaluate_classes(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    seed: int = 0,
    temperature: float | None = None,
) -> dict:
    """Return the figures of a classifier.

    count, accuracy, balanced_accuracy, macro_f1 (each {value, low, high, method}: bootstrap 95 %
    intervals, 2000 resamples), top_k ({"3": ..., "5": ...} where there are more classes than
    that), auroc (mean of each class against all others; None where one class occurs alone), nll
    (nats), ece (15 bins), per_class (name, precision, recall, f1, support, and low,
    high: Wilson's 95 % interval of the recall), confusion (counts, rows are the true class);
    with a temperature also temperature, nll_calibrated and ece_calibrated.

    Args:
        probabilities: (n, classes), rows sum to 1.
        labels: int (n,), class indices.
        class_names: One name a class.
        seed: Of the bootstrap.
        temperature: Fitted on another split; None leaves calibration out.

    Raises:
        DataError: Shapes, ranges or names do not fit.
    """
    probabilities, labels = checked_classes(probabilities, labels)
    names = checked_names(class_names, probabilities.shape[1])
    confusion = confusion_matrix(probabilities.argmax(1), labels, len(names))
    return {
        "count": len(labels),
        **bootstrap(confusion, seed),
        "top_k": _top_k(probabilities, labels),
        "auroc": macro_auroc(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        **_calibrated(probabilities, labels, temperature),
        "per_class": _per_class(confusion, names),
        "confusion": confusion.tolist(),
    }


def _top_k(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Ties go to the lower index, as argmax has it, so that top 1 is the accuracy."""
    true = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1])[None] < labels[:, None]
    rank = ((probabilities > true) | ((probabilities == true) & earlier)).sum(1)
    return {str(k): float((rank < k).mean()) for k in _TOP if probabilities.shape[1] > k}


def _calibrated(
    probabilities: np.ndarray, labels: np.ndarray, temperature: float | None
) -> dict[str, float]:
    if temperature is None:
        return {}
    if not (np.isfinite(temperature) and temperature > 0):
        raise DataError(f"temperature is {temperature}; expected a number above 0.")
    scaled = apply_temperature(probabilities, temperature)
    return {
        "temperature": float(temperature),
        "nll_calibrated": negative_log_likelihood(scaled, labels),
        "ece_calibrated": expected_calibration_error(scaled, labels),
    }


def _per_class(confusion: np.ndarray, names: list[str]) -> list[dict]:
    hits, support, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    rows = []
    for name, hit, true, guessed in zip(names, hits, support, predicted, strict=True):
        low, high = wilson(int(hit), int(true))
        rows.append({
            "name": name,
            "precision": float(hit / max(guessed, 1)),
            "recall": float(hit / max(true, 1)),
            "f1": float(2 * hit / max(true + guessed, 1)),
            "support": int(true),
            "low": low,
            "high": high,
        })
    return rows


def evaluate_tags(
    probabilities: np.ndarray,
    labels: np.ndarray,
    tag_names: Sequence[str],
    seed: int = 0,
    thresholds: Sequence[float] | None = None,
) -> dict:
    """Return the figures of a tagger.

    count, mean_average_precision (over the tags that occur) and auroc (over those that also
    lack somewhere), each {value, low, high, method} with a 95 % interval or None, micro_f1,
    macro_f1, exact_match, per_tag (name, average_precision and auroc with their _low and _high,
    threshold, f1, support).

    Args:
        probabilities: (n, tags), each 0..1.
        labels: (n, tags), each 0 or 1.
        tag_names: One name a tag.
        seed: Of the bootstrap.
        thresholds: From which each tag counts as given, chosen on other samples, see
            :func:`tl_keras.evaluation.thresholds.fit_thresholds`; None is 0.5 for all.

    Raises:
        DataError: Shapes, ranges or names do not fit.
    """
    probabilities, labels = checked_tags(probabilities, labels)
    names = checked_names(tag_names, labels.shape[1])
    starts = checked_thresholds(thresholds, len(names))
    guessed = probabilities >= starts
    figures, ranks = ranking_figures(probabilities, labels, seed)
    per_tag = [
        {
            "name": name,
            **ranks[k],
            "threshold": float(starts[k]),
            "f1": _f1(guessed[:, k], labels[:, k]),
            "support": int(labels[:, k].sum()),
        }
        for k, name in enumerate(names)
    ]
    return {
        "count": len(labels),
        **figures,
        "micro_f1": _f1(guessed, labels),
        "macro_f1": float(np.mean([t["f1"] for t in per_tag])),
        "exact_match": float((guessed == labels).all(1).mean()),
        "per_tag": per_tag,
    }


def _f1(guessed: np.ndarray, labels: np.ndarray) -> float:
    hits = (guessed & (labels == 1)).sum()
    return float(2 * hits / max(guessed.sum() + labels.sum(), 1))


def evaluate_values(
    predictions: np.ndarray, labels: np.ndarray, output_names: Sequence[str], seed: int = 0
) -> dict:
    """Return the figures of a regression.

    count, mae, rmse, r2 (mean over outputs), each {value, low, high, method} with a 95 % interval,
    r2 None where undefined, per_output (name, mae, rmse, r2), in the units of the labels.

    Args:
        predictions: (n, outputs).
        labels: (n, outputs).
        output_names: One name an output.
        seed: Of the bootstrap.

    Raises:
        DataError: Shapes or names do not fit.
    """
    predictions, labels = checked_values(predictions, labels)
    names = checked_names(output_names, labels.shape[1])
    per_output = [
        {"name": name, **_errors(predictions[:, k], labels[:, k])}
        for k, name in enumerate(names)
    ]
    figures = error_figures(predictions, labels, seed)
    return {"count": len(labels), **figures, "per_output": per_output}


def _errors(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    squared = (predictions - labels) ** 2
    spread = ((labels - labels.mean()) ** 2).sum()
    return {
        "mae": float(np.abs(predictions - labels).mean()),
        "rmse": float(np.sqrt(squared.mean())),
        "r2": float(1 - squared.sum() / spread) if spread > 0 else None,
    }
