"""report.html: a whole run on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.reports import html as page
from tl_keras.reports import sections, sections_auto
from tl_keras.reports.probe_figures import probe_section
from tl_keras.reports.run_facts import pick
from tl_keras.reports.sections_distillation import distillation
from tl_keras.reports.update_figures import update_section
from tl_keras.utils.files import write_atomically

if TYPE_CHECKING:
    from tl_keras.evaluation.mistakes import Mistake

__all__ = ["write_report"]


def write_report(
    path: str | Path,
    *,
    run: Mapping[str, Any],
    history: Sequence[dict[str, Any]],
    evaluations: Mapping[str, dict],
    plots: Mapping[str, Path],
    mistakes: Sequence[Mistake] = (),
) -> Path:
    """One HTML file with every figure and picture of a run inside it.

    It makes no request and runs no script, follows the reader's light or dark setting, fits
    a phone, and can be printed. Whatever the record lacks is left out. Every name is escaped.

    Args:
        path: the file to write, whole or not at all; an older one is replaced.
        run: the content of run.json.
        history: the rows of history.csv.
        evaluations: what tl_keras.evaluation.metrics.evaluate gave, by split ("val", "test").
        plots: PNG files by what they show: "curves", "confusion", "reliability", "mistakes";
            others follow under their own names, "recall" is drawn in the table of classes.
        mistakes: from collect_mistakes; shown as a gallery in place of plots["mistakes"].

    Returns:
        The path.

    Raises:
        StorageError: it cannot be written.
    """
    body = "\n".join(part for part in (
        sections.headline(run, evaluations),
        sections.scores(evaluations),
        update_section(run, plots),
        probe_section(run, plots),
        sections.training(run, history, plots),
        sections_auto.choice(run),
        distillation(run),
        sections.confusion(evaluations, plots),
        sections.classes(evaluations),
        sections.calibration(evaluations, plots),
        sections.gallery(mistakes, plots),
        sections.more_plots(plots),
        sections.data(run),
        sections.limits(run, evaluations),
        sections.reproducing(run),
        _footer(run),
    ) if part)
    html = page.page(sections.title(run), f"{body}\n")
    # A file name that is no valid text must not keep the report from being written.
    return write_atomically(path, html.encode("utf-8", "replace"))


def _footer(run: Mapping[str, Any]) -> str:
    version = pick(run, "versions", "tl_keras") or pick(run, "tl_keras", default="")
    written = page.escape(f"Written by tl_keras {version}".strip())
    made = pick(run, "created", default="")
    when = f" for the run of {page.escape(made)}" if made else ""
    return f"</main>\n<footer><p>{written}{when}. This page is complete in itself.</p></footer>"
