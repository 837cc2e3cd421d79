"""Search for a quantized file that keeps the answers: strategies, tried one after the other.

A strategy takes the quantizer and the best settings so far, and yields settings to try with a note
of what it did in particular; one that has nothing to offer yields none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from export.agreement import Decision, can_decide, judge, measure, predict_all
from export.convert.graph import fold_batch_normalization
from export.quantize import onnx, tflite
from export.quantize.calibration import CLIPS, Observed, clip_ranges, read_calibration_inputs
from export.quantize.equalize import equalize
from export.quantize.recipes import Recipe
from export.quantize.rounding import list_rounded, round_weights
from export.runtime.runtimes import load
from export.source import Source
from export.variant import Attempt, Verdict
from tl_keras.errors import ExportError, GateError, TrainingError
from tl_keras.utils.progress import Progress

__all__ = [
    "STRATEGIES", "TOOLS", "Limits", "QuantizationSearch", "QuantizationTask", "Quantizer",
    "SearchResult", "Settings", "Strategy", "rank_by_error",
]  # fmt: skip

TOOLS: Mapping[str, ModuleType] = {"tflite": tflite, "onnx": onnx}
"""By format, the module whose `observe`, `list_layers` and `quantize` work on its files."""

_SHARES = (0.05, 0.1, 0.25, 0.5)
_RANKED_BY = 16
_NAMED = 5


@dataclass(frozen=True)
class Limits:
    """What a quantized file may lose, and what may be spent on it.

    Attributes:
        max_drop: accuracy that may be lost, 0..1, see `export.agreement.judge`.
        calibration: training samples that ranges are taken from.
        more: how many the strategy "more calibration" takes.
        seed: chooses them.
        train: whether the last strategy, quantization-aware training, may be tried.

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
                f"Got {self.calibration} calibration samples, then {self.more}; expected at "
                "least 1, and no fewer then."
            )


@dataclass(frozen=True, eq=False)
class QuantizationTask:
    """A file that shall become smaller.

    Attributes:
        source: what it was made from, and what it is judged by.
        truth: float32 (samples, outputs), what Keras answers for `source.deciding`.
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
        samples: how many training samples ranges are taken from.
        clip: how ranges are chosen, one of `CLIPS`.
        keep: layers left in float, or in int8 where others are int4.
        finished: contents of a file that needs no quantization any more.
    """

    contents: bytes = field(repr=False)
    samples: int = 0
    clip: str = CLIPS[0]
    keep: tuple[str, ...] = ()
    finished: bytes | None = field(default=None, repr=False)

    def record(self) -> dict[str, object]:
        """Return what is written down about them."""
        found: dict[str, object] = {}
        if self.samples:
            found = {"calibration_samples": self.samples, "clipping": self.clip}
        return {**found, "kept_layers": list(self.keep)} if self.keep else found


@dataclass(frozen=True)
class SearchResult:
    """What passed.

    Attributes:
        verdict: of the file that lies at the task's path, on the samples that decided.
        attempts: the strategies tried.
        settings: of the file.
        proven: whether there were samples enough to decide, see `export.agreement.judge`.
    """

    verdict: Verdict
    attempts: tuple[Attempt, ...]
    settings: Settings
    proven: bool = True


Strategy = Callable[["Quantizer", Settings], Iterator[tuple[Settings, str]]]


class Quantizer:
    """Makes files of a task by settings, and remembers what takes long.

    Args:
        task: the file that shall become smaller.
        limits: how many samples there may be, and their seed.
        progress: told (what is being done, how much is done, of how much).
    """

    def __init__(self, task: QuantizationTask, limits: Limits, progress: Progress) -> None:
        self.task, self.limits, self.progress = task, limits, progress
        self._observed: dict[tuple[int, int], dict[str, Observed]] = {}

    def available(self, count: int) -> int:
        """Return how many samples there are to calibrate with, at most `count`."""
        samples = self.task.source.calibrating
        return 0 if samples is None else min(count, len(samples))

    def read(self, count: int) -> dict[str, np.ndarray]:
        """Read so many samples to calibrate with, by the input's name.

        Raises:
            ExportError: if the source has no training samples.
        """
        source = self.task.source
        samples = source.calibrating
        if samples is None:
            raise ExportError(
                f"{self.task.recipe.name} needs training samples to calibrate with, and the "
                "source has none; give it the run's splits, or take fp16."
            )
        specs, seed = source.signature.inputs, self.limits.seed
        return source.remember(
            ("calibration", count, seed),
            lambda: read_calibration_inputs(samples, specs, count, seed),
        )

    def make(self, settings: Settings) -> bytes:
        """Return the contents of the file by these settings."""
        if settings.finished is not None:
            return self.task.finish(settings.finished)
        tool, recipe = TOOLS[self.task.recipe.format], self.task.recipe
        ranges = None
        if recipe.calibrated:
            ranges = clip_ranges(self.observe(settings), settings.clip, recipe.bits)
        self.progress(f"quantizing to {recipe.file}", 0, 1)
        in_bytes = self.task.source.signature.in_bytes
        made = tool.quantize(
            settings.contents, recipe, ranges, settings.keep, in_bytes=in_bytes
        )
        return self.task.finish(made)

    def observe(self, settings: Settings) -> dict[str, Observed]:
        """Return what tensors held for the settings' samples."""
        key = (hash(settings.contents), settings.samples)
        if key not in self._observed:
            self.progress(f"calibrating {self.task.recipe.file}", 0, 1)
            tool = TOOLS[self.task.recipe.format]
            self._observed[key] = tool.observe(settings.contents, self.read(settings.samples))
        return self._observed[key]


class QuantizationSearch:
    """Quantizes, and where that loses too much tries one strategy after the other.

    Each strategy starts from the best settings so far; one that a model does not allow, such as
    training a layer that has no counterpart in tf_keras, is passed over. What decides is
    `export.agreement.judge`, on samples that neither calibrated nor are reported on. The first file
    that is proven is taken. One that nothing speaks against but too few samples speak for ends
    the search only where no file could be proven; else it is taken where no other one is.

    Args:
        task: the file that shall become smaller.
        limits: what it may lose.
        progress: told (what is being done, how much is done, of how much).
        strategies: name and function of each, in order; `STRATEGIES` by default.
    """

    def __init__(
        self,
        task: QuantizationTask,
        limits: Limits,
        progress: Progress,
        strategies: Sequence[tuple[str, Strategy]] | None = None,
    ) -> None:
        self.task, self.limits, self.progress = task, limits, progress
        self.strategies = STRATEGIES if strategies is None else strategies
        self._attempts: list[Attempt] = []
        self._failed: dict[str, str] = {}

    def run(self) -> SearchResult:
        """Search; what passed lies at the task's path.

        Raises:
            GateError: if no strategy passes; each is named with its drop, or why it was passed
                over.
            ExportError: if the model cannot be quantized.
        """
        quantizer = Quantizer(self.task, self.limits, self.progress)
        calibrated = self.task.recipe.calibrated
        count = quantizer.available(self.limits.calibration) if calibrated else 0
        best, least = Settings(self.task.contents, count), (np.inf, np.inf)
        unproven: tuple[tuple[float, float], SearchResult, bytes] | None = None
        hopeless = not can_decide(len(self.task.truth), self.limits.max_drop)
        for name, strategy in self.strategies:
            start = time.perf_counter()
            for settings, note in self._offers(strategy(quantizer, best), name):
                contents = quantizer.make(settings)
                verdict = self._measure(contents)
                decision = judge(verdict, self.limits.max_drop)
                seconds, start = time.perf_counter() - start, time.perf_counter()
                self._note(name, verdict, decision, seconds, note)
                found = SearchResult(verdict, tuple(self._attempts), settings, decision.proven)
                if decision.proven or decision.passed and hopeless:
                    return found
                loss = (verdict.expected_drop, verdict.divergence)
                if decision.passed and (unproven is None or loss < unproven[0]):
                    unproven = (loss, found, contents)
                if loss < least:
                    best, least = settings, loss
        if unproven is None:
            raise GateError(self._describe_loss())
        self.task.path.write_bytes(unproven[2])
        return replace(unproven[1], attempts=tuple(self._attempts))

    def _note(
        self, name: str, verdict: Verdict, decision: Decision, seconds: float, note: str
    ) -> None:
        self._attempts.append(
            Attempt(
                name, decision.passed, verdict.drop, verdict.agreement, seconds, note,
                verdict.divergence, decision.why,
            )
        )  # fmt: skip

    def _measure(self, contents: bytes) -> Verdict:
        path, source = self.task.path, self.task.source
        path.write_bytes(contents)
        given = predict_all(load(path), source.deciding.inputs, self.progress, path.name)
        return measure(
            self.task.truth, given, source.deciding, source.kind, source.class_names
        )

    def _offers(
        self, offers: Iterator[tuple[Settings, str]], name: str
    ) -> Iterator[tuple[Settings, str]]:
        try:
            yield from offers
        except (ExportError, TrainingError) as error:
            if not self._attempts:
                raise
            self._failed[name] = str(error)

    def _describe_loss(self) -> str:
        tried = "; ".join(
            f"{one.strategy}{f' ({one.note})' if one.note else ''}: {one.why}"
            for one in self._attempts
        )
        tried += "".join(
            f"; {name}: not possible, {reason}" for name, reason in self._failed.items()
        )
        images = " and ".join(f"{n} {of}" for of, n in self.task.source.deciding.images.items())
        return (
            f"{self.task.recipe.file} loses more than {100 * self.limits.max_drop:.2f} points, "
            f"whatever is tried, on {images} ({tried}). Nothing was written; allow more with "
            "--max-drop, or take fp16."
        )


def try_plainly(quantizer: Quantizer, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Quantize with the first calibration samples, weights rounded so that outputs stay."""
    notes = [f"{best.samples} calibration samples"] if best.samples else []
    if _rounds(quantizer):
        task = quantizer.task
        # Most of an export's time: once for all recipes of the same weights, and all formats.
        key = ("rounded", task.recipe.weights, quantizer.limits)
        model, layers = task.source.remember(key, lambda: _fold_and_round(quantizer))
        notes.append(f"{layers} layers")
        contents = task.source.remember((*key, task.recipe.format), lambda: task.convert(model))
        best = replace(best, contents=contents)
    yield best, ", ".join(notes)


def _fold_and_round(quantizer: Quantizer) -> tuple[Any, int]:
    model = fold_batch_normalization(quantizer.task.source.model)
    return model, _round(quantizer, model)


def _rounds(quantizer: Quantizer) -> bool:
    """Whether weights are rounded on the graph, before the tool of the format sees them."""
    recipe = quantizer.task.recipe
    wanted = recipe.weights == "int8" or recipe.method == "gptq"
    return wanted and bool(quantizer.available(quantizer.limits.calibration))


def _round(quantizer: Quantizer, model: Any, keep: Sequence[str] = ()) -> int:
    """Round a folded model's weights; to 8 bits those of depthwise and of kept layers."""
    quantizer.progress("rounding weights", 0, 1)
    names = list_rounded(model)
    bits = dict.fromkeys(names, 8)
    if quantizer.task.recipe.weights == "int4":
        kept = {part for name in keep for part in _parts(name)}
        bits |= {
            name: 4
            for name in names
            if type(model.get_layer(name)).__name__ != "DepthwiseConv2D" and name not in kept
        }
    round_weights(model, quantizer.read(quantizer.limits.calibration), bits)
    return len(bits)


def _parts(name: str) -> set[str]:
    """What a tensor's name may have of a layer's: each part, and without a number behind it."""
    parts = name.split(";")[0].split("/")
    return {*parts, *(re.sub(r"_\d+$", "", part) for part in parts)}


def calibrate_more(quantizer: Quantizer, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Take ranges from more samples, if there are more."""
    count = quantizer.available(quantizer.limits.more)
    if quantizer.task.recipe.calibrated and count > best.samples:
        yield replace(best, samples=count), f"{count} calibration samples"


def clip_more(quantizer: Quantizer, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Leave rare, large values out of the ranges."""
    for clip in CLIPS[1:] if quantizer.task.recipe.calibrated else ():
        yield replace(best, clip=clip), clip


def equalize_channels(quantizer: Quantizer, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Spread ranges evenly over the channels, then round as at first."""
    task = quantizer.task
    if task.recipe.weights != "int8" or not quantizer.available(1):
        return
    quantizer.progress("equalizing", 0, 1)
    inputs = quantizer.read(quantizer.limits.calibration)
    made = equalize(task.source.model, inputs, task.source.kind)
    layers = _round(quantizer, made.model)
    note = f"{made.pairs} pairs of layers, {layers} rounded"
    note += f", {made.unbounded} ReLU6 became ReLU" if made.unbounded else ""
    yield replace(best, contents=task.convert(made.model), clip=CLIPS[0], keep=()), note


def keep_sensitive_layers(
    quantizer: Quantizer, best: Settings
) -> Iterator[tuple[Settings, str]]:
    """Leave more and more of the layers in float whose rounding alone harms most.

    Of int4 they become int8 instead.
    """
    task = quantizer.task
    if task.recipe.weights == "float16" or not quantizer.available(1):
        return
    worst = rank_by_error(quantizer, best)
    counts = dict.fromkeys(max(1, round(share * len(worst))) for share in _SHARES)
    for count in counts:
        settings = replace(best, keep=tuple(worst[:count]))
        if task.recipe.weights == "int4" and _rounds(quantizer):
            model = fold_batch_normalization(task.source.model)
            _round(quantizer, model, settings.keep)
            settings = replace(settings, contents=task.convert(model))
        names = ", ".join(map(_short, settings.keep[:_NAMED]))
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        yield settings, f"{names}{more} in {task.recipe.fallback}"


def rank_by_error(quantizer: Quantizer, settings: Settings) -> list[str]:
    """Order layers by the error of the outputs when one of them alone is rounded, worst first."""
    task, tool = quantizer.task, TOOLS[quantizer.task.recipe.format]
    inputs, path = quantizer.read(_RANKED_BY), task.path.with_name(f"one-{task.path.name}")
    ranges = None
    if settings.samples:
        ranges = clip_ranges(quantizer.observe(settings), settings.clip, task.recipe.bits)
    path.write_bytes(settings.contents)
    truth = load(path).predict(inputs)
    in_bytes = task.source.signature.in_bytes
    names, errors = tool.list_layers(settings.contents), {}
    for place, name in enumerate(names):
        quantizer.progress("rounding one layer at a time", place, len(names))
        options = {"only": name, "in_bytes": in_bytes}
        path.write_bytes(tool.quantize(settings.contents, task.recipe, ranges, **options))
        errors[name] = float(np.abs(load(path).predict(inputs) - truth).mean())
    path.unlink()
    return sorted(names, key=lambda name: -errors[name])


def _short(name: str) -> str:
    """A layer's own name, without the model's and what was merged into it."""
    parts = name.split(";")[0].split("/")
    return parts[1] if len(parts) > 2 else parts[0]


def train_quantized(quantizer: Quantizer, best: Settings) -> Iterator[tuple[Settings, str]]:
    """Train a little with rounded weights and activations."""
    task = quantizer.task
    ready = task.recipe.name == "int8" and task.recipe.format == "tflite"
    data, samples = task.source.data, task.source.calibrating
    if not ready or not quantizer.limits.train or data is None or samples is None:
        return
    from export.compress.fine_tune import FineTune
    from export.compress.methods import compress

    how = FineTune(seed=quantizer.limits.seed, progress=quantizer.progress)
    # Not with samples that decide, or that figures come from.
    made = compress(task.source.model, replace(data, train=samples), "qat", how)
    yield replace(best, finished=made.tflite, samples=0, keep=()), ""


STRATEGIES: tuple[tuple[str, Strategy], ...] = (
    ("first try", try_plainly),
    ("more calibration", calibrate_more),
    ("range clipping", clip_more),
    ("equalization", equalize_channels),
    ("sensitive layers kept", keep_sensitive_layers),
    ("quantization-aware training", train_quantized),
)
