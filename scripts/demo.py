"""The main job on the digits that come along: transfer, scratch, export.

    make demo

Ten images a class, both networks the same; the one starts from the base that was pretrained on
rendered letters and is trained by the usual plan, the other from random weights, all layers for
sixty epochs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tl_keras.cli.console import bars, error_boundary, percent, show, table
from tl_keras.runs.config import RunConfig
from tl_keras.workflows.fit import train

# The rate from scratch was chosen on validation.
SETTINGS = {"augment": "none", "batch_size": 20}
JOBS = {
    "from the small base": RunConfig.of(
        "digits", "small_resnet", settings={"augment": "none"}
    ),
    "from scratch": RunConfig.of(
        "digits", backbone="small_resnet", weights="none", plan="scratch", epochs=(60,),
        lr_scale=5.0, settings=SETTINGS,
    ),
}  # fmt: skip


def main() -> None:
    """Train, compare, export, verify."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="default: runs/demo-<time>")
    out = parser.parse_args().out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    with error_boundary(debug=False, when_stopped=lambda: f"What is done so far is in {out}"):
        _demo(out)


def _demo(out: Path) -> None:
    began, runs = time.perf_counter(), {}
    for name, job in JOBS.items():
        with bars() as progress:
            runs[name] = train(job, out / name.replace(" ", "-"), progress=progress)
    result = table("digits, 10 training pictures a class", "", "test accuracy", "seconds")
    for name, run in runs.items():
        accuracy, seconds = run.record["metrics"]["test"]["accuracy"], run.record["timings"]
        result.add_row(name, percent(accuracy), f"{seconds['training']:.0f}")
    best = runs["from the small base"]
    made = _export(best.path)
    values = [run.record["metrics"]["test"]["accuracy"]["value"] for run in runs.values()]
    show(result, made)
    show(f"gain by transfer: {100 * (values[0] - values[1]):.1f} points")
    show(f"report: {best.path / 'report.html'}", f"in all {time.perf_counter() - began:.0f} s")
    if values[0] <= values[1]:
        sys.exit("transfer did not help: that is not as it should be")


def _export(path: Path):
    from export.pipeline import ExportConfig, export
    from export.source import from_run

    with bars() as progress:
        orders = ExportConfig(("tflite", "onnx"), fresh=False)
        variants = export(from_run(path), orders, path / "export", progress=progress)
    heading = "exported, and compared with Keras"
    made = table(heading, "file", "size", "largest difference", "labels")
    for one in variants:
        same = one.verdict
        equal = f"{round(same.agreement * same.count)} of {same.count} equal"
        made.add_row(one.name, f"{one.bytes / 1e6:.2f} MB", f"{same.max_difference:.1e}", equal)
    return made


if __name__ == "__main__":
    main()
