"""How fast models answer, and what they need: fair, because all of them take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.runtime.runtimes import KerasRuntime, LiteRTRuntime, Runtime, default_threads, load
from export.variant import Latency
from tl_keras.errors import ExportError
from tl_keras.utils.progress import Progress, silent

__all__ = ["as_record", "bench", "interleaved", "thread_counts"]

ROUNDS, WARM_UP = 50, 5
_PATIENCE = 600


def thread_counts() -> tuple[int, ...]:
    """One core, and all (at most 4)."""
    return tuple(dict.fromkeys((1, default_threads())))


def bench(
    models: Mapping[str, str | os.PathLike[str]],
    *,
    threads: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    fresh: bool = True,
    progress: Progress = silent,
) -> dict[str, tuple[Latency, ...]]:
    """Measure models beside each other.

    In every round each model answers for one picture, in turn, so that a busy moment of the
    machine falls on all of them; each answers `WARM_UP` times before. Only the runtime is
    timed: the picture's numbers are in their final form. For the first answer and the memory,
    each model has a process of its own.

    Args:
        models: .tflite, .onnx or .keras files by name.
        threads: how many cores to use, one after the other; by default one and all.
        rounds: answers that are timed.
        fresh: whether to measure the first answer and the memory.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        By name, one latency for each number of threads.

    Raises:
        ExportError: if there is no model, one does not load, or a number is below 1.
    """
    counts = tuple(threads or thread_counts())
    if not models or rounds < 1 or min(counts) < 1:
        raise ExportError(
            f"Got {len(models)} models, {rounds} rounds and {counts} threads; "
            "expected at least one of each."
        )
    found: dict[str, list[Latency]] = {name: [] for name in models}
    for count in counts:
        runtimes = {name: load(path, count) for name, path in models.items()}
        word = f"with {count} thread{'s' * (count > 1)}"
        times = interleaved(runtimes, rounds, progress, f"answers {word}")
        for place, (name, path) in enumerate(models.items(), start=1):
            more = _fresh(os.fspath(path), count) if fresh else {}
            median, p90 = np.percentile(times[name], [50, 90])
            kind = _word(runtimes[name])
            found[name].append(Latency(kind, count, float(median), float(p90), **more))
            progress(f"first answers {word}", place, len(models))
    return {name: tuple(latencies) for name, latencies in found.items()}


def interleaved(
    runtimes: Mapping[str, Runtime],
    rounds: int,
    progress: Progress = silent,
    word: str = "answers",
) -> dict[str, np.ndarray]:
    """Time models in turn for one picture of noise each.

    Args:
        runtimes: by name.
        rounds: answers of each.
        progress: told (`word`, how many rounds are done, of how many).
        word: what to call it there.

    Returns:
        By name, milliseconds of every round: (rounds,).
    """
    calls = {name: _call(runtime) for name, runtime in runtimes.items()}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times = {name: np.zeros(rounds) for name in calls}
    for index in range(rounds):
        progress(word, index, rounds)
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name][index] = 1000 * (time.perf_counter() - start)
    progress(word, rounds, rounds)
    return times


def _call(runtime: Runtime) -> Callable[[], object]:
    noise = np.random.default_rng(0).integers(0, 256, (1, *runtime.shape), np.uint8)
    return runtime.prepared(noise)


def _word(runtime: Runtime) -> str:
    if isinstance(runtime, KerasRuntime):
        return "Keras"
    return "LiteRT" if isinstance(runtime, LiteRTRuntime) else "ONNX Runtime"


def _fresh(path: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "export.runtime.measure", path, str(threads)]
    place = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_PATIENCE, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(getattr(error, "stderr", "") or error)[-500:]
        raise ExportError(f"{path} does not answer in a process of its own: {said}") from error
    return json.loads(done.stdout.splitlines()[-1])


def as_record(
    models: Mapping[str, str | os.PathLike[str]], found: Mapping[str, Sequence[Latency]]
) -> list[dict[str, Any]]:
    """Return what was measured as rows for JSON, with each file's size.

    Args:
        models: files by name.
        found: what `bench` returned for them.
    """
    return [
        {"model": name, "bytes": Path(models[name]).stat().st_size, **vars(latency)}
        for name, latencies in found.items()
        for latency in latencies
    ]
