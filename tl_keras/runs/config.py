"""What a run is asked for: data, model, plan and how it is run, checked and written to its record.

Everything that can be known from the options alone is refused when a configuration is made.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_keras import modalities, tasks
from tl_keras.data.builtin import is_builtin
from tl_keras.data.splits import check_shares
from tl_keras.errors import ModelError, PlanError, RunError
from tl_keras.features.backends import ENGINES
from tl_keras.models.backbones.load import check_size, describe
from tl_keras.models.backbones.packages import default_backbone
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.models.backbones.sources import find_source
from tl_keras.models.heads import Head
from tl_keras.peft.adapters import check_adaptation
from tl_keras.training.plan import FOLDED_PLANS, named_plan

__all__ = ["DataConfig", "ExecutionConfig", "ModelConfig", "PlanConfig", "RunConfig"]

VERSION = 2


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to learn from.

    Attributes:
        source: A folder, a table or a built-in name.
        modality: "image" or "text".
        task: "classes", "tags" or "values".
        val: Share carved for validation where the data has none; None is a fifth, or nothing for
            plans whose choices are made on folds of all that there is to learn from.
        test: Share carved for the test where the data has none.
        skip_bad: Go on without samples that cannot be used.
        drop_suspects: Leave out training samples whose labels are likely wrong, if that is
            measured to help.
    """

    source: str
    modality: str = "image"
    task: str = "classes"
    val: float | None = None
    test: float = 0.0
    skip_bad: bool = False
    drop_suspects: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: One is unknown or out of its range.
        """
        modalities.get(self.modality)
        tasks.get(self.task)
        check_shares(0.2 if self.val is None else self.val, self.test)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What to train.

    Attributes:
        backbone: A backbone's name or a file with a model; "default" becomes the name of
            `default_backbone`.
        size: Side in pixels, or tokens; None for the backbone's own, or what suits the texts.
        weights: "default", "imagenet", "none" or a file.
        pooling: See `tl_keras.models.heads.Head`.
        dense: Units of dense layers before the output.
        dropout: Rate of dropout in the head.
        features: The layer that the head is put on; empty is where the backbone's features end.
    """

    backbone: str = "default"
    size: int | None = None
    weights: str = "default"
    pooling: str = "avg"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    features: str = ""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ModelError: One is unknown or out of its range.
        """
        object.__setattr__(self, "dense", tuple(self.dense))
        Head(self.pooling, self.dense, self.dropout)
        if self.backbone == "default":
            object.__setattr__(self, "backbone", default_backbone())
        # A base from elsewhere may be gone when a run made with it is opened.
        if not is_model_file(self.backbone) and find_source(self.backbone) is None:
            check_size(describe(self.backbone), self.size)

    def head(self, task: str) -> Head:
        """Return the head for a task."""
        return Head(self.pooling, self.dense, self.dropout, tasks.get(task).activation)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How to train.

    Attributes:
        name: A plan's name or "auto"; empty chooses "scratch" without weights, "lp-ft" where the
            head has hidden layers, else "tuned".
        settings: Fields of `Plan` to set, such as batch_size, augment, views.
        epochs: Epochs of each stage in order; empty keeps the plan's.
        lr_scale: Factor on every stage's learning rate, above 0.
        learning_rate: Peak learning rate of each stage in order, above 0; empty keeps the plan's.
        adapt: Layers that plan "lora" or "adapters" adapts: patterns with commas; empty chooses.
        rank: Of plan "lora", see `tl_keras.peft.lora.apply_lora`.
        minutes: That plan "auto" may take to choose (10 if it is None), or plan "tuned" in all
            (without a limit if it is None), above 0.
    """

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    lr_scale: float = 1.0
    learning_rate: tuple[float, ...] = ()
    adapt: str = ""
    rank: int = 4
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            PlanError: One is unknown, out of its range, or contradicts another.
        """
        object.__setattr__(self, "epochs", tuple(self.epochs))
        object.__setattr__(self, "learning_rate", tuple(self.learning_rate))
        object.__setattr__(self, "settings", dict(self.settings))
        minutes = [] if self.minutes is None else [self.minutes]
        numbers = {"lr_scale": [self.lr_scale], "minutes": minutes}
        for name, given in {**numbers, "learning_rate": self.learning_rate}.items():
            if not all(0 < one < math.inf for one in given):
                got = getattr(self, name)
                raise PlanError(f"{name.replace('_', ' ')} is {got}, expected above 0")
        if self.learning_rate and self.name == "auto":
            raise PlanError(
                "plan auto tries plans with stages of their own; give a factor on the rates with "
                "--lr-scale instead of --learning-rate, or name a plan"
            )
        # Whatever "auto" chooses will have these settings too.
        named_plan("lp-ft" if self.name in ("", "auto") else self.name, **self.settings)
        check_adaptation(self.name, self.patterns, self.rank)

    @property
    def patterns(self) -> list[str]:
        """The layers to adapt, one pattern each."""
        return [word.strip() for word in self.adapt.split(",") if word.strip()]


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """How a run is carried out.

    Attributes:
        seed: Decides splits, initial weights, orders and augmented views, 0 or more.
        precision: See `tl_keras.training.config.FitOptions`.
        devices: GPUs to train on, 1 or more.
        save_every: Least seconds between snapshots within a stage, 0 or more.
    """

    seed: int = 0
    precision: str = "auto"
    devices: int = 1
    save_every: float = 5.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            PlanError: One is unknown or out of its range.
        """
        known = ("auto", *ENGINES)
        if self.precision not in known:
            raise PlanError(
                f"unknown precision '{self.precision}', expected one of {', '.join(known)}"
            )
        for name, least in (("seed", 0), ("devices", 1), ("save_every", 0)):
            if not getattr(self, name) >= least:
                raise PlanError(f"{name} is {getattr(self, name)}, expected {least} or more")


_PARTS = {"data": DataConfig, "model": ModelConfig, "plan": PlanConfig, "run": ExecutionConfig}
_PLACES = {
    ("plan" if (part, one.name) == ("plan", "name") else one.name): (part, one.name)
    for part, kind in _PARTS.items()
    for one in dataclasses.fields(kind)
}
"""Where a flat option belongs: its part and its field."""
_OLD = {"data": "source", "base": "backbone", "rate": "lr_scale"}
"""Names in the flat records of version 1."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to train, on what, and how: all that repeats a run.

    Attributes:
        data: What to learn from.
        model: What to train.
        plan: How to train.
        run: How the run is carried out.
    """

    data: DataConfig
    model: ModelConfig = ModelConfig()
    plan: PlanConfig = PlanConfig()
    run: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        """Check what the parts say of each other.

        Raises:
            PlanError: The modality knows no such augmentation.
            ModelError: The base is shown something else.
        """
        modality = modalities.get(self.data.modality)
        modality.check_augment(self.plan.settings.get("augment", "none"))
        source = not is_model_file(self.model.backbone) and find_source(self.model.backbone)
        if source and source[0].modality not in ("", modality.name):
            raise ModelError(
                f"base {self.model.backbone} is shown {source[0].modality}s, the data are "
                f"{modality.noun}s; give --task {source[0].modality}, or a base for "
                f"{modality.noun}s (see: tl-keras bases)"
            )

    @classmethod
    def of(
        cls,
        source: str,
        backbone: str = "default",
        size: int | None = None,
        weights: str = "default",
        **options: Any,
    ) -> RunConfig:
        """Make a configuration from flat options.

        Args:
            source: See :class:`DataConfig`.
            backbone: See :class:`ModelConfig`.
            size: See :class:`ModelConfig`.
            weights: See :class:`ModelConfig`.
            **options: Fields of the four parts by their names, the plan's name as `plan`; the
                task may name the modality too, see :func:`tl_keras.modalities.parse_task`.

        Raises:
            TLKerasError: An option is out of its range, or names nothing that there is.
        """
        given = {"source": source, "backbone": backbone, "size": size, "weights": weights}
        if "task" in options and "modality" not in options:
            options["modality"], options["task"] = modalities.parse_task(options["task"])
        if backbone == "default":
            given["backbone"] = default_backbone(options.get("modality", "image"))
        parts = _sorted_in({**given, **options})
        return cls(**{part: _PARTS[part](**values) for part, values in parts.items()})

    def replace(self, **options: Any) -> RunConfig:
        """Return the configuration with some flat options set, see :meth:`of`."""
        parts = {
            part: dataclasses.replace(getattr(self, part), **values)
            for part, values in _sorted_in(options).items()
        }
        return dataclasses.replace(self, **parts)

    def with_defaults(self) -> RunConfig:
        """Return the configuration with its plan and its augmentation chosen.

        Photos are seen flipped and cropped, others as their modality says. The images of a
        built-in set are seen as they are: a flipped digit is another sign.
        """
        source = self.data.source
        name = self.plan.name or self._usual_plan()
        as_is = is_builtin(source) and not Path(source).exists()
        augment = "none" if as_is else modalities.get(self.data.modality).default_augment
        return self.replace(plan=name, settings={"augment": augment, **self.plan.settings})

    def _usual_plan(self) -> str:
        if self.model.weights == "none":
            return "scratch"
        return "lp-ft" if self.model.dense or self.model.pooling == "none" else "tuned"

    @property
    def val_share(self) -> float | None:
        """The share to carve for validation, None for none."""
        if self.data.val is not None:
            return self.data.val
        return None if (self.plan.name or self._usual_plan()) in FOLDED_PLANS else 0.2

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Make the configuration that :meth:`to_dict` described, or that an older version wrote.

        Raises:
            RunError: It is from a newer version, or a field is unknown.
            TLKerasError: A value is out of its range.
        """
        if not isinstance(values, Mapping):
            raise RunError(f"the configuration is {values!r:.60}, expected options by name")
        version = values.get("version", 1)
        if version not in (1, VERSION):
            raise RunError(
                f"the configuration has version {version}, this tl_keras reads up to {VERSION}; "
                "update tl_keras"
            )
        parts = {name: part for name, part in values.items() if name != "version"}
        try:
            if version == 1:
                parts = _sorted_in({_OLD.get(name, name): value for name, value in parts.items()})
            for name, part in parts.items():
                _check_types(name, part)
            return cls(**{name: _PARTS[name](**part) for name, part in parts.items()})
        except (TypeError, KeyError) as error:
            raise RunError(f"the configuration does not read: {error}") from error


def _check_types(name: str, part: Any) -> None:
    """Refuse what somebody wrote into a record that no option could be."""
    if name not in _PARTS or not isinstance(part, Mapping):
        known = ", ".join(_PARTS)
        raise RunError(f"{name} is {part!r:.60}, expected the options of {known} by their names")
    hints = typing.get_type_hints(_PARTS[name])
    for key, value in part.items():
        if key in hints and not _is_a(value, hints[key]):
            raise RunError(f"{key} is {value!r:.60}, which no such option can be")


def _is_a(value: Any, kind: Any) -> bool:
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_is_a(one, inner[0]) for one in value)
    if typing.get_origin(kind) is Mapping:
        return isinstance(value, Mapping)
    if inner:
        return any(_is_a(value, one) for one in inner)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _sorted_in(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name not in _PLACES:
            raise TypeError(f"unknown option '{name}', expected one of {', '.join(_PLACES)}")
        part, field_name = _PLACES[name]
        parts.setdefault(part, {})[field_name] = value
    return parts
