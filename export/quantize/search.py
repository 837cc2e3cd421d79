"""The ladder: what is tried, one thing after the other, when a quantized file lost too much."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from export.agreement import gate
from export.convert.signature import signature
from export.quantize.calibration import calibration_pictures
from export.quantize.ranges import CLIPS, Seen, clip_ranges
from export.quantize.recipes import Recipe
from export.quantize.tools import TOOLS
from export.source import Source
from export.variant import Attempt, Verdict
from tl_keras.errors import ExportError, GateError, TrainingError
from tl_keras.utils.progress import Progress

__all__ = ["Climb", "Limits", "Rung", "Settings", "Task", "Workshop", "climb"]



@dataclass(frozen=True)
class Limits:
    """What a quantized file may lose, and what may be spent on it.

    Attributes:
        max_drop: largest `Verdict.drop` that passes, 0..1.
        calibration: training pictures that ranges are taken from.
        more: how many the rung "more calibration" takes.
        seed: chooses them.
        train: whether the last rung, quantization-aware training, may be tried.

    Raises:
        ExportError: if a number makes no sense.
    """

    max_drop: float = 0.01
    calibration: int = 128
    more: int = 512
    seed: int = 0
    train: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if not 0 <= self.max_drop <= 1:
            raise ExportError(f"Got a largest drop of {self.max_drop}; expected 0..1.")
        if not 1 <= self.calibration <= self.more:
            raise ExportError(
                f"Got {self.calibration} calibration pictures, then {self.more}; expected at "
                "least 1, and no fewer then."
            )


@dataclass(frozen=True, eq=False)
class Task:
    """A file that shall become smaller.

    Attributes:
        source: what it was made from, and what it is judged by.
        truth: float32 (pictures, outputs), what Keras answers.
        recipe: what to make of it.
        contents: of the float32 file.
        finish: what is done to each new file before it is judged, such as adding metadata.
        path: where the file under trial is written; what passed lies there at the end.
        convert: makes the contents of a float32 file from a Keras model.
    """

    source: Source
    truth: np.ndarray
    recipe: Recipe
    contents: bytes
    path: Path
    convert: Callable[[object], bytes]
    finish: Callable[[bytes], bytes] = lambda contents: contents


@dataclass(frozen=True)
class Settings:
    """How a file is quantized.

    Attributes:
        contents: of the float32 file.
        pictures: how many training pictures ranges are taken from.
        clip: how ranges are chosen, one of `CLIPS`.
        keep: layers left in float.
        finished: contents of a file that needs no quantization any more.
    """

    contents: bytes = field(repr=False)
    pictures: int = 0
    clip: str = CLIPS[0]
    keep: tuple[str, ...] = ()
    finished: bytes | None = field(default=None, repr=False)

    def record(self) -> dict[str, object]:
        """Return what is written down about them."""
        found: dict[str, object] = {}
        if self.pictures:
            found = {"calibration_pictures": self.pictures, "clipping": self.clip}
        return {**found, "float_layers": list(self.keep)} if self.keep else found


@dataclass(frozen=True)
class Climb:
    """What passed.

    Attributes:
        verdict: of the file that lies at the task's path.
        attempts: the rungs tried; the last one passed.
        settings: of the file.
    """

    verdict: Verdict
    attempts: tuple[Attempt, ...]
    settings: Settings


Rung = Callable[["Workshop", Settings], Iterator[tuple[Settings, str]]]


class Workshop:
    """Makes files of a task by settings, and remembers what takes long.

    Args:
        task: the file that shall become smaller.
        limits: how many pictures there may be, and their seed.
        progress: told (what is being done, how much is done, of how much).
    """

    def __init__(self, task: Task, limits: Limits, progress: Progress) -> None:
        self.task, self.limits, self.progress = task, limits, progress
        self._seen: dict[tuple[int, int], dict[str, Seen]] = {}

    def available(self, count: int) -> int:
        """Return how many pictures there are to calibrate with, at most `count`."""
        data = self.task.source.data
        return 0 if data is None else min(count, len(data.train))

    def pictures(self, count: int) -> np.ndarray:
        """Read calibration pictures, uint8 (n, size, size, 3).

        Raises:
            ExportError: if the source has no training pictures.
        """
        data, source = self.task.source.data, self.task.source
        if data is None:
            raise ExportError(
                f"{self.task.recipe.name} needs training pictures to calibrate with, and the "
                "source has none; give it the run's splits, or take fp16."
            )
        size = signature(source.model).size
        return calibration_pictures(data.train, size, count, self.limits.seed)

    def make(self, settings: Settings) -> bytes:
        """Return the contents of the file by these settings."""
        if settings.finished is not None:
            return self.task.finish(settings.finished)
        tool, recipe = TOOLS[self.task.recipe.format], self.task.recipe
        ranges = None
        if recipe.calibrated:
            ranges = clip_ranges(self.seen(settings), settings.clip)
        self.progress(f"quantizing to {recipe.file}", 0, 1)
        return self.task.finish(tool.quantize(settings.contents, recipe, ranges, settings.keep))

    def seen(self, settings: Settings) -> dict[str, Seen]:
        """Return what tensors held for the settings' pictures."""
        key = (hash(settings.contents), settings.pictures)
        if key not in self._seen:
            self.progress(f"calibrating {self.task.recipe.file}", 0, 1)
            tool = TOOLS[self.task.recipe.format]
            self._seen[key] = tool.seen(settings.contents, self.pictures(settings.pictures))
        return self._seen[key]


def climb(
    task: Task, limits: Limits, progress: Progress, rungs: Sequence[tuple[str, Rung]]
) -> Climb:
    """Quantize, and where that loses too much try one rung after the other.

    Each rung starts from the best settings so far; one that a model does not allow, such as
    training a layer that has no counterpart in tf_keras, is passed over. Nothing but
    `Verdict.drop` decides, which is the share of pictures that disagree with Keras where nobody
    knows their labels.

    Args:
        task: the file that shall become smaller.
        limits: what it may lose.
        progress: told (what is being done, how much is done, of how much).
        rungs: name and way of each, in order.

    Raises:
        GateError: if no rung passes; each is named with its drop, or why it was passed over.
        ExportError: if the model cannot be quantized.
    """
    workshop = Workshop(task, limits, progress)
    attempts: list[Attempt] = []
    failed: dict[str, str] = {}
    count = workshop.available(limits.calibration) if task.recipe.calibrated else 0
    best, least = Settings(task.contents, count), np.inf
    for name, rung in rungs:
        start = time.perf_counter()
        for settings, note in _tries(rung(workshop, best), name, failed, first=not attempts):
            task.path.write_bytes(workshop.make(settings))
            verdict = gate(task.path, task.source, task.truth, progress)
            passed = verdict.drop <= limits.max_drop + 1e-12
            seconds, start = time.perf_counter() - start, time.perf_counter()
            attempts.append(Attempt(name, passed, verdict.drop, verdict.agreement, seconds, note))
            if passed:
                return Climb(verdict, tuple(attempts), settings)
            if verdict.drop < least:
                best, least = settings, verdict.drop
    raise GateError(_lost(task, limits, attempts, failed))


def _tries(
    tries: Iterator[tuple[Settings, str]], name: str, failed: dict[str, str], first: bool
) -> Iterator[tuple[Settings, str]]:
    try:
        yield from tries
    except (ExportError, TrainingError) as error:
        if first:
            raise
        failed[name] = str(error)


def _lost(
    task: Task, limits: Limits, attempts: Sequence[Attempt], failed: Mapping[str, str]
) -> str:
    tried = "; ".join(
        f"{one.rung}{f' ({one.note})' if one.note else ''}: {100 * one.drop:.2f}"
        for one in attempts
    )
    tried += "".join(f"; {name}: not possible, {reason}" for name, reason in failed.items())
    return (
        f"{task.recipe.file} loses more than {100 * limits.max_drop:.2f} points on "
        f"{len(task.source.pictures)} validation pictures, whatever is tried ({tried}). Nothing "
        "was written; allow more with --max-drop, or take fp16."
    )
