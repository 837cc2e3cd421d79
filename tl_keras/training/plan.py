"""Stages and plans: what is trained, for how long, at which learning rate.

A :class:`Plan` is a list of :class:`Stage`; both are frozen, check themselves when
made, and go to JSON and back. The named plans are the field's usual ones: linear probe,
then fine-tune (Kumar et al., arXiv 2202.10054), gradual unfreezing with rates that fall
with depth (Howard and Ruder, arXiv 1801.06146), and the plain ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_keras.errors import PlanError
from tl_keras.utils.suggest import did_you_mean

__all__ = ["FOLDED_PLANS", "PLAN_NAMES", "Plan", "Stage", "named_plan", "stage_epochs"]


@dataclass(frozen=True)
class Stage:
    """One stretch of training with one set of trainable layers.

    Attributes:
        name: Shown in the history and the plots.
        train: Layer selectors, see :func:`tl_keras.training.freezing.select`.
        epochs: Passes over the training images, at least 1.
        learning_rate: Peak learning rate, above 0.
        decay: Factor on the learning rate for each block further down from the top, in (0, 1].
        warmup: Share of the stage's steps in which the learning rate climbs to its peak, in [0, 1).
        patience: Epochs without a better validation loss before the stage ends; 0 = never.
        batchnorm: "frozen" keeps the base's BatchNorm in inference mode, "train" does not.
        solve: Find the head's optimum on cached features instead (see
            :mod:`tl_keras.training.solved_head`); the other fields then say nothing.
        factors: On the learning rate, each above 0: they are tried on folds, and so is how far to
            go from the weights that the stage began with, see :mod:`tl_keras.training.trials`.
            Empty tries nothing.
        steps: At least so many, whatever the epochs, 0 or more.
    """

    name: str
    train: tuple[str, ...]
    epochs: int
    learning_rate: float
    decay: float = 1.0
    warmup: float = 0.1
    patience: int = 0
    batchnorm: str = "frozen"
    solve: bool = False
    factors: tuple[float, ...] = ()
    steps: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            PlanError: A value is out of its range.
        """
        object.__setattr__(self, "train", tuple(self.train))
        object.__setattr__(self, "factors", tuple(self.factors))
        _require(bool(self.train), self, "train", "at least one selector, such as 'head'")
        _require(self.epochs >= 1, self, "epochs", "at least 1")
        _require(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        _require(0 < self.decay <= 1, self, "decay", "above 0 and at most 1")
        _require(0 <= self.warmup < 1, self, "warmup", "at least 0 and below 1")
        _require(self.patience >= 0, self, "patience", "0 or more")
        _require(all(one > 0 for one in self.factors), self, "factors", "numbers above 0")
        _require(self.steps >= 0, self, "steps", "0 or more")
        _require(self.batchnorm in ("frozen", "train"), self, "batchnorm", "'frozen' or 'train'")


@dataclass(frozen=True)
class Plan:
    """Stages in order, and what holds for all of them.

    Attributes:
        name: The plan's name.
        stages: At least one stage; their names differ.
        batch_size: Images a step, at least 1.
        augment: Names of the views' transforms joined with "+", or "none".
        views: Augmented views of each training image that a cached stage keeps, at least 1. View 0
            is the plain image. With `augment="none"` there is just that one.
        label_smoothing: In [0, 1); class tasks only.
        weight_decay: AdamW's decay, 0 or more; not applied to biases and normalisation.
        ema: Averages the weights over about an epoch, and validates and keeps the average.
        class_weights: Weights classes so that each counts the same.
        cache_dtype: "float32", "float16" or "bfloat16": how frozen features are kept.
    """

    name: str
    stages: tuple[Stage, ...]
    batch_size: int = 32
    augment: str = "none"
    views: int = 1
    label_smoothing: float = 0.0
    weight_decay: float = 1e-4
    ema: bool = True
    class_weights: bool = True
    cache_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            PlanError: A value is out of its range, or two stages share a name.
        """
        object.__setattr__(self, "stages", tuple(self.stages))
        names = [stage.name for stage in self.stages]
        _require(bool(names), self, "stages", "at least one stage")
        _require(len(set(names)) == len(names), self, "stages", "stages with different names")
        _require(self.batch_size >= 1, self, "batch_size", "at least 1")
        _require(self.views >= 1, self, "views", "at least 1")
        _require(0 <= self.label_smoothing < 1, self, "label_smoothing", "in [0, 1)")
        _require(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        dtypes = ("float32", "float16", "bfloat16")
        _require(self.cache_dtype in dtypes, self, "cache_dtype", f"one of {', '.join(dtypes)}")

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Make the plan that :meth:`to_dict` described, or that an older version wrote.

        Raises:
            PlanError: A field is unknown or out of range.
        """
        fields = dict(values)
        try:
            fields["stages"] = tuple(_read_stage(stage) for stage in fields.get("stages", ()))
            return cls(**fields)
        except TypeError as error:
            raise PlanError(f"the plan does not read: {error}") from error


def stage_epochs(epochs: int, steps: int, rows: int, batch_size: int) -> int:
    """Return the epochs that take at least so many steps."""
    return max(epochs, -(-steps // -(-rows // batch_size)))


def _read_stage(values: Mapping[str, Any]) -> Stage:
    fields = dict(values)
    if "rate" in fields:  # its name in older records
        fields["learning_rate"] = fields.pop("rate")
    return Stage(**fields)


def _require(holds: bool, owner: Stage | Plan, field: str, expected: str) -> None:
    if not holds:
        kind = type(owner).__name__.lower()
        got = getattr(owner, field)
        raise PlanError(f"{kind} '{owner.name}': {field} is {got!r}, expected {expected}")


def _probe(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD,)


def _tuned(blocks: int) -> tuple[Stage, ...]:
    return (_SOLVED, Stage("upper", ("upper",), 10, 4e-4, factors=(1.0, 0.25), steps=100))


def _solved(blocks: int) -> tuple[Stage, ...]:
    return (_SOLVED,)


def _lp_ft(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("all", ("all",), 8, 3e-4, decay=0.8, patience=3))


def _top(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("top", ("head", "blocks:2"), 8, 3e-4, patience=4))


def _gradual(blocks: int) -> tuple[Stage, ...]:
    steps = [
        Stage(f"blocks-{count}", ("head", f"blocks:{count}"), 3, 3e-4 * 0.7**count, decay=0.7)
        for count in range(1, blocks)
    ]
    last = Stage("all", ("all",), 4, 3e-4 * 0.7**blocks, decay=0.7, patience=3)
    return (_HEAD, *steps, last)


def _full(blocks: int) -> tuple[Stage, ...]:
    return (Stage("all", ("all",), 12, 3e-4, patience=5),)


def _scratch(blocks: int) -> tuple[Stage, ...]:
    return (Stage("scratch", ("all",), 60, 2e-3, batchnorm="train"),)


def _lora(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("lora", ("head", "*_lora_*"), 10, 1e-2))


def _adapters(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("adapters", ("head", "*_adapter_*"), 10, 1e-3, patience=4))


def _batchnorm(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("batchnorm", ("head", "batchnorm"), 8, 1e-3, patience=4))


def _bias(blocks: int) -> tuple[Stage, ...]:
    return (_HEAD, Stage("bias", ("head", "bias"), 8, 1e-3, patience=4))


_HEAD = Stage("head", ("head",), 30, 3e-3, patience=10)
_SOLVED = Stage("head", ("head",), 1, 3e-3, solve=True)
_PLANS = {
    "tuned": _tuned,
    "solved": _solved,
    "probe": _probe,
    "lp-ft": _lp_ft,
    "gradual": _gradual,
    "full": _full,
    "top": _top,
    "scratch": _scratch,
    "lora": _lora,
    "adapters": _adapters,
    "batchnorm": _batchnorm,
    "bias": _bias,
}
PLAN_NAMES = tuple(_PLANS)
FOLDED_PLANS = ("tuned", "solved")
"""Plans whose choices are made on folds where there are no validation samples."""
_SETTINGS: dict[str, dict[str, Any]] = {
    "tuned": {"views": 9, "ema": False, "cache_dtype": "float16"},
    "solved": {"views": 2},
}


def named_plan(name: str, *, blocks: int = 5, **overrides: Any) -> Plan:
    """Return a plan by its name.

    Args:
        name: "tuned" (the head at its cross-validated optimum, then the upper layers, as fast
            and as far as is best out of fold), "solved" (that head only), "probe" (the head
            only, by gradient steps), "lp-ft" (head, then all at a low rate), "gradual"
            (head, then block by block from the top, rates falling with depth), "full" (all
            at once), "top" (head, then the last two blocks), "scratch" (all, BatchNorm
            trained, for a base without weights), or with few parameters: head, then "lora",
            "adapters" (branches that the model must have, see :mod:`tl_keras.peft`),
            "batchnorm" (scales and offsets) or "bias".
        blocks: Blocks of the base, which "gradual" goes through.
        **overrides: Fields of :class:`Plan` to set.

    Raises:
        PlanError: The name is unknown, or a value is out of its range.
    """
    if name not in _PLANS:
        hint = did_you_mean(name, (*PLAN_NAMES, "auto"))
        known = f"{', '.join(PLAN_NAMES)}, or auto in a run"
        raise PlanError(f"unknown plan '{name}', expected one of {known}.{hint}")
    try:
        return Plan(name=name, stages=_PLANS[name](blocks), **(_SETTINGS.get(name, {}) | overrides))
    except TypeError as error:
        raise PlanError(f"plan '{name}': {error}") from error
