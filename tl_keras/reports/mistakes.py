"""The mistakes a model was most sure of, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.reports import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tl_keras.evaluation.mistakes import Mistake

__all__ = ["plot_mistakes"]


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
