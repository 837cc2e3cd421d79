"""Few parameters against all: test accuracy of LoRA and adapters beside full fine-tuning.

    python benchmarks/few_parameters.py FOLDER ... --weights FILE --seeds 3

Each run is what `tl-keras fit` does: validation is carved from the training split, and the test
split is scored once at the end. The plans of a seed share data, splits and the head's start. The
ratio is of the means over the seeds; "share" is what the last stage trains, head included, of
all parameters. A folder without a test split gives a quarter of its pictures by the seed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from accuracy import _with_test

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--plans", default="lp-ft,lora,adapters")
    parser.add_argument("--size", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the plans' rates")
    args = parser.parse_args()
    start_tensorflow()
    plans = args.plans.split(",")
    print(f"| data | plan | share | test | of {plans[0]} | val | by seed | seconds a run |")
    print("|---|---|---|---|---|---|---|---|")
    for data in args.data:
        rows = {plan: [_run(args, data, plan, seed) for seed in range(args.seeds)]
                for plan in plans}  # fmt: skip
        for plan in plans:
            print(_row(data, plan, rows[plan], _mean(rows[plans[0]], "test")), flush=True)


def _run(args: argparse.Namespace, data: str, plan: str, seed: int) -> dict:
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    with tempfile.TemporaryDirectory() as folder:
        source, share = _with_test(data, Path(folder))
        job = RunConfig.of(
            source, args.base, args.size, args.weights, plan=plan, seed=seed, test=share,
            settings={"views": 4}, rank=args.rank, lr_scale=args.rate,
        )  # fmt: skip
        start = time.perf_counter()
        record = train(job, Path(folder) / "run").record
    stages = [(s["name"], s["epochs_run"], round(s["best_val_loss"], 3), s["best_val_accuracy"])
              for s in record["stages"]]  # fmt: skip
    row = {
        "seconds": time.perf_counter() - start,
        "trained": record["stages"][-1]["trainable_parameters"],
        "all": _parameters(args, len(record["classes"])),
        **{part: record["metrics"][part]["accuracy"]["value"] for part in ("val", "test")},
    }
    print(f"<!-- {data} {plan} seed {seed}: {row['test']:.4f}, {row['seconds']:.0f} s, "
          f"kept {record['best_stage']} of {stages} -->", flush=True)  # fmt: skip
    return row


def _parameters(args: argparse.Namespace, outputs: int) -> int:
    from tl_keras.models.build import build_model

    return build_model(args.base, outputs, size=args.size, weights=None).count_params()


def _mean(rows: list[dict], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def _row(data: str, plan: str, rows: list[dict], reference: float) -> str:
    each = " ".join(f"{row['test']:.3f}" for row in rows)
    test = _mean(rows, "test")
    return (
        f"| {Path(data).name} | {plan} | {rows[0]['trained'] / rows[0]['all']:.2%} "
        f"| **{test:.4f}** | {test / reference:.4f} | {_mean(rows, 'val'):.4f} | {each} "
        f"| {_mean(rows, 'seconds'):.0f} |"
    )


if __name__ == "__main__":
    main()
