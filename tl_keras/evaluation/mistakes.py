"""The mistakes a model was most sure of, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.evaluation import style
from tl_keras.evaluation.metrics import worst_mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

__all__ = ["Mistake", "collect_mistakes", "plot_mistakes"]

_LARGEST = 320  # pixels: sharp at the size a page shows, small in a file


@dataclass(frozen=True, eq=False)
class Mistake:
    """One wrong prediction.

    Attributes:
        picture: RGB, at most 320 pixels wide and high; None where it could not be opened.
        true: the label's class name.
        predicted: the class name that the model chose.
        confidence: the model's probability for it, 0..1.
        places: of the true and the predicted class in output order, from 0.
        source: the file's path, or "" for arrays.
    """

    picture: Image | None
    true: str
    predicted: str
    confidence: float
    places: tuple[int, int] = (0, 0)
    source: str = ""


def collect_mistakes(
    items: Sequence[Any] | np.ndarray,
    open_item: Callable[[Any], Image],
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    n: int = 16,
) -> list[Mistake]:
    """The n wrong predictions with the highest confidence, with their pictures.

    Args:
        items: one an entry of the labels: paths or arrays (Samples.items).
        open_item: makes a PIL picture of an item (Samples.decoder).
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
            picture=_small(items[k], open_item),
            true=str(class_names[true]),
            predicted=str(class_names[predicted]),
            confidence=float(np.max(probabilities[k])),
            places=(true, predicted),
            source=str(items[k]) if isinstance(items[k], str) else "",
        ))
    return found


def _small(item: Any, open_item: Callable[[Any], Image]) -> Image | None:
    try:
        picture = open_item(item).convert("RGB")
    except (OSError, ValueError):
        return None  # moved or damaged since: the figures still stand
    picture.thumbnail((_LARGEST, _LARGEST))
    return picture


def plot_mistakes(mistakes: Sequence[Mistake], path: str | Path) -> Path:
    """The worst mistakes as a grid of pictures with true and predicted class.

    Args:
        mistakes: from collect_mistakes, at least none.
        path: the PNG to write.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    columns = min(4, max(1, len(mistakes)))
    rows = max(1, math.ceil(len(mistakes) / columns))
    figure = style.new_figure(max(4.0, 2.25 * columns), 2.75 * rows if mistakes else 1.2)
    grid: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    if not mistakes:
        grid[0].text(0.5, 0.5, "no mistakes", ha="center", va="center", color=style.INK)
    for axes, mistake in zip(grid, mistakes, strict=False):
        _picture(axes, mistake)
    return style.save(figure, path)


def _picture(axes: Axes, mistake: Mistake) -> None:
    if mistake.picture is None:
        axes.imshow(np.full((2, 2, 3), 229, np.uint8))
        axes.text(0.5, 0.5, "cannot be opened", ha="center", va="center", color=style.GREY,
                  fontsize=8.5)
    else:
        tiny = max(mistake.picture.size) < 64
        axes.imshow(np.asarray(mistake.picture), interpolation="nearest" if tiny else "antialiased")
    true = style.label(mistake.true, mistake.places[0], 22)
    predicted = style.label(mistake.predicted, mistake.places[1], 22)
    title = axes.set_title(
        f"said {predicted}  {100 * mistake.confidence:.0f} %\nis {true}", fontsize=9,
        color=style.INK, loc="left", linespacing=1.35,
    )
    style.plain([title])
