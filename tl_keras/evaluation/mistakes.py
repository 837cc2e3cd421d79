"""The mistakes a model was most sure of, as images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.evaluation.metrics import worst_mistakes

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mistake", "collect_mistakes"]


@dataclass(frozen=True, eq=False)
class Mistake:
    """One wrong prediction.

    Attributes:
        preview: a small image, RGB, or a text; None where it could not be opened.
        true: the label's class name.
        predicted: the class name that the model chose.
        confidence: the model's probability for it, 0..1.
        places: of the true and the predicted class in output order, from 0.
        source: the file's path, or "" for arrays.
        index: its place among the samples; -1 where it is not known.
        heatmap: the preview with what spoke for the predicted class, None where there is none.
        words: of a text, how much each speaks for the predicted class, -1..1.
    """

    preview: Image | str | None
    true: str
    predicted: str
    confidence: float
    places: tuple[int, int] = (0, 0)
    source: str = ""
    index: int = -1
    heatmap: Image | None = None
    words: tuple[tuple[str, float], ...] = ()


def collect_mistakes(
    items: Sequence[Any] | np.ndarray,
    thumbnail: Callable[[Any], Image | str | None],
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    n: int = 16,
) -> list[Mistake]:
    """The n wrong predictions with the highest confidence, with their images.

    Args:
        items: one an entry of the labels: paths or arrays (Samples.items).
        thumbnail: makes a small PIL image or a text of an item, or None (Modality.thumbnail).
        probabilities: (m, classes), rows sum to 1.
        labels: int (m,), true class indices.
        class_names: in output order.
        n: at most how many.

    Returns:
        Highest confidence first; fewer than n, or none, where there are no more.

    Raises:
        DataError: shapes or ranges do not fit.
    """
    found = []
    for k in worst_mistakes(probabilities, labels, n):
        true, predicted = int(labels[k]), int(np.argmax(probabilities[k]))
        found.append(Mistake(
            preview=thumbnail(items[k]),
            true=str(class_names[true]),
            predicted=str(class_names[predicted]),
            confidence=float(np.max(probabilities[k])),
            places=(true, predicted),
            source=str(items[k]) if isinstance(items[k], str) else "",
            index=int(k),
        ))
    return found
