"""What the plans "lora" and "adapters" do to a run's model before training and after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import PlanError
from tl_keras.peft.adapters import default_adapter_layers, insert_adapters
from tl_keras.peft.branches import branches, parameters
from tl_keras.peft.files import save_adapter
from tl_keras.peft.lora import apply_lora, default_lora_layers, merge_lora

if TYPE_CHECKING:
    import keras

__all__ = ["ADAPTED", "REDUCTION", "adapted", "check_adaptation", "described", "finished"]

ADAPTED = ("lora", "adapters")
REDUCTION = 8


def check_adaptation(plan: str, patterns: Sequence[str], rank: int) -> None:
    """Check what can be known before there is a model.

    Raises:
        PlanError: Layers are named for a plan that adapts none, or the rank is below 1.
    """
    if patterns and plan not in ADAPTED:
        raise PlanError(
            f"layers to adapt ({', '.join(patterns)}) with plan '{plan}', which adapts none; "
            f"expected plan {' or '.join(ADAPTED)}"
        )
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise PlanError(f"the rank is {rank!r}, expected a whole number of at least 1")


def adapted(model: keras.Model, plan: str, patterns: Sequence[str], rank: int) -> keras.Model:
    """Return the model that a plan trains: with branches for "lora" and "adapters".

    Args:
        model: A flat functional model.
        plan: A plan's name; for others than those two the model comes back as it is.
        patterns: Layers to adapt; empty chooses, within 2.4 % of the base's weights.
        rank: Of LoRA. Adapters are serial, with an eighth of the channels.

    Raises:
        PlanError: See `apply_lora` and `insert_adapters`.
    """
    if plan == "lora":
        return apply_lora(model, patterns or default_lora_layers(model, rank), rank)
    if plan == "adapters":
        chosen = patterns or default_adapter_layers(model, REDUCTION)
        return insert_adapters(model, chosen, REDUCTION)
    return model


def described(model: keras.Model) -> dict[str, Any] | None:
    """Return what a model's branches are, for the record; None when it has none.

    Returns:
        "branches": kind to layer to width (LoRA's rank); "parameters": of base, head and
        branches; "share": of head and branches in a plain model's parameters.
    """
    if not (found := branches(model)):
        return None
    counts = parameters(model)
    widths = {
        kind: {name: int(roles["down"].kernel.shape[-1]) for name, roles in owners.items()}
        for kind, owners in found.items()
    }
    plain = counts["base"] + counts["head"]
    share = (counts["branches"] + counts["head"]) / plain
    return {"branches": widths, "parameters": counts, "share": round(share, 5)}


def finished(model: keras.Model, path: Path) -> keras.Model:
    """Keep a trained model's branches in a file; return the model to ship.

    Args:
        model: A trained model; without branches it comes back and no file is written.
        path: Where to write what :func:`tl_keras.peft.files.load_adapter` reads.

    Returns:
        The plain model with LoRA merged. Bottleneck adapters stay in it.
    """
    found = branches(model)
    if found:
        save_adapter(model, path)
    return merge_lora(model) if "lora" in found else model
