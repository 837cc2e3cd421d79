"""Which way to train: whether pretraining helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tl_keras.analysis.transfer_benefit import Comparison, compare_transfer, scratch_plan
from tl_keras.errors import PlanError
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import refuse_existing
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import build, load, plan_for, prepare
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

__all__ = ["judge_transfer"]


@guard()
def judge_transfer(
    config: RunConfig, seeds: int, out: Path, *, progress: Progress = silent
) -> tuple[Comparison, Path]:
    """Train a backbone and the same model from scratch, compare, and write a report.

    Args:
        config: Data, base and plan ("tuned" if it says none); its weights are the pretrained ones.
        seeds: Runs of each way.
        out: The folder to make; it must not exist, or be empty.
        progress: Called with a task's name, what is done and of how much.

    Returns:
        What the runs gave, and the report's page.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    from tl_keras.reports.transfer_report import write_transfer_report

    config = config.replace(plan=config.plan.name or "tuned", val=config.data.val or 0.2)
    if config.model.weights == "none" or config.plan.name == "scratch":
        raise PlanError("the verdict is on pretrained weights; got none, give --weights a file")
    if config.plan.name == "auto":
        raise PlanError(
            "the verdict compares one plan with scratch, got auto; give --plan tuned, full or "
            "probe, or let 'tl-keras fit --plan auto' choose, which tries scratch too"
        )
    if seeds < 2:
        raise PlanError(f"got {seeds} seeds, expected at least 2: one run could be luck")
    refuse_existing(out, config.data.source)
    config = config.with_defaults()
    samples = load(config)
    start_tensorflow()
    plan = plan_for(config, build(config, samples))
    data = prepare(config, progress, samples).splits
    found = compare_transfer(
        lambda seed: build(config.replace(seed=seed), samples),
        data,
        plan,
        seeds=seeds,
        first_seed=config.run.seed,
        progress=progress,
    )
    budget = (
        f"Each of the {seeds} runs a way learned from {len(data.train)} training images: plan "
        f"{plan.name} with the pretrained weights, all layers from scratch without, for "
        f"{scratch_plan(plan, len(data.train)).epochs} epochs. "
        f"Judged on {found.verdict.pictures} {'test' if data.test else 'validation'} images."
    )
    verdict = {**dataclasses.asdict(found.verdict), "sentence": found.verdict.sentence}
    return found, write_transfer_report(
        out, f"{config.model.backbone} on {config.data.source}", {**verdict, "budget": budget},
        {"pretrained": found.pretrained, "scratch": found.scratch},
    )  # fmt: skip
