"""Measure how fast models answer and what they need: fair, because all of them take turns.

`python -m export.runtime.bench FILE THREADS` prints what a model costs a fresh process, and then
how long one answer takes for each line that it reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from export.quantize.recipes import FLOAT
from export.runtime.runtimes import Runtime, check_file, check_threads, default_threads, load
from export.variant import Latency, Variant, is_slower
from tl_keras.errors import ExportError, TLKerasError
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.quiet import start_tensorflow

__all__ = [
    "RUNTIMES", "as_record", "bench", "count_threads", "main", "take_turns", "time_variants",
    "try_out",
]  # fmt: skip

ROUNDS, WARM_UP = 50, 5
RUNTIMES = {"tflite": "LiteRT", "onnx": "ONNX Runtime", "keras": "Keras"}
_VARIANT_ROUNDS = 30
_PATIENCE = 600
MISTAKE = 2
"""Exit code of a process whose last words are what is wrong with the file."""
_STATUS = Path("/proc/self/status")


def count_threads() -> tuple[int, ...]:
    """Return the numbers of threads to measure with: one, and all (at most 4)."""
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

    In every round each model answers for one sample, in turn, so that a busy moment of the
    machine falls on all of them; each answers `WARM_UP` times before. Only the runtime is
    timed: the sample's numbers are in their final form. For the first answer and the memory,
    each model has a process of its own; a .keras file answers in one altogether, since TensorFlow
    takes its number of threads once in a process.

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
    counts = tuple(threads or count_threads())
    if not models or rounds < 1:
        raise ExportError(
            f"Got {len(models)} models and {rounds} rounds; expected at least one of each."
        )
    for count in counts:
        check_threads(count)
    for path in models.values():
        check_file(path)
    found: dict[str, list[Latency]] = {name: [] for name in models}
    for count in counts:
        word = f"with {count} thread{'s' * (count > 1)}"
        costs: dict[str, dict[str, Any]] = {name: {} for name in models}
        for place, (name, path) in enumerate(models.items() if fresh else (), start=1):
            child = _Child(os.fspath(path), count)
            costs[name] = child.cost
            child.stop()
            progress(f"first answers {word}", place, len(models))
        times = _time_all(models, count, rounds, progress, f"answers {word}")
        for name, path in models.items():
            median, p90 = np.percentile(times[name], [50, 90])
            runtime = RUNTIMES[Path(path).suffix[1:]]
            measured = Latency(runtime, count, float(median), float(p90), rounds=rounds)
            found[name].append(replace(measured, **costs[name]))
    return {name: tuple(latencies) for name, latencies in found.items()}


def _time_all(
    models: Mapping[str, str | os.PathLike[str]],
    threads: int,
    rounds: int,
    progress: Progress,
    word: str,
) -> dict[str, np.ndarray]:
    keras = {name: os.fspath(path) for name, path in models.items() if str(path).endswith(".keras")}
    calls = {name: _make_timer(load(models[name], threads)) for name in models if name not in keras}
    children = {}
    try:
        for name, path in keras.items():
            children[name] = _Child(path, threads)
            calls[name] = children[name].time_answer
        return take_turns({name: calls[name] for name in models}, rounds, progress, word)
    finally:
        for child in children.values():
            child.stop()


def take_turns(
    calls: Mapping[str, Callable[[], float]],
    rounds: int,
    progress: Progress = silent,
    word: str = "answers",
) -> dict[str, np.ndarray]:
    """Let models answer in turn.

    Args:
        calls: by name, what answers once and returns how many milliseconds that took.
        rounds: answers of each, after `WARM_UP`.
        progress: told (`word`, how many rounds are done, of how many).
        word: what to call it there.

    Returns:
        By name, milliseconds of every round: (rounds,).
    """
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times = {name: np.zeros(rounds) for name in calls}
    for index in range(rounds):
        progress(word, index, rounds)
        for name, call in calls.items():
            times[name][index] = call()
    progress(word, rounds, rounds)
    return times


def _make_timer(runtime: Runtime) -> Callable[[], float]:
    random = np.random.default_rng(0)
    noise = {
        # What is no image may be an index into a small table.
        name: random.integers(0, 256 if len(shape) > 1 else 2, (1, *shape), np.uint8)
        for name, shape in runtime.inputs.items()
    }
    answer = runtime.prepare(noise)

    def time_answer() -> float:
        start = time.perf_counter()
        answer()
        return 1000 * (time.perf_counter() - start)

    return time_answer


class _Child:
    """A process that holds one model and answers when it is asked to.

    Attributes:
        cost: `first_ms` and `peak_mb` of the process, see `measure_cost`.
    """

    def __init__(self, path: str, threads: int) -> None:
        command = [sys.executable, "-m", "export.runtime.bench", path, str(threads)]
        self._path = path
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env=_environment(),
        )  # fmt: skip
        self.cost: dict[str, Any] = self._read()

    def time_answer(self) -> float:
        """Let it answer once; how many milliseconds that took."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and reading tells how
            print(file=self._process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> Any:
        patience = threading.Timer(_PATIENCE, self._process.kill)
        patience.start()
        try:
            line = cast(IO[str], self._process.stdout).readline()
        finally:
            patience.cancel()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip()
        self.stop()
        if code == MISTAKE:
            raise ExportError(said)
        if code < 0:
            raise _crashed(self._path, code)
        last = said.splitlines()[-1][:300] if said else "nothing was said"
        raise ExportError(f"{self._path} does not answer: {last}. Is it damaged? Get it anew.")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._said.close()


def try_out(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Let models answer once in a process of their own, since a runtime may crash on a bad file.

    What they answer, or raise, is not looked at.

    Args:
        paths: .tflite or .onnx files.

    Raises:
        ExportError: if one of them ends the process.
    """
    names = [os.fspath(path) for path in paths]
    command = [sys.executable, "-m", "export.runtime.bench", "--try", *names]
    done = subprocess.run(command, capture_output=True, env=_environment(), timeout=_PATIENCE)
    if done.returncode < 0:
        raise _crashed(names[min(len(done.stdout.split()), len(names) - 1)], done.returncode)


def _environment() -> dict[str, str]:
    place = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths}


def _crashed(path: str | os.PathLike[str], code: int) -> ExportError:
    return ExportError(
        f"{os.fspath(path)} crashes its runtime ({signal.strsignal(-code)}); it is damaged, or not "
        "for this machine. Get it anew."
    )


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


def time_variants(
    variants: Sequence[Variant],
    fresh: bool = True,
    progress: Progress = silent,
) -> list[Variant]:
    """Time the variants in turns, and note those slower than their float one.

    Args:
        variants: each with its file; the float one of each format among them.
        fresh: whether to measure first answers and memory too, in processes of their own.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        The same variants with their latencies, and a note where one is slower with all cores.
    """
    files = {one.name: one.path for one in variants}
    found = bench(files, rounds=_VARIANT_ROUNDS, fresh=fresh, progress=progress)
    made = []
    for one in variants:
        plain = found.get(f"{one.format}-{FLOAT}", found[one.name])
        ratio = found[one.name][-1].median_ms / plain[-1].median_ms
        slower = is_slower(found[one.name][-1], plain[-1])
        notes = one.notes + ((_slower(one, ratio),) if slower else ())
        made.append(replace(one, latencies=found[one.name], notes=notes))
    return made


def _slower(variant: Variant, ratio: float) -> str:
    return (
        f"{ratio:.1f} times slower than fp32 in {RUNTIMES[variant.format]} here: "
        "measure it on your device before you choose it for speed."
    )


def _measure_cost(path: str, threads: int) -> tuple[dict[str, float | None], Callable[[], float]]:
    """Load a model and answer once, in this process.

    Args:
        path: a .tflite, .onnx or .keras file.
        threads: cores to use.

    Returns:
        `first_ms`: loading and the first answer; `peak_mb`: the most memory that this process
        ever held, Python included; None where the system does not tell. Then what answers once
        more and returns how many milliseconds that took.
    """
    _import_runtime(path)
    start = time.perf_counter()
    runtime = load(path, threads)
    timer = _make_timer(runtime)
    timer()
    return {"first_ms": 1000 * (time.perf_counter() - start), "peak_mb": _read_peak()}, timer


def _import_runtime(path: str) -> None:
    """Import the runtime before the clock starts: a program does that once, for any model."""
    if path.endswith(".tflite"):
        import ai_edge_litert.interpreter  # noqa: F401
    elif path.endswith(".onnx"):
        import onnxruntime  # noqa: F401
    else:
        start_tensorflow()
        import keras  # noqa: F401


def _read_peak() -> float | None:
    # Not getrusage: a process inherits the peak of the one that started it.
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peaks[0]) / 1024 if peaks else None


def main() -> None:
    """Read the command line, print the cost as JSON, then time an answer for each line.

    After `--try`, each file named answers once, and a line says so.
    """
    # What a runtime prints shall not be taken for an answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1] == "--try":
        for path in sys.argv[2:]:
            with contextlib.suppress(Exception):
                _make_timer(load(path, 1))()
            print("done", file=out, flush=True)
        return
    try:
        cost, time_answer = _measure_cost(sys.argv[1], int(sys.argv[2]))
        print(json.dumps(cost), file=out, flush=True)
        for _ in sys.stdin:
            print(time_answer(), file=out, flush=True)
    except TLKerasError as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main()
