"""Pieces of one self-contained HTML page: no script, no network, light and dark."""

from __future__ import annotations

import base64
import html
import io
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_keras.reports.look import STYLE

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "bar", "details", "escape", "name", "page", "paragraph", "picture", "png", "section", "share",
    "table", "term_list",
]

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")

def page(title: str, body: str) -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML.

    Returns:
        HTML with its style inside; its policy forbids scripts and every request.
    """
    return _PAGE.substitute(title=escape(title), style=STYLE, body=body)


def escape(value: object) -> str:
    """Text that is safe anywhere in the page, attributes included.

    Args:
        value: anything; its str() is taken.

    Returns:
        HTML.
    """
    return html.escape(str(value), quote=True)


def name(value: object) -> str:
    """A name from the user's folders, which may be written in any direction.

    Args:
        value: the name.

    Returns:
        HTML.
    """
    return f"<bdi>{escape(value)}</bdi>"


def section(heading: str, *parts: str) -> str:
    """A part of the page with its heading; nothing where there is nothing to say.

    Args:
        heading: plain text.
        *parts: HTML; empty ones are dropped.

    Returns:
        HTML or "".
    """
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph.

    Args:
        text: HTML; "" gives "".
        kind: a CSS class.

    Returns:
        HTML.
    """
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text}</p>" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """A table that scrolls sideways by itself on a narrow screen.

    Args:
        head: plain text, one a column.
        rows: HTML cells; the first of each row is its heading.
        kinds: CSS class of each column ("n": number, "w": wide, "").

    Returns:
        HTML, "" where there are no rows.
    """
    classes = [f' class="{kind}"' if kind else "" for kind in kinds] or [""] * len(head)
    top = "".join(
        f'<th scope="col"{c}>{escape(text)}</th>' for text, c in zip(head, classes, strict=True)
    )
    body = "\n".join(
        f'<tr><th scope="row"{classes[0]}>{row[0]}</th>'
        + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row[1:], classes[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    if not body:
        return ""
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def term_list(pairs: Iterable[tuple[str, str]], kind: str) -> str:
    """Terms with their values; empty values are left out.

    Args:
        pairs: (plain text, HTML).
        kind: "tiles" or "facts".

    Returns:
        HTML, "" where nothing is left.
    """
    inside = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{value}</dd></div>" if kind == "tiles"
        else f"<dt>{escape(term)}</dt><dd>{value}</dd>"
        for term, value in pairs if value
    )
    return f'<dl class="{kind}">{inside}</dl>' if inside else ""


def details(summary: str, inside: str, opened: bool = False) -> str:
    """Something to unfold.

    Args:
        summary: plain text.
        inside: HTML; "" gives "".
        opened: whether it starts unfolded.

    Returns:
        HTML.
    """
    state = " open" if opened else ""
    head = f"<details{state}><summary>{escape(summary)}</summary>"
    return f"{head}{inside}</details>" if inside else ""


def share(value: float, digits: int = 1) -> str:
    """A share as per cent.

    Args:
        value: 0..1.
        digits: behind the point.

    Returns:
        Text such as "94.1 %", its parts held together.
    """
    return f"{100 * value:.{digits}f}\u202f%"


def bar(kind: str, value: float, low: float, high: float) -> str:
    """A share with its interval, drawn with boxes alone; the figures stand beside it.

    Args:
        kind: "scale" (interval and mark) or "recall" (bar and interval).
        value: 0..1.
        low: 0..1.
        high: 0..1.

    Returns:
        HTML.
    """
    span = f"left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
    if kind == "scale":
        inside = f'<i style="{span}"></i><b style="left:{100 * value:.1f}%"></b>'
    else:
        inside = f'<i style="width:{100 * value:.1f}%"></i><u style="{span}"></u>'
    return f'<span class="{kind}" style="display:block" aria-hidden="true">{inside}</span>'


def png(path: str | Path, alternative: str, caption: str, widest: float = 52) -> str:
    """A plot from a PNG file, within the page; it is turned dark where the page is.

    Args:
        path: the file; where it is gone the figure is left out.
        alternative: what a reader who cannot see it should know, plain text.
        caption: HTML.
        widest: at which it is shown, in em.

    Returns:
        HTML or "".
    """
    try:
        content = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    except OSError:
        return ""
    return (
        f'<figure class="plot" style="--wide:{widest}rem;--narrow:{min(31, widest):.0f}rem">'
        f'<div class="scroll" tabindex="0"><img alt="{escape(alternative)}" '
        f'src="data:image/png;base64,{content}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def picture(image: Image, alternative: str) -> str:
    """A small photo within the page.

    Args:
        image: RGB.
        alternative: plain text.

    Returns:
        HTML.
    """
    buffer, tiny = io.BytesIO(), max(image.size) < 64
    image.save(buffer, "PNG" if tiny else "JPEG", **({} if tiny else {"quality": 85}))
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img alt="{escape(alternative)}" class="{"tiny" if tiny else "photo"}" '
        f'src="data:image/{"png" if tiny else "jpeg"};base64,{content}">'
    )

