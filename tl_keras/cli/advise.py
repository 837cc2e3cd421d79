"""`tl-keras advise`: which base to take, from features alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli.console import bars, show, table, told

if TYPE_CHECKING:
    from tl_keras.analysis.ranking import Appraisal

__all__ = ["HELP", "advise"]

HELP = (
    "Say which base to take, before any is trained.\n\n"
    "Scores each base's features on some of the pictures, and measures what it costs.\n\n"
    "Example:  tl-keras advise photos/ --bases mobilenet_v2,mobilenet_v2@0.35,resnet50"
)


def advise(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A folder of class folders, a CSV file, or digits."),
    ],
    bases: Annotated[
        str,
        typer.Option(
            help="Candidates with commas: base[@width][:size][:layers][=weights]; a base may be "
            "a .keras file, weights a file or none."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page; must not exist.")] = Path(
        "advice"
    ),
    pictures: Annotated[
        int, typer.Option(min=10, help="Look at about so many pictures at most.")
    ] = 300,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels.", show_default="each base's own")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other pictures.")] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run `advise`; its help says what it does."""
    with told(debug, lambda: "Nothing was written."):
        from tl_keras.analysis.candidates import parse_candidates
        from tl_keras.analysis.ranking import advice
        from tl_keras.data.sources import load_samples
        from tl_keras.reports.ranking_report import write_ranking_report
        from tl_keras.runs.directory import refuse_existing
        from tl_keras.utils.quiet import start_tensorflow
        from tl_keras.workflows.advise import appraise, chosen_samples

        candidates = parse_candidates(bases, size)
        refuse_existing(out)
        samples = load_samples(data)
        chosen = chosen_samples(samples, pictures, seed)
        start_tensorflow()
        count = sum(word in ("train", "") for word in samples.splits or ("",) * len(samples))
        with bars() as progress:
            found = [appraise(one, chosen, count, seed=seed, progress=progress)
                     for one in candidates]  # fmt: skip
        facts = {"command": shlex.join(["tl-keras", *sys.argv[1:]]), "pictures": len(chosen)}
        title = f"Bases for {samples.root.rstrip('/').rsplit('/', 1)[-1]}"
        page = write_ranking_report(out, title, {**facts, **advice(found)})
        _show(found, page)


def _show(appraisals: Sequence[Appraisal], page: Path) -> None:
    from tl_keras.analysis.ranking import in_order, recommendation
    from tl_keras.reports.filters import duration

    made = table(
        "candidates, the most promising first",
        *("candidate", "ridge %", "k-NN %", "LogME", "fine-tuning", "ONNX MB", "ms"),
    )
    made.columns[0].overflow = "fold"
    for one in in_order(appraisals):
        made.add_row(
            one.name,
            _share(one, "ridge"),
            f"{100 * one.scores['knn']:.1f}",
            f"{one.scores['logme']:.3f}",
            duration(one.costs.fine_tuning),
            f"{one.costs.size / 1e6:.1f}",
            f"{one.costs.latency:.1f}",
        )
    show(made, recommendation(appraisals))
    seconds = sum(one.costs.appraisal for one in appraisals)
    tuning = sum(one.costs.fine_tuning for one in appraisals)
    show(f"took {duration(seconds)}; fine-tuning them all would take about {duration(tuning)}")
    show(f"page: {page}")


def _share(one: Appraisal, score: str) -> str:
    low, high = one.intervals[score]
    return f"{100 * one.scores[score]:.1f} ({100 * low:.0f}-{100 * high:.0f})"
