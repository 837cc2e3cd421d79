"""Prints as JSON what a model costs a fresh process.

`python -m export.runtime.measure FILE THREADS`
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from export.runtime.runtimes import load

__all__ = ["main", "measured"]

_STATUS = Path("/proc/self/status")


def measured(path: str, threads: int) -> dict[str, float | None]:
    """Load a model and answer once, in this process.

    Args:
        path: a .tflite, .onnx or .keras file.
        threads: cores to use.

    Returns:
        `first_ms`: loading and the first answer; `peak_mb`: the most memory that this process
        ever held, Python included; None where the system does not tell.
    """
    _import_runtime(path)
    start = time.perf_counter()
    runtime = load(path, threads)
    runtime.predict(np.zeros((1, *runtime.shape), np.uint8))
    return {"first_ms": 1000 * (time.perf_counter() - start), "peak_mb": _peak()}


def _import_runtime(path: str) -> None:
    """Import the runtime before the clock starts: a program does that once, for any model."""
    if path.endswith(".tflite"):
        import ai_edge_litert.interpreter  # noqa: F401
    elif path.endswith(".onnx"):
        import onnxruntime  # noqa: F401


def _peak() -> float | None:
    # Not getrusage: a process inherits the peak of the one that started it.
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    peaks = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peaks[0]) / 1024 if peaks else None


def main() -> None:
    """Read the command line and print one line of JSON."""
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))


if __name__ == "__main__":
    main()
