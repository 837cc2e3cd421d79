"""Compare the teacher, the student alone and the distilled student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.distill.students import Prepared
from export.distill.teacher import TeacherCache
from tl_keras import tasks
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.features.extract import predict
from tl_keras.models.logits import softmax
from tl_keras.runs.lifecycle import score
from tl_keras.training.model_selection import clearly_better

if TYPE_CHECKING:
    import keras

__all__ = ["choose_student", "compare_students", "score_models"]


def score_models(
    answers: TeacherCache, students: dict[str, keras.Model], splits: Splits, ready: Prepared
) -> dict[str, dict[str, Any]]:
    """Return accuracy with its interval and loss, by model ("teacher" first) and split."""
    parts = {"val": splits.val, "test": splits.test}
    found: dict[str, dict[str, Any]] = {name: {} for name in ("teacher", *students)}
    for split, part in parts.items():
        if part is None or not len(part):
            continue
        said = softmax(answers.logits(part))
        outputs = {"teacher": said} | {n: predict(m, part) for n, m in students.items()}
        for name, probabilities in outputs.items():
            figures = score(probabilities, part, ready.config.run.seed, None)
            found[name][split] = {key: figures[key] for key in ("accuracy", "nll", "count")}
    return found


def compare_students(students: dict[str, keras.Model], val: Samples) -> dict[str, Any]:
    """Return which student is handed on ("kept"), whether that is clear, and why in words."""
    if "alone" not in students:
        return {"kept": "distilled", "clear": None, "why": "The student alone was not trained."}
    if not len(val):
        return {
            "kept": "distilled",
            "clear": None,
            "why": "There are no validation samples to compare the students on.",
        }
    outputs = {name: predict(model, val) for name, model in students.items()}
    labels = val.kind.targets(val.labels, len(val.class_names))
    return choose_student(outputs["alone"], outputs["distilled"], labels)


def choose_student(alone: np.ndarray, distilled: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare two students by accuracy, and by the plain loss where that is equal.

    The difference is clear where it is more than one standard error of the paired difference,
    see :func:`tl_keras.training.model_selection.clearly_better`.

    Args:
        alone: Probabilities (n, classes) of the student alone.
        distilled: Those of the distilled student.
        labels: One-hot (n, classes).

    Returns:
        "kept" ("alone" or "distilled"), "clear" and "why".
    """
    wrong = [_wrong(outputs, labels) for outputs in (alone, distilled)]
    losses = [tasks.get("classes").sample_losses(outputs, labels) for outputs in (alone, distilled)]
    by_loss = wrong[0].mean() == wrong[1].mean()
    figures = losses if by_loss else wrong
    kept = "distilled" if figures[1].mean() <= figures[0].mean() else "alone"
    new, old = (figures[1], figures[0]) if kept == "distilled" else (figures[0], figures[1])
    clear = clearly_better(new, old)
    right = [f"{100 * (1 - each.mean()):.1f} %" for each in wrong]
    said = f"Distilled {right[1]}, alone {right[0]} of {len(labels)} validation samples"
    if by_loss:
        said += f"; loss {losses[1].mean():.3f} and {losses[0].mean():.3f}"
    how = "by more than one standard error" if clear else "by less than one standard error"
    names = {"distilled": "the distilled student", "alone": "the student alone"}
    return {"kept": kept, "clear": clear, "why": f"{said}: {names[kept]} is better, {how}."}


def _wrong(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (outputs.argmax(1) != labels.argmax(1)).astype(np.float64)
