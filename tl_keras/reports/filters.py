"""Say numbers, times and sizes as people read them; the filters of every report's template."""

from __future__ import annotations

import base64
import io
import numbers
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image

__all__ = [
    "FILTERS", "as_metric", "breakable", "data_uri", "duration", "is_tiny", "number", "p_value",
    "percent", "points", "size", "thousands",
]  # fmt: skip

_TINY = 64  # pixels: a smaller image is shown with its pixels as squares


def number(value: Any) -> float:
    """Return a number or its text as float; NaN for all else."""
    if isinstance(value, numbers.Real | str):
        try:
            return float(value)
        except ValueError:
            pass
    return float("nan")


def percent(value: Any, digits: int = 1) -> str:
    """Say a share of 0..1 as "94.1 %"; "" for what is no number."""
    known = number(value)
    return f"{100 * known:.{digits}f}\u202f%" if known == known else ""


def points(value: Any, digits: int = 1) -> str:
    """Say a difference of two shares as "+1.5 points"; "" for what is no number."""
    known = number(value)
    return f"{100 * known:+.{digits}f} points" if known == known else ""


def thousands(value: Any) -> str:
    """Say a whole number with narrow spaces, "2 257 984"; "" for what is no number."""
    known = number(value)
    return f"{known:,.0f}".replace(",", "\u202f") if known == known else ""


def duration(seconds: Any) -> str:
    """Say a time as "8.3 s", "2 min 05 s" or "1 h 12 min"; "" for what is no number."""
    known = number(seconds)
    if known != known:
        return ""
    if known < 60:
        return f"{known:.1f}\u202fs"
    minutes, rest = divmod(round(known), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest:02d}\u202fs"
    return f"{minutes // 60}\u202fh {minutes % 60:02d}\u202fmin"


def size(count: Any) -> str:
    """Say a number of bytes as "8.88 MB" or "12.0 kB"; "" for what is no number."""
    known = number(count)
    if known != known:
        return ""
    return f"{known / 1e6:.2f} MB" if known >= 100_000 else f"{known / 1e3:.1f} kB"


def p_value(value: Any) -> str:
    """Say a p-value as "p = 0.02" or "p < 0.001"; "" for what is no number."""
    known = number(value)
    if known != known:
        return ""
    return f"p = {known:.2g}" if known >= 0.001 else "p < 0.001"


def as_metric(value: Any, kind: str, digits: int = 1) -> str:
    """Say a metric: a "share" of 0..1 as per cent, a "count", or a "number"."""
    if kind == "share":
        return percent(value, digits)
    known = number(value)
    if kind == "count" or known != known:
        return thousands(value)
    return f"{known:.3g}"


def data_uri(source: str | Path | Image | None) -> str:
    """Return an image as a data URI, so that a page needs no other file.

    Args:
        source: the path of a PNG or JPEG (.jpg) file, or an image in RGB.

    Returns:
        The URI; "" where the file is gone.
    """
    if not source:
        return ""
    kind, buffer = "png", io.BytesIO()
    if isinstance(source, str | Path):
        try:
            buffer.write(Path(source).read_bytes())
            kind = "jpeg" if Path(source).suffix == ".jpg" else "png"
        except OSError:
            return ""
    elif is_tiny(source):
        source.save(buffer, "PNG")
    else:
        kind = "jpeg"
        source.save(buffer, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def breakable(name: Any) -> Markup:
    """Return a long name as HTML that may be broken before each of its parts."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([:@=_+])", r"<wbr>\1", str(escape(name))))


def is_tiny(image: Image) -> bool:
    """Return whether an image is so small that its pixels are shown as squares."""
    return max(image.size) < _TINY


FILTERS = {
    made.__name__: made
    for made in (
        as_metric, breakable, data_uri, duration, is_tiny, p_value, percent, points, size,
        thousands,
    )
}  # fmt: skip
