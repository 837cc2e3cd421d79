"""Render a report: one page that is whole in itself, from a template with every name escaped."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.reports.filters import FILTERS
from tl_keras.utils.files import write_atomically

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

__all__ = ["environment", "render", "write_page"]

_TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def environment(*folders: Path) -> jinja2.Environment:
    """Return what renders templates.

    Values are escaped as HTML. What a record lacks, however deep, is "" and false, so that
    records of older versions have a page too.

    Args:
        *folders: templates of one's own; they may extend `base.html.j2` and import
            `macros.html.j2`.
    """
    import jinja2

    class Environment(jinja2.Environment):
        """A mapping has its keys alone: `plots.update` is never a method of dict."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            if isinstance(obj, Mapping):
                return self.getitem(obj, attribute)
            return super().getattr(obj, attribute)

        def getitem(self, obj: Any, argument: Any) -> Any:
            if isinstance(obj, Mapping) and argument not in obj:
                return self.undefined(obj=obj, name=argument)
            return super().getitem(obj, argument)

    made = Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


def render(template: str, *folders: Path, **context: Any) -> Markup:
    """Render a template.

    Args:
        template: its name, such as "run.html.j2".
        *folders: see :func:`environment`.
        **context: what the template shows, plain values; `noun` says what one sample is called.
    """
    from markupsafe import Markup

    noun = context.get("noun", "image")
    given = {"noun": noun, "nouns": f"{noun}s", **context}
    return Markup(environment(*folders).get_template(template).render(given))


def write_page(path: str | Path, template: str, *folders: Path, **context: Any) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: an older file is replaced.
        template: see :func:`render`.
        *folders: see :func:`environment`.
        **context: see :func:`render`.

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    page = render(template, *folders, **context)
    # A file name that is no valid text must not keep the report from being written.
    return write_atomically(path, page.encode("utf-8", "replace"))
