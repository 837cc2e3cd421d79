"""Makes what a run needs before it trains: its data, looked at and split, its model and plan."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tl_keras import modalities
from tl_keras.data import splits as splitting
from tl_keras.data.samples import Samples, fingerprint
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits, find_shared, leave_out, shared_error
from tl_keras.errors import DataError, PlanError
from tl_keras.modalities.base import CheckReport
from tl_keras.models.backbones.load import reading_of
from tl_keras.peft.adapters import apply_adapters
from tl_keras.runs.config import RunConfig
from tl_keras.training.plan import Plan, named_plan
from tl_keras.training.repeatable import repeatable
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = ["PreparedData", "bind", "build", "load", "plan_for", "prepare", "usable"]


@dataclass(frozen=True)
class PreparedData:
    """Data that can be trained on.

    Attributes:
        splits: The samples.
        fingerprint: SHA-256 of their keys, labels and pixels.
        left_out: What was left out, each with a path and a reason.
        duplicates: Keys of images that are there more than once, a list for each.
        seconds: What the check took.
        digests: Hash of each image's pixels, by its key.
        notes: What the check decided over the whole set, one sentence each.
    """

    splits: Splits
    fingerprint: str
    left_out: list[dict[str, str]]
    duplicates: list[list[str]]
    seconds: float
    digests: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def plan_for(config: RunConfig, model: keras.Model) -> Plan:
    """Return a run's plan for its model, with the epochs and learning rates asked for.

    Raises:
        PlanError: It makes no sense, or there are more epochs or rates than stages.
    """
    from tl_keras.models import graph

    asked = config.with_defaults().plan
    name = "lp-ft" if asked.name == "auto" else asked.name
    plan = named_plan(name, blocks=len(graph.blocks(model)), **asked.settings)
    for what, given in (("epochs", asked.epochs), ("learning rates", asked.learning_rate)):
        if len(given) > len(plan.stages):
            names = ", ".join(stage.name for stage in plan.stages)
            raise PlanError(
                f"got {what} for {len(given)} stages, plan '{plan.name}' has "
                f"{len(plan.stages)}: {names}"
            )
    # A stage that nothing is said of keeps the plan's values.
    usual = modalities.get(config.data.modality).tuned_epochs
    epochs = [
        *asked.epochs,
        *(
            usual if usual and stage.factors else stage.epochs
            for stage in plan.stages[len(asked.epochs) :]
        ),
    ]
    own = [stage.learning_rate * asked.lr_scale for stage in plan.stages]
    rates = [*asked.learning_rate, *own[len(asked.learning_rate) :]]
    # A rate that was asked for is the one that is tried.
    fixed = [bool(asked.learning_rate[i:]) for i in range(len(plan.stages))]
    stages = tuple(
        dataclasses.replace(
            stage, learning_rate=rate, epochs=count,
            factors=(1.0,) if stage.factors and kept else stage.factors,
            steps=0 if asked.epochs[i:] else stage.steps,
        )
        for i, (stage, rate, count, kept) in enumerate(
            zip(plan.stages, rates, epochs, fixed, strict=True)
        )
    )  # fmt: skip
    return dataclasses.replace(plan, stages=stages)


def load(config: RunConfig) -> Samples:
    """Load a run's samples, which are read as its base takes them; nothing is checked yet.

    Raises:
        DataError: There is nothing, or it is not laid out as expected.
        ModelError: The base cannot be shown such samples.
    """
    samples = load_samples(
        config.data.source, task=config.data.task, modality=config.data.modality
    )
    return bind(samples, config.model.backbone, config.model.size)


def bind(samples: Samples, backbone: str, size: int | None = None) -> Samples:
    """Return samples that are read as a base takes them.

    Args:
        samples: As they were loaded.
        backbone: Name of the base, or a file with a model.
        size: Size of its input as asked for.

    Raises:
        ModelError: The base cannot be shown such samples.
    """
    reading, most = reading_of(backbone)
    modality = samples.modality.fitted(reading, size, most, samples)
    return dataclasses.replace(samples, modality=modality)


def build(config: RunConfig, samples: Samples) -> keras.Model:
    """Build a run's model for its data; the same seed gives the same weights.

    Raises:
        ModelError: Base, size, weights and head do not fit together.
        PlanError: The layers to adapt are not there, or not to be adapted like this.
        DownloadError: The weights must be downloaded and cannot be.
    """
    from tl_keras.models.build import build_model

    head = config.model.head(config.data.task)
    weights = None if config.model.weights == "none" else config.model.weights
    plan = config.with_defaults().plan
    # Keras tells of downloads on standard output, across the bars.
    with repeatable(config.run.seed), contextlib.redirect_stdout(io.StringIO()):
        model = build_model(
            config.model.backbone,
            len(samples.class_names),
            head=head,
            size=config.model.size or samples.modality.input_size,
            weights=weights,
            features=config.model.features or None,
        )
        return apply_adapters(model, plan.name, plan.patterns, plan.rank)


def prepare(
    config: RunConfig,
    progress: Progress,
    samples: Samples | None = None,
    report: CheckReport | None = None,
) -> PreparedData:
    """Look at every image, and split.

    Args:
        config: What to look at.
        progress: Called with a task's name, what is done and of how much.
        samples: The samples if they are loaded already.
        report: Of the check of these samples if it was made already.

    Raises:
        DataError: Images cannot be used, or the same one is in two splits or classes, and
            `skip_bad` is not set.
    """
    began = time.perf_counter()
    if samples is None:
        samples = load(config)
    if report is None:
        report = _check(samples, progress)
    if report.bad and not config.data.skip_bad:
        raise report.error()
    samples, digests = report.usable(samples), [digest for digest in report.digests if digest]
    left_out = [{"path": one.path, "reason": one.reason} for one in report.bad]
    words = splitting.assign(
        samples, config.val_share, config.data.test, config.run.seed, digests
    )
    shared = find_shared(samples, digests, words)
    repeats = samples.modality.repeats
    if shared and not (config.data.skip_bad or repeats):
        raise shared_error(shared, samples.modality.noun)
    dropped = set(leave_out(samples, digests, words, contradictions=not repeats))
    left_out += [{"path": samples.keys[i], "reason": "shared"} for i in sorted(dropped)]
    keep = [i for i in range(len(samples)) if i not in dropped]
    kept = dataclasses.replace(samples.take(keep), splits=tuple(words[i] for i in keep))
    digests = [digests[i] for i in keep]
    _refuse_lost_classes(kept)
    parts = splitting.divide(kept, folded=config.val_share is None)
    if not len(parts.val):
        _refuse_too_few(parts.train)
    seconds = time.perf_counter() - began
    named = dict(zip(kept.keys, digests, strict=True))
    whole, copies = fingerprint(kept, digests), _copies(kept, digests)
    notes = list(report.notes)
    if dropped and repeats:
        notes.append(
            f"{len(dropped)} {samples.modality.noun}s of train or validation are left out, since "
            "they are in a split that comes after it too"
        )
    return PreparedData(parts, whole, left_out, copies, seconds, named, notes)


def usable(samples: Samples, skip: bool, progress: Progress) -> Samples:
    """Look at every sample, and return those that can be used.

    Raises:
        DataError: Some cannot, and are not to be skipped.
    """
    report = _check(samples, progress)
    if report.bad and not skip:
        raise report.error()
    return report.usable(samples)


def _check(samples: Samples, progress: Progress) -> CheckReport:
    word = f"check of {samples.modality.noun}s"
    return samples.modality.check(samples, progress=lambda d, n: progress(word, d, n))


def _refuse_lost_classes(samples: Samples) -> None:
    learned = np.array([word == "train" for word in samples.splits or ()])
    if lost := samples.kind.missing(samples.labels[learned], samples.class_names):
        raise DataError(
            f"no {samples.modality.noun} of {', '.join(lost[:10])} is left to train on in "
            f"{samples.root}; add some, or remove the class"
        )


def _refuse_too_few(train: Samples) -> None:
    """Refuse what nothing can be judged on out of fold."""
    strata = train.kind.strata(train.labels)
    several = int((np.unique(strata, return_counts=True)[1] > 1).sum())
    if len(train) < 4 or (train.kind.single_label and several < 2):
        counts = ", ".join(f"{n} of {c}" for c, n in train.counts().items()) or f"{len(train)}"
        raise DataError(
            f"too few {train.modality.noun}s to judge on folds: {counts[:200]}; expected at least "
            "two classes with two each, and four in all. Add some"
        )


def _copies(samples: Samples, digests: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, digest in zip(samples.keys, digests, strict=True):
        groups[digest].append(key)
    return [keys for keys in groups.values() if len(keys) > 1]
