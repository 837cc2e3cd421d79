"""Plan auto within a run: the choice is made once and recorded, and what it gave is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_keras.analysis.plan_search import ARMS, choose_plan, score
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.peft.branches import describe_branches
from tl_keras.runs.config import RunConfig
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import INITIAL, save_model
from tl_keras.runs.prepare import build, plan_for
from tl_keras.training.plan import named_plan
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

    from tl_keras.training.plan import Plan

__all__ = ["keep_best", "decide_plan"]

_KEPT = "auto.keras"


def decide_plan(run: RunDirectory, data: Splits, progress: Progress) -> keras.Model:
    """Choose a run's plan by short runs, record it, and return the model to train.

    Until the record holds the choice a resumed run makes it anew; from then on the run is an
    ordinary one with the chosen plan.

    Args:
        run: The run that begins, with plan "auto"; its record gets `auto` and the chosen plan.
        data: Its samples.
        progress: Called with a task's name, what is done and of how much.
    """
    config = run.config

    def make(name: str) -> tuple[keras.Model, Plan]:
        one = _with_plan(config, name)
        model = build(one, data.train)
        return model, plan_for(one, model)

    arms = ("scratch",) if config.model.weights == "none" else ARMS
    choice = choose_plan(
        make, data, arms=arms, minutes=config.plan.minutes or 10.0, seed=config.run.seed,
        progress=progress,
    )
    if choice.model is not None:
        save_model(choice.model, run.state / _KEPT)
    chosen = _with_plan(config, choice.plan)
    model = build(chosen, data.train)
    save_model(model, run.state / INITIAL)
    run.update(
        auto=choice.facts(), config=chosen.to_dict(), adaptation=describe_branches(model),
        state="incomplete",
    )  # fmt: skip
    return model


def _with_plan(config: RunConfig, name: str) -> RunConfig:
    """Return the config with a plan, and the epochs of as many stages as that has."""
    stages = len(named_plan(name).stages)
    return config.replace(plan=name, epochs=config.plan.epochs[:stages])


def keep_best(run: RunDirectory, model: keras.Model, val: Samples) -> keras.Model:
    """Return the trained model, or a short run's where that is better on validation.

    Args:
        run: Its record's `auto` is told how the full run compares.
        model: Trained with the chosen plan.
        val: The validation samples.
    """
    kept = run.state / _KEPT
    if "auto" not in run.record or not kept.exists():
        return model
    accuracy, loss = score(model, val)
    best, full = run.record["auto"]["best"], (accuracy or 0.0, -loss)
    short = ((best["accuracy"] or 0.0), -best["loss"])
    final = "full run" if full >= short else f"short run of {best['plan']}"
    facts = {"accuracy": accuracy, "loss": loss, "kept": final}
    run.update(auto={**run.record["auto"], "final": facts})
    if full >= short:
        return model
    run.update(best_stage="")  # no epoch of the full run's history
    return run.model(kept)
