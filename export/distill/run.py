"""Distillation: a small student learns from a trained teacher, and from the labels.

The teacher answers once for every seeded view of every training sample. The same student is
also trained without it, on the same views, for as many epochs; the better of the two on the
validation samples is what is handed on, as an ordinary run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.distill.comparison import compare_students, score_models
from export.distill.mixup import Mixing
from export.distill.objectives import BaselineObjective, DistillationObjective, make_view_reader
from export.distill.students import Distillation, Prepared, prepare_distillation
from export.distill.teacher import TeacherCache, load_teacher, make_answering_model
from tl_keras.errors import ExportError, RunError
from tl_keras.runs.directory import RunDirectory, refuse_existing
from tl_keras.runs.lifecycle import (
    INITIAL,
    create,
    finish,
    guard,
    hold,
    initial_model,
    record_training,
)
from tl_keras.training.config import FitOptions, FitResult
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

if TYPE_CHECKING:
    import keras

    from tl_keras.training.objective import Objective

__all__ = ["Distillation", "distill"]


@dataclass(frozen=True, eq=False)
class _Trained:
    model: keras.Model
    result: FitResult
    seconds: float


@guard()
def distill(
    request: Distillation,
    out: str | Path,
    *,
    progress: Progress = silent,
    command: str = "",
) -> RunDirectory:
    """Distil a teacher into a student, and write the better student as a run.

    Called again after it was stopped, with the same request, it goes on.

    Args:
        request: What to do.
        out: The run to make; it must not exist, or be an unfinished one of this request.
        progress: Called with a task's name, what is done and of how much.
        command: What the user wrote, for the record.

    Returns:
        The complete run; its record's "distillation" tells of teacher, losses and scores.

    Raises:
        TLKerasError: Anything a user can mend.
    """
    unfinished = _unfinished(Path(out), request)
    if unfinished is None:
        refuse_existing(Path(out), request.data, _samples_of(request.teacher))
    for other in request.others:
        RunDirectory(other).require_complete()
    start_tensorflow()
    teacher = load_teacher(request.teacher, request.others, request.together)
    ready = prepare_distillation(request, teacher, progress)
    # What does not fit together is said before anything is written.
    model, pairs = make_answering_model(teacher, ready.student, request.losses)
    if unfinished is None:
        _begin(request, ready, out, command)
    with hold(out):
        run = RunDirectory(out)
        if unfinished is not None:
            _check_same(run, ready, progress)
        with guard(run):
            return _run(run, request, ready, model, pairs, progress)


def _run(
    run: RunDirectory,
    request: Distillation,
    ready: Prepared,
    model: keras.Model,
    pairs: Any,
    progress: Progress,
) -> RunDirectory:
    began = time.perf_counter()
    answers = _answers(run, request, ready, model, progress)
    seconds = time.perf_counter() - began
    mixing = _mixing(request, ready)
    lessons: dict[str, Objective] = {
        "alone": BaselineObjective(ready.data.splits, ready.plan, mixing),
        "distilled": DistillationObjective(
            ready.data.splits, ready.plan, answers, pairs, request.losses, mixing
        ),
    }  # fmt: skip
    if not request.baseline:
        del lessons["alone"]
    trained = {
        name: _train(run, ready, objective, name, progress) for name, objective in lessons.items()
    }
    return _hand_on(run, request, ready, answers, trained, {"teacher": seconds}, progress)


def _request(request: Distillation) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(request)))


def _unfinished(out: Path, request: Distillation) -> RunDirectory | None:
    if not (out / "run.json").exists():
        return None
    run = RunDirectory(out)
    before = run.record.get("distillation", {}).get("request")
    if run.complete or before is None or not (run.state / INITIAL).exists():
        return None
    now = _request(request)
    other = [key for key in now if now[key] != before.get(key)]
    if other:
        said = ", ".join(f"{key} {before.get(key)!r} then, {now[key]!r} now" for key in other[:3])
        raise RunError(
            f"{out} holds an unfinished distillation with other settings ({said}); repeat them to "
            "go on, or choose another --out"
        )
    if why := run.record.get("stopped"):
        raise RunError(f"{out} cannot go on, it would stop again: {why}")
    return run


def _samples_of(teacher: str) -> str | None:
    """Where a teacher's samples are, if it is a run."""
    return RunDirectory(teacher).fact("data", "root") if Path(teacher).is_dir() else None


def _begin(request: Distillation, ready: Prepared, out: str | Path, command: str) -> None:
    facts = {
        "request": _request(request),
        "teacher": {
            "name": ready.teacher.name,
            "path": str(Path(request.teacher).resolve()),
            "digest": _digest(ready.teacher.model),
            "parameters": int(ready.teacher.model.count_params()),
        },
        "held_out": _held_out(ready),
    }
    create(
        out, ready.config, ready.data, ready.student, command=command, resumable=True,
        distillation=facts, plan=ready.plan.to_dict(),
    )  # fmt: skip


def _held_out(ready: Prepared) -> int:
    """Samples of validation that the teacher was trained on, having had no validation."""
    run = ready.teacher.run
    if run is None:
        return 0
    return len(set(ready.data.splits.val.keys).intersection(run.split_keys()["train"]))


def _digest(model: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _check_same(run: RunDirectory, ready: Prepared, progress: Progress) -> None:
    if run.fact("distillation", "teacher", "digest") != _digest(ready.teacher.model):
        raise ExportError(
            f"The teacher is not the one that {run.path} was begun with; put it back, or choose "
            "another --out."
        )
    run.require_unchanged(ready.data.splits, progress)


def _mixing(request: Distillation, ready: Prepared) -> Mixing | None:
    if not request.losses.mixup:
        return None
    return Mixing(len(ready.data.splits.train), ready.config.run.seed, request.losses.mixup)


def _answers(
    run: RunDirectory,
    request: Distillation,
    ready: Prepared,
    model: keras.Model,
    progress: Progress,
) -> TeacherCache:
    train, plan, seed = ready.data.splits.train, ready.plan, ready.config.run.seed
    mixing = _mixing(request, ready)
    reader = make_view_reader(train, model, plan.augment, seed, mixing)
    folder = run.state / "teacher"
    answers = TeacherCache(model, reader, plan.views, folder, ready.config.run.precision, progress)
    answers.compute()
    return answers


def _train(
    run: RunDirectory, ready: Prepared, objective: Objective, name: str, progress: Progress
) -> _Trained:
    from tl_keras.training.trainer import fit_with

    student = initial_model(run)
    options = FitOptions(
        seed=ready.config.run.seed,
        state_dir=run.state / name,
        precision=ready.config.run.precision,
        progress=lambda task, done, total: progress(f"{name}: {task}", done, total),
        fingerprint=ready.data.fingerprint,
        objective=objective,
    )
    with guard(run, student):
        result = fit_with(student, ready.data.splits, ready.plan, options)
    return _Trained(student, result, sum(stage["seconds"] for stage in result.stages))


def _hand_on(
    run: RunDirectory,
    request: Distillation,
    ready: Prepared,
    answers: TeacherCache,
    trained: dict[str, _Trained],
    seconds: dict[str, float],
    progress: Progress,
) -> RunDirectory:
    splits, models = ready.data.splits, {name: one.model for name, one in trained.items()}
    scores = score_models(answers, models, splits, ready)
    verdict = compare_students(models, splits.val)
    kept = trained[verdict["kept"]]
    seconds |= {name: one.seconds for name, one in trained.items()}
    run.update(
        distillation={
            **run.fact("distillation"),
            "lesson": dataclasses.asdict(request.losses),
            "views": ready.plan.views,
            "scores": scores,
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "engine": answers.engine.reason if answers.engine else "",
            **verdict,
        },
    )
    record_training(run, kept.result, seconds)
    finish(run, kept.model, splits, kept.result.history, progress)
    return run
