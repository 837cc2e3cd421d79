"""One look for every plot: colours, text that any class name survives, saving.

Figures are made without pyplot: nothing global is touched, and plots may be drawn in any
thread. Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tl_keras.utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

__all__ = [
    "BLUE", "GREEN", "GREY", "INK", "ORANGE", "PALE", "VERMILLION",
    "font", "label", "labels_for", "new_figure", "plain", "save", "shorten", "tidy",
]

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, PALE = "#22262b", "#6b7280", "#e5e7eb"

# Fonts that cover what DejaVu Sans does not; those that are installed are used in this order.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC",
    "Hiragino Sans", "Hiragino Sans GB", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Apple SD Gothic Neo", "SimHei", "Noto Sans Devanagari", "Noto Sans Thai",
    "Noto Sans Bengali", "Noto Sans Tamil", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS",
)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure that arranges its parts by itself.

    Args:
        width: inches.
        height: inches.

    Returns:
        A figure that pyplot does not know of.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    return figure


def tidy(axes: Axes, *, grid: Literal["x", "y", "both"] | None = "y") -> Axes:
    """Quiet frame, quiet ticks, a faint grid.

    Args:
        axes: where to draw.
        grid: "x", "y", "both" or None.

    Returns:
        The same axes.
    """
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    axes.tick_params(colors=GREY, labelsize=9, length=3)
    if grid:
        axes.grid(axis=grid, color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
    return axes


def plain(texts: Sequence, **settings: object) -> None:
    """Draws names as they are: no formulas between dollar signs, every installed font.

    Args:
        texts: matplotlib Text objects.
        **settings: what else to set on each.
    """
    for text in texts:
        text.set_parse_math(False)
        size = text.get_fontsize()
        text.set_fontproperties(font())
        text.set(**{"fontsize": size, **settings})


def save(figure: Figure, path: str | Path, dpi: int = 144) -> Path:
    """Writes the figure as PNG, whole or not at all.

    Args:
        figure: what to write.
        path: the PNG's path; an older file is replaced.
        dpi: pixels an inch.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return write_atomically(path, buffer.getvalue())


def font() -> FontProperties:
    """DejaVu Sans, and behind it the installed fonts that cover other scripts.

    Returns:
        A font with fallbacks.
    """
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(_families()))


def labels_for(names: Sequence[str], longest: int = 24) -> list[str]:
    """Names as they can be drawn here.

    Args:
        names: class names in any script, in output order.
        longest: in columns; East Asian wide characters take two.

    Returns:
        The label of each.
    """
    return [label(name, place, longest) for place, name in enumerate(names)]


def label(name: str, place: int, longest: int = 24) -> str:
    """One name as it can be drawn here.

    A name with a character that no installed font has becomes "#3", its place in output
    order (from 0), instead of a row of empty boxes. Long names lose their middle.

    Args:
        name: a name in any script.
        place: its place in output order.
        longest: in columns; East Asian wide characters take two.

    Returns:
        The label.
    """
    line = _one_line(name)
    return shorten(line, longest) if _can_draw(line) else f"#{place}"


def shorten(text: str, longest: int) -> str:
    """Cuts the middle out of a long text, keeping both ends.

    Args:
        text: any text.
        longest: in columns, >= 3; East Asian wide characters take two.

    Returns:
        The text, or its ends around an ellipsis.
    """
    if sum(map(_columns, text)) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{_prefix(text, longest - 1 - half)}…{_prefix(text[::-1], half)[::-1]}"


def _prefix(text: str, columns: int) -> str:
    used = 0
    for place, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return text[:place]
    return text


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _one_line(name: str) -> str:
    return "".join(" " if unicodedata.category(c) == "Cc" else c for c in name).strip() or "?"


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _MORE_FONTS if name in installed))


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = [findfont(FontProperties(family=[name])) for name in _families()]
    return frozenset().union(*(get_font(path).get_charmap() for path in paths))


def _can_draw(name: str) -> bool:
    """Older matplotlib neither joins Arabic letters nor turns right-to-left text round."""
    import matplotlib

    if matplotlib.__version_info__ < (3, 11) and any(
        unicodedata.bidirectional(c) in ("R", "AL") for c in name
    ):
        return False
    return all(ord(character) in _glyphs() for character in name)
