"""The whole export stage on a run: how long it takes, what int8 keeps, how small and fast it is.

python benchmarks/export_stage.py RUN [--data FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from export.pipeline import ExportConfig, export
from export.quantize.search import Limits
from export.source import from_run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default=None)
    parser.add_argument("--quantize", default="int8,fp16")
    parser.add_argument("--max-drop", type=float, default=0.01)
    args = parser.parse_args()
    start = time.perf_counter()
    recipes = tuple(args.quantize.split(","))
    orders = ExportConfig(("tflite", "onnx"), recipes, Limits(args.max_drop))
    with tempfile.TemporaryDirectory() as folder:
        made = export(from_run(args.run, data=args.data), orders, Path(folder, "bundle.zip"))
    print(f"whole stage {time.perf_counter() - start:.0f} s (target 180)")
    floats = {one.format: one for one in made if one.recipe == "fp32"}
    for one in made:
        plain, proof = floats[one.format], one.verdict
        kept = proof.accuracy / proof.source_accuracy if proof.accuracy else float("nan")
        print(
            f"{one.name:14} retention {kept:.4f}, agreement {proof.agreement:.4f} on "
            f"{dict(proof.images)}, divergence {proof.divergence:.2g}, "
            f"{'proven' if one.proven else 'not proven'}, "
            f"size {one.bytes / plain.bytes:.3f} of fp32, "
            f"{plain.latencies[-1].median_ms / one.latencies[-1].median_ms:.2f} times as fast, "
            f"strategies: {', '.join(attempt.strategy for attempt in one.attempts) or 'none'}"
        )


if __name__ == "__main__":
    main()
