"""Give every plot one style: colors, text that any class name survives, saving.

Figures are made without pyplot: nothing global is touched, and plots may be drawn in any
thread. Colors are Okabe and Ito's, which color-blind readers tell apart.
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
    "drawable", "font", "legend", "new_figure", "plain", "save", "shorten", "tidy",
]  # fmt: skip

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, SILVER, PALE = "#22262b", "#6b7280", "#9ca3af", "#e5e7eb"

# Fonts that cover what DejaVu Sans does not; those that are installed are used in this order.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "PingFang SC",
    "Hiragino Sans", "Hiragino Sans GB", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Apple SD Gothic Neo", "SimHei", "Noto Sans Devanagari", "Noto Sans Thai",
    "Noto Sans Bengali", "Noto Sans Tamil", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure, in inches, that arranges its parts by itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    return figure


def save(figure: Figure, path: str | Path, dpi: int = 144) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path.

    Raises:
        StorageError: it cannot be written; an older file is still there then.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return write_atomically(path, buffer.getvalue())


def tidy(
    axes: Axes,
    x: str = "",
    y: str = "",
    title: str = "",
    *,
    grid: Literal["x", "y", "both"] | None = "y",
) -> Axes:
    """Give axes a quiet frame, quiet ticks, a faint grid and their words; return them."""
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SILVER)
    axes.tick_params(colors=GREY, labelsize=9, length=3)
    if grid:
        axes.grid(axis=grid, color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    return axes


def legend(axes: Axes, columns: int = 0, loc: str = "best") -> None:
    """Add a legend within the axes, or in so many columns above them."""
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns}
    placed = above if columns else {"loc": loc}
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **placed)  # type: ignore[arg-type]


def plain(texts: Sequence, **settings: object) -> None:
    """Draw names as they are: no formulas between dollar signs, every installed font.

    Args:
        texts: matplotlib Text objects.
        **settings: what else to set on each.
    """
    for text in texts:
        text.set_parse_math(False)
        size = text.get_fontsize()
        text.set_fontproperties(font())
        text.set(**{"fontsize": size, **settings})


def font() -> FontProperties:
    """Return the font for names: each character from the first installed family that has it."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(_families()))


def drawable(names: Sequence[str], longest: int = 24, places: Sequence[int] = ()) -> list[str]:
    """Return names as they can be drawn here.

    A name with a character that no installed font has becomes "#3", its place in output
    order, instead of a row of empty boxes. Long names lose their middle.

    Args:
        names: in any script.
        longest: in columns; East Asian wide characters take two.
        places: of the names in output order, from 0; by default the order they have here.
    """
    lines = map(_one_line, names)
    return [
        shorten(line, longest) if _can_draw(line) else f"#{place}"
        for place, line in zip(places or range(len(names)), lines, strict=True)
    ]


def shorten(text: str, longest: int) -> str:
    """Cut the middle out of a text of more than so many (at least 3) columns."""
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
