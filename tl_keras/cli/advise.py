"""The command advise: which backbone to take, from features alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import bars, command_line, error_boundary, show, show_json, table

if TYPE_CHECKING:
    from tl_keras.analysis.ranking import Appraisal

__all__ = ["advise"]


def advise(  # noqa: PLR0913 - a command's options are its arguments
    data: opt.Data,
    bases: Annotated[
        str,
        typer.Option(
            help="Candidates with commas between: base[@width][:size][:layers][=weights]; a base "
            "may be a .keras file or of another source (see: tl-keras bases), weights a file or "
            "none. here stands for all bases of the task whose weights are on this machine."
        ),
    ] = "here",
    out: Annotated[Path, typer.Option(help="Folder for the page, which must not exist.")] = Path(
        "advice"
    ),
    images: Annotated[int, opt.number("Look at about so many images at most.", 10, 10**6)] = 300,
    size: opt.Size = None,
    task: opt.Task = "classes",
    skip_bad: opt.SkipBad = False,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Say which backbone to take, before any is trained.

    The features of each are scored on some of the images, and what it costs is measured.

    Example:  tl-keras advise photos/ --bases mobilenet_v2@0.35,resnet50
    """
    with error_boundary(debug, lambda: "Nothing was written."):
        from tl_keras.analysis.candidates import parse_candidates
        from tl_keras.analysis.ranking import advice
        from tl_keras.data.sources import load_samples
        from tl_keras.modalities import parse_task
        from tl_keras.reports.ranking_report import write_ranking_report
        from tl_keras.runs.directory import refuse_existing
        from tl_keras.runs.prepare import usable
        from tl_keras.utils.quiet import start_tensorflow
        from tl_keras.workflows.advise import appraise, choose_samples

        modality, kind = parse_task(task)
        candidates = parse_candidates(bases, size, modality)
        refuse_existing(out, data)
        samples = load_samples(data, task=kind, modality=modality)
        chosen = choose_samples(samples, images, seed)
        start_tensorflow()
        count = sum(word in ("train", "") for word in samples.splits or ("",) * len(samples))
        with bars() as progress:
            chosen = choose_samples(usable(chosen, skip_bad, progress), images, seed)
            found = [appraise(one, chosen, count, seed=seed, progress=progress)
                     for one in candidates]  # fmt: skip
        facts = {"command": command_line(), "pictures": len(chosen)}
        title = f"Bases for {samples.root.rstrip('/').rsplit('/', 1)[-1]}"
        page = write_ranking_report(out, title, {**facts, **advice(found)})
        (_show_json if as_json else _show)(found, page)


def _show_json(appraisals: Sequence[Appraisal], page: Path) -> None:
    from tl_keras.analysis.ranking import in_order, recommendation

    ranked = [dataclasses.asdict(one) for one in in_order(appraisals)]
    facts = {"recommendation": recommendation(appraisals), "page": str(page)}
    show_json({"candidates": ranked, **facts})


def _show(appraisals: Sequence[Appraisal], page: Path) -> None:
    from tl_keras.analysis.ranking import in_order, recommendation
    from tl_keras.reports.filters import duration

    own = any("leep" in one.scores for one in appraisals)
    made = table(
        "candidates, the most promising first",
        *("candidate", "ridge %", "k-NN %", "LogME", *(("LEEP", "untrained %") if own else ())),
        *("fine-tuning", "ONNX MB", "ms"),
    )
    made.columns[0].overflow = "fold"
    for one in in_order(appraisals):
        made.add_row(
            one.name,
            _share(one, "ridge"),
            f"{100 * one.scores['knn']:.1f}",
            f"{one.scores['logme']:.3f}",
            *(_own_classes(one) if own else ()),
            duration(one.costs.fine_tuning),
            f"{one.costs.size / 1e6:.1f}",
            f"{one.costs.latency:.1f}",
        )
    show(made, recommendation(appraisals))
    seconds = sum(one.costs.appraisal for one in appraisals)
    tuning = sum(one.costs.fine_tuning for one in appraisals)
    show(f"took {duration(seconds)}; fine-tuning them all would take about {duration(tuning)}")
    show(f"page: {page}")


def _own_classes(one: Appraisal) -> tuple[str, str]:
    """LEEP, and the accuracy of the base's own classes with no training; dashes without any."""
    if "leep" not in one.scores:
        return "-", "-"
    return f"{one.scores['leep']:.3f}", _share(one, "matching")


def _share(one: Appraisal, score: str) -> str:
    low, high = one.intervals[score]
    return f"{100 * one.scores[score]:.1f} ({100 * low:.0f}-{100 * high:.0f})"
