"""Prepare the student and the data that it shares with its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.distill.config import DistillationConfig
from export.distill.teacher import Teacher
from tl_keras import modalities
from tl_keras.data.samples import Samples
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits, split
from tl_keras.errors import DataError, ExportError
from tl_keras.models.backbones.load import reading_of
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.models.backbones.sources import modality_of
from tl_keras.models.backbones.weights import load_user_model
from tl_keras.models.logits import with_own_softmax
from tl_keras.models.rewrite import flatten
from tl_keras.peft.adapters import apply_adapters
from tl_keras.runs.config import RunConfig
from tl_keras.runs.prepare import (
    PreparedData,
    build,
    plan_for,
    prepare,
)
from tl_keras.training.plan import FOLDED_PLANS, Plan
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = ["Distillation", "Prepared", "prepare_distillation", "with_judges"]

VIEWS = 8


@dataclass(frozen=True)
class Distillation:
    """A teacher, a student, and how it learns.

    Attributes:
        teacher: A finished run, or a model file (.keras) that takes RGB 0..255.
        student: A base's name, which gets a new head, or a `.keras` file: a classifier of the
            same classes, or a body without a head.
        losses: What is learned from the teacher.
        data: For a run, where its samples are now, if they moved; for a file, its samples.
        size: Side of the student's samples; None is the teacher's (a file's own).
        weights: Of the student's base, see `tl_keras.runs.config.ModelConfig`.
        plan: Name of the student's plan; empty is "lp-ft", or "scratch" without weights.
        settings: Fields of the plan to set. `views` bounds the views of every stage.
        epochs: Epochs of each stage, empty keeps the plan's.
        rate: Factor on the plan's rates.
        seed: None is the run's own, or 0.
        baseline: Also train the student without the teacher.
        precision: What computes the teacher and frozen layers.
        others: More teachers, see `export.distill.teacher.load_teacher`.
        together: What several teachers are: "ensemble" or "soup".
    """

    teacher: str
    student: str
    losses: DistillationConfig = field(default_factory=DistillationConfig)
    data: str | None = None
    size: int | None = None
    weights: str = "default"
    plan: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    rate: float = 1.0
    seed: int | None = None
    baseline: bool = True
    precision: str = "auto"
    others: tuple[str, ...] = ()
    together: str = "ensemble"

    def __post_init__(self) -> None:
        """Refuse what makes no sense for any teacher, before one is loaded.

        Raises:
            TLKerasError: An option is out of its range, or names nothing that there is.
        """
        RunConfig.of(
            source=self.data or "", modality=modality_of(self.student), backbone=self.student,
            size=self.size, weights=self.weights,
            plan=self.plan or "lp-ft", settings=self.settings, epochs=self.epochs,
            lr_scale=self.rate,
            precision=self.precision,
        )  # fmt: skip
        if self.together not in ("ensemble", "soup"):
            raise ExportError(f"Got {self.together!r}; several teachers are ensemble or soup.")
        if self.others and self.together == "ensemble" and "features" in self.losses.parts:
            raise ExportError(
                f"The loss is {self.losses.loss} and an ensemble has no features of its own; give "
                "one teacher, or --soup."
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """What can be trained.

    Attributes:
        teacher: The teacher.
        config: The student's configuration, as `tl-keras fit` would have it.
        student: The student with its first weights.
        data: The teacher's own splits; without validation samples, a fifth of those to train on
            is held out as such, since students are chosen by them.
        plan: The student's plan; its `views` is how many views there are, and no stage of it
            has patience.
    """

    teacher: Teacher
    config: RunConfig
    student: keras.Model
    data: PreparedData
    plan: Plan


def prepare_distillation(request: Distillation, teacher: Teacher, progress: Progress) -> Prepared:
    """Bring teacher, student and data together.

    No stage of the plan runs out of patience: a student that follows its teacher gets better
    slowly (Beyer et al., arXiv 2106.05237), and both students shall have the same budget. Each
    keeps its best epoch all the same.

    Raises:
        TLKerasError: They do not belong together, or one of them cannot be used.
    """
    if request.plan in ("auto", *FOLDED_PLANS):
        raise ExportError(
            f"A student is trained by steps of one plan, got {request.plan}; give --plan lp-ft, "
            "full or another, or let 'tl-keras fit --plan auto' say which suits the samples."
        )
    config = _config(request, teacher).with_defaults()
    data = _data(config, request, teacher, progress)
    names = data.splits.train.class_names
    _check_classes("teacher", teacher.model, names)
    student = _student(config, data.splits.train)
    _check_classes("student", student, names)
    plan = plan_for(config, student)
    if "features" in request.losses.parts and all(s.train == ("head",) for s in plan.stages):
        raise ExportError(
            f"The loss is {request.losses.loss} and plan {request.plan} trains the head alone, so "
            "that no feature could come nearer to the teacher's; give --plan lp-ft, or --loss kd."
        )
    varied = plan.augment != "none" or request.losses.mixup > 0
    most = max(stage.epochs for stage in plan.stages)
    stages = tuple(dataclasses.replace(stage, patience=0) for stage in plan.stages)
    views = min(plan.views, most) if varied else 1
    plan = dataclasses.replace(plan, stages=stages, views=views)
    return Prepared(teacher, config, student, data, plan)


def _config(request: Distillation, teacher: Teacher) -> RunConfig:
    run = teacher.run
    if run is None and request.data is None:
        raise DataError(
            f"{request.teacher} is a model without its samples; say which with --data FOLDER"
        )
    settings = {"views": VIEWS, **request.settings}
    if run is not None:
        known = run.record.get("plan", {}).get("augment", "none")
        settings = {"augment": known, **settings}
    seed = request.seed if request.seed is not None else run.record.get("seed", 0) if run else 0
    is_file = is_model_file(request.student)
    return RunConfig.of(
        source=str(request.data or (run.fact("data", "root") if run else "")),
        modality=run.modality.name if run else "image",
        backbone=request.student,
        size=request.size if request.size or is_file else _side(teacher),
        weights=request.weights,
        plan=request.plan or ("scratch" if request.weights == "none" else "lp-ft"),
        settings=settings,
        epochs=request.epochs,
        lr_scale=request.rate,
        seed=seed,
        precision=request.precision,
    )


def _side(teacher: Teacher) -> int:
    """The teacher's size of samples, which a backbone by name takes too."""
    modality = modalities.get("image") if teacher.run is None else teacher.run.modality
    (spec,) = modality.specs(teacher.model).values()
    return spec.shape[0]


def _data(
    config: RunConfig, request: Distillation, teacher: Teacher, progress: Progress
) -> PreparedData:
    if teacher.run is None:
        return prepare(config, progress, load_samples(config.data.source))
    facts = teacher.run.fact("data")
    splits = teacher.run.splits(request.data)
    taught, found = teacher.run.fact("classes"), list(splits.train.class_names)
    if taught != found:
        raise DataError(
            f"the teacher knows the classes {_listed(taught)}, {splits.train.root} has "
            f"{_listed(found)}; give the samples it was trained on"
        )
    kept = facts.get("left_out", []), facts.get("duplicates", [])
    splits = with_judges(splits, config.run.seed, teacher.run.digests())
    return PreparedData(splits, facts.get("fingerprint", ""), *kept, 0.0, teacher.run.digests())


def with_judges(splits: Splits, seed: int, digests: Mapping[str, str]) -> Splits:
    """Hold a fifth of training out where there is no validation: the students are chosen by it.

    Args:
        splits: Returned as they are where they have validation samples.
        seed: Decides which.
        digests: Hash of each sample's content by its key: copies stay together.
    """
    if len(splits.val):
        return splits
    train = dataclasses.replace(splits.train, splits=None)
    groups = [digests.get(key, "") for key in train.keys]
    parts = split(train, seed=seed, groups=groups)
    return Splits(parts.train, parts.val, splits.test)


def _student(config: RunConfig, samples: Samples) -> keras.Model:
    if not is_model_file(config.model.backbone):
        _check_reading(config.model.backbone, samples)
        return build(config, samples)
    model = load_user_model(Path(config.model.backbone).expanduser())
    if len(model.output_shape) != 2:
        return build(config, samples)
    size = config.model.size if config.model.size not in (None, model.input_shape[1]) else None
    with repeatable(config.run.seed):  # of dropout layers, which are made anew
        plain = with_own_softmax(flatten(model, size))
    return apply_adapters(plain, config.plan.name, config.plan.patterns, config.plan.rank)


def _check_reading(backbone: str, samples: Samples) -> None:
    """Refuse a student that reads otherwise than its teacher: both are shown the same numbers."""
    reading, most = reading_of(backbone)
    modality = samples.modality
    own = {} if reading is None else reading.files
    if own != modality.files:
        raise ExportError(
            f"The student {backbone} has another vocabulary than its teacher; give a base with the "
            "same tokenizer, such as the teacher's own with fewer blocks: FOLDER?blocks=2."
        )
    if most is not None and modality.input_size and modality.input_size > most:
        raise ExportError(
            f"The student {backbone} takes {most} tokens and its teacher {modality.input_size}; "
            "give a base that takes as many."
        )


def _check_classes(what: str, model: keras.Model, names: tuple[str, ...]) -> None:
    got = model.output_shape[-1] if len(model.outputs) == 1 else None
    if got == len(names):
        return
    way = {
        "teacher": "give the samples it was trained on",
        "student": "give a base's name, or a model without its head: either gets a new one",
    }
    raise ExportError(
        f"The {what} has {got or 'no single row of'} outputs and the data {len(names)} classes "
        f"({_listed(list(names))}); {way[what]}."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
