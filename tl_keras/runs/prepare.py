"""Before training: what a job asks for, whether it makes sense, its data and its model.

Everything that can be known from the options alone is refused before a picture is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras import modalities, tasks
from tl_keras.data import splits as splitting
from tl_keras.data.builtin import is_builtin
from tl_keras.data.samples import Samples, fingerprint
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits, check_shares, find_shared, leave_out, shared_error
from tl_keras.errors import DataError, ModelError, PlanError
from tl_keras.features.backends import ENGINES
from tl_keras.modalities.base import BadSample, CheckReport
from tl_keras.models.backbones.load import check_size, describe
from tl_keras.models.heads import Head
from tl_keras.peft.plans import adapted, check_adaptation
from tl_keras.training.plan import Plan, named_plan
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = [
    "Checked", "Job", "build", "check_options", "checked_data", "plan_for", "settled",
    "without_bad",
]  # fmt: skip

_SAVED = (".keras", ".h5")


@dataclass(frozen=True)
class Job:
    """What to train, on what, and how.

    Attributes:
        data: A folder, a CSV file or a built-in name.
        base: A base's name or a `.keras` file.
        size: Side in pixels, None for the base's own.
        weights: "default", "imagenet", "none" or a file.
        pooling: See `tl_keras.models.heads.Head`.
        dense: Units of dense layers before the output.
        dropout: Rate of dropout in the head.
        plan: A plan's name; empty chooses "scratch" for a base without weights, else "lp-ft".
        settings: Fields of `Plan` to set, such as batch_size, augment, views.
        epochs: Epochs of each stage in order; empty keeps the plan's.
        rate: Factor on every stage's rate, above 0.
        learning_rate: Peak learning rate of each stage in order; empty keeps the plan's.
        task: "classes", "tags" or "values".
        val: Share carved for validation where the data has none.
        test: Share carved for the test where the data has none.
        seed: Decides splits, initial weights, orders and views.
        precision: See `tl_keras.training.trainer.FitOptions`.
        devices: GPUs to train on.
        skip_bad: Go on without pictures that cannot be used.
        save_every: Least seconds between snapshots within a stage.
        adapt: Layers that plan "lora" or "adapters" adapts: patterns with commas; empty
            chooses.
        rank: Of plan "lora", see `tl_keras.peft.lora.apply_lora`.
        minutes: That plan "auto" may take to choose, above 0.
    """

    data: str
    base: str = "mobilenet_v2"
    size: int | None = None
    weights: str = "default"
    pooling: str = "avg"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    plan: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    rate: float = 1.0
    task: str = "classes"
    val: float = 0.2
    test: float = 0.0
    seed: int = 0
    precision: str = "auto"
    devices: int = 1
    skip_bad: bool = False
    save_every: float = 5.0
    adapt: str = ""
    rank: int = 4
    minutes: float = 10.0
    learning_rate: tuple[float, ...] = ()

    @property
    def patterns(self) -> list[str]:
        """The layers to adapt, one pattern each."""
        return [word.strip() for word in self.adapt.split(",") if word.strip()]


@dataclass(frozen=True)
class Checked:
    """Data that can be trained on.

    Attributes:
        splits: The samples.
        fingerprint: SHA-256 of their keys, labels and pixels.
        left_out: What was left out, each with a path and a reason.
        duplicates: Keys of pictures that are there more than once, a list for each.
        seconds: What the check took.
        digests: Hash of each picture's pixels, by its key.
    """

    splits: Splits
    fingerprint: str
    left_out: list[dict[str, str]]
    duplicates: list[list[str]]
    seconds: float
    digests: dict[str, str] = dataclasses.field(default_factory=dict)


def settled(job: Job) -> Job:
    """Return the job with its plan and its views chosen, see :class:`Job`.

    Photos are seen flipped and cropped. The pictures of a built-in set are seen as they are: a
    flipped digit is another sign.
    """
    chosen = job.plan or ("scratch" if job.weights == "none" else "lp-ft")
    augment = "none" if is_builtin(job.data) and not Path(job.data).exists() else "flip+crop"
    settings = {"augment": augment, **job.settings}
    return dataclasses.replace(job, plan=chosen, settings=settings)


def check_options(job: Job) -> None:
    """Check all that can be known before data and model are there.

    Raises:
        TLKerasError: An option is out of its range, or names nothing that there is.
    """
    task = tasks.get(job.task)
    job = settled(job)
    # Whatever "auto" chooses will have these settings too.
    plan = named_plan("lp-ft" if job.plan == "auto" else job.plan, **job.settings)
    modalities.get("image").check_augment(plan.augment)
    check_adaptation(job.plan, job.patterns, job.rank)
    check_shares(job.val, job.test)
    Head(job.pooling, job.dense, job.dropout, task.activation)
    _check_numbers(job)
    _check_base(job)


def _check_numbers(job: Job) -> None:
    if not 0 < job.rate < math.inf:
        raise PlanError(f"the factor on the rate is {job.rate}, expected a number above 0")
    if not all(0 < rate < math.inf for rate in job.learning_rate):
        raise PlanError(f"the learning rates are {job.learning_rate}, expected numbers above 0")
    if job.learning_rate and job.plan == "auto":
        raise PlanError("plan auto tries plans with stages of their own; give a factor on the "
                        "rates with --lr-scale instead of --learning-rate, or name a plan")
    if not 0 < job.minutes < math.inf:
        raise PlanError(f"got {job.minutes} minutes to choose a plan, expected more than 0")
    if job.precision not in ("auto", *ENGINES):
        raise PlanError(
            f"unknown precision '{job.precision}', expected auto or {', '.join(ENGINES)}"
        )
    if job.seed < 0 or job.devices < 1:
        raise PlanError(f"seed {job.seed} and devices {job.devices}: expected 0 or more, 1 or more")


def _check_base(job: Job) -> None:
    if job.base.endswith(_SAVED):
        if not Path(job.base).expanduser().is_file():
            raise ModelError(f"the base {job.base} does not exist; expected a saved model")
    else:
        check_size(describe(job.base), job.size)


def plan_for(job: Job, model: keras.Model) -> Plan:
    """Return a job's plan for its model, with the job's epochs and rates.

    Raises:
        PlanError: It makes no sense, or there are more epochs or rates than stages.
    """
    from tl_keras.models import graph

    job = settled(job)
    name = "lp-ft" if job.plan == "auto" else job.plan
    plan = named_plan(name, blocks=len(graph.blocks(model)), **job.settings)
    for what, given in (("epochs", job.epochs), ("learning rates", job.learning_rate)):
        if len(given) > len(plan.stages):
            names = ", ".join(stage.name for stage in plan.stages)
            raise PlanError(
                f"got {what} for {len(given)} stages, plan '{plan.name}' has "
                f"{len(plan.stages)}: {names}"
            )
    # A stage that the job says nothing of keeps the plan's values.
    epochs = [*job.epochs, *(stage.epochs for stage in plan.stages[len(job.epochs) :])]
    own = [stage.learning_rate * job.rate for stage in plan.stages]
    rates = [*job.learning_rate, *own[len(job.learning_rate) :]]
    stages = tuple(
        dataclasses.replace(stage, learning_rate=rate, epochs=count)
        for stage, rate, count in zip(plan.stages, rates, epochs, strict=True)
    )
    return dataclasses.replace(plan, stages=stages)


def build(job: Job, samples: Samples) -> keras.Model:
    """Build a job's model for its data; the same seed gives the same weights.

    Raises:
        ModelError: Base, size, weights and head do not fit together.
        PlanError: The layers to adapt are not there, or not to be adapted like this.
        DownloadError: The weights must be downloaded and cannot be.
    """
    import keras

    from tl_keras.models.build import build_model

    head = Head(job.pooling, job.dense, job.dropout, tasks.get(job.task).activation)
    weights = None if job.weights == "none" else job.weights
    keras.utils.set_random_seed(job.seed)
    # Keras tells of downloads on standard output, across the bars.
    with contextlib.redirect_stdout(io.StringIO()):
        model = build_model(
            job.base, len(samples.class_names), head=head, size=job.size, weights=weights
        )
    return adapted(model, settled(job).plan, job.patterns, job.rank)


def checked_data(
    job: Job,
    progress: Progress,
    samples: Samples | None = None,
    report: CheckReport | None = None,
) -> Checked:
    """Look at every picture, and split.

    Args:
        job: What to look at.
        progress: Called with a task's name, what is done and of how much.
        samples: The job's samples if they are loaded already.
        report: Of the check of these samples if it was made already.

    Raises:
        DataError: Pictures cannot be used, or the same one is in two splits or classes, and
            `skip_bad` is not set.
    """
    began = time.perf_counter()
    samples = load_samples(job.data, task=job.task) if samples is None else samples
    if report is None:
        report = _check(samples, progress)
    samples, digests, left_out = _good_ones(samples, report, job.skip_bad)
    words = splitting.assign(samples, job.val, job.test, job.seed, digests)
    shared = find_shared(samples, digests, words)
    if shared and not job.skip_bad:
        raise shared_error(shared)
    dropped = set(leave_out(samples, digests, words)) if shared else set()
    left_out += [{"path": samples.keys[i], "reason": "shared"} for i in sorted(dropped)]
    keep = [i for i in range(len(samples)) if i not in dropped]
    kept = dataclasses.replace(samples.take(keep), splits=tuple(words[i] for i in keep))
    digests = [digests[i] for i in keep]
    _refuse_lost_classes(kept)
    parts = splitting.divide(kept)
    seconds = time.perf_counter() - began
    named = dict(zip(kept.keys, digests, strict=True))
    whole, copies = fingerprint(kept, digests), _copies(kept, digests)
    return Checked(parts, whole, left_out, copies, seconds, named)


def without_bad(samples: Samples, skip: bool, progress: Progress) -> Samples:
    """Return the samples that can be used if bad ones are to be skipped, else all, unchecked."""
    if not skip:
        return samples
    report = _check(samples, progress)
    return samples.take(report.good) if report.bad else samples


def _check(samples: Samples, progress: Progress) -> CheckReport:
    word = f"check of {samples.modality.noun}s"
    return samples.modality.check(samples, progress=lambda d, n: progress(word, d, n))


def _good_ones(
    samples: Samples, report: CheckReport, skip: bool
) -> tuple[Samples, list[str], list[dict[str, str]]]:
    if not report.bad:
        return samples, list(report.digests), []
    if not skip:
        raise report.error()
    good = report.good
    return samples.take(good), [report.digests[i] for i in good], _listed(report.bad)


def _listed(bad: Sequence[BadSample]) -> list[dict[str, str]]:
    return [{"path": picture.path, "reason": picture.reason} for picture in bad]


def _refuse_lost_classes(samples: Samples) -> None:
    learned = np.array([word == "train" for word in samples.splits or ()])
    if lost := samples.kind.missing(samples.labels[learned], samples.class_names):
        raise DataError(
            f"no {samples.modality.noun} of {', '.join(lost[:10])} is left to train on in "
            f"{samples.root}; add some, or remove the class"
        )


def _copies(samples: Samples, digests: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, digest in zip(samples.keys, digests, strict=True):
        groups[digest].append(key)
    return [keys for keys in groups.values() if len(keys) > 1]
