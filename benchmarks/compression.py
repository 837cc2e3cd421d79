"""Pruned by half and trained in int8: the size when zipped, and the accuracy that is left.

    python benchmarks/compression.py runs/photos                        # prune+qat
    python benchmarks/compression.py runs/photos --method qat cluster+qat --epochs 4

For each method, on a finished run: the .tflite file zipped, over the size of the run's own
.tflite in float32 (not zipped); accuracy on all validation pictures over that of the run's model;
labels equal. Bound for prune+qat: size at most 0.20 at a retention of at least 0.985. The exit
code is 1 when it is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, RETENTION = 0.20, 0.985
HEADING = (
    "| run | method | size / fp32 | zipped / fp32 | accuracy | retention | labels equal | s |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|"
)


def measure(run: Path, method: str, how, data: str | None) -> dict:
    """Compress a run by one method and read the verdict of its .tflite file."""
    from export.compress.run import CompressConfig, compress_run

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = CompressConfig(method, how, max_drop=1.0)
        made = compress_run(run, config, Path(folder) / "out", data=data)
    zipped, of_fp32 = made.facts["zipped"], made.facts["zipped_of_fp32"]
    proof = made.verdict
    return {
        "run": run.name, "method": method, "size": made.bytes * of_fp32 / zipped,
        "zipped": of_fp32, "accuracy": proof.accuracy,
        "retention": proof.accuracy / proof.source_accuracy, "agreement": proof.agreement,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def row(found: dict) -> str:
    """One line of the table."""
    shares = [f"{found[key]:.3f}" for key in ("size", "zipped")]
    percents = [f"{100 * found[key]:.1f} %" for key in ("accuracy", "retention", "agreement")]
    cells = [found["run"], found["method"], *shares, *percents, f"{found['seconds']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Print the table; say whether the bound holds."""
    from export.compress.fine_tune import FineTune

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--method", nargs="+", default=["prune+qat"])
    parser.add_argument("--epochs", type=int, default=4, help="of each step")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--data", help="where the pictures are now")
    wanted = parser.parse_args()
    how = FineTune(wanted.epochs, wanted.rate, augment=wanted.augment)
    print(HEADING)
    missed = False
    for run in wanted.runs:
        for method in wanted.method:
            found = measure(run, method, how, wanted.data)
            print(row(found), flush=True)
            good = found["zipped"] <= SIZE and found["retention"] >= RETENTION
            missed |= method == "prune+qat" and not good
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
