"""Teacher, student alone and distilled student on a folder, over seeds.

    python benchmarks/distillation.py clothing10 --teacher-weights FILE --student-weights FILE

Both students have the same start, epochs, views and order; the loss is the only difference. The
teacher is trained once, with the first seed, unless --teacher names a run. The test split is
scored once at the end; nothing is chosen by it. The share of the gap closed is (distilled -
alone) / (teacher - alone) of the mean accuracies; the ratio of times leaves out the teacher's
own pass over the views, whose seconds are printed beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from export.distill.config import DistillationConfig
from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument(
        "--teacher", nargs="+", help="Finished runs, which teach together; none trains one."
    )
    parser.add_argument("--soup", action="store_true", help="Average the runs' weights.")
    parser.add_argument("--teacher-base", default="mobilenet_v2")
    parser.add_argument("--teacher-weights", default="imagenet")
    parser.add_argument("--student", default="mobilenet_v2@0.35")
    parser.add_argument("--student-weights", default="imagenet")
    parser.add_argument("--size", type=int, help="Side in pixels; none is the base's own.")
    parser.add_argument("--student-size", type=int, help="None is the teacher's.")
    parser.add_argument("--plan", default="lp-ft")
    parser.add_argument("--epochs", default="", help="Of each stage of the students' plan.")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--loss", default=DistillationConfig.loss)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--mixup", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    start_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        teacher = args.teacher or [_teacher(args, Path(folder) / "teacher")]
        runs = [_distilled(args, teacher, seed, Path(folder)) for seed in range(args.seeds)]
    _print(args, runs)


def _teacher(args: argparse.Namespace, out: Path) -> str:
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    asked = RunConfig.of(args.data, args.teacher_base, args.size, args.teacher_weights, test=0.2)
    run = train(asked, out)
    print(f"<!-- teacher: {run.record['timings']['total']:.0f} s -->", flush=True)
    return str(run.path)


def _distilled(args: argparse.Namespace, teacher: list[str], seed: int, folder: Path) -> dict:
    from export.distill.run import Distillation, distill

    given = {"temperature": args.temperature, "alpha": args.alpha}
    config = DistillationConfig(
        args.loss,
        mixup=1.0 if args.mixup else 0.0,
        **{name: value for name, value in given.items() if value is not None},
    )
    request = Distillation(
        teacher[0],
        args.student,
        config,
        weights=args.student_weights,
        plan=args.plan,
        settings={"views": args.views},
        epochs=tuple(int(word) for word in args.epochs.split(",") if word),
        seed=seed,
        size=args.student_size,
        others=tuple(teacher[1:]),
        together="soup" if args.soup else "ensemble",
    )
    facts = distill(request, folder / f"student-{seed}").record["distillation"]
    val = ", ".join(f"{n} {s['val']['accuracy']['value']:.4f}" for n, s in facts["scores"].items())
    print(f"<!-- seed {seed}, validation: {val}; kept {facts['kept']}; {facts['seconds']} -->",
          flush=True)  # fmt: skip
    return facts


def _print(args: argparse.Namespace, runs: list[dict]) -> None:
    split = "test" if "test" in runs[0]["scores"]["teacher"] else "val"
    each = {
        name: [run["scores"][name][split]["accuracy"]["value"] for run in runs]
        for name in ("teacher", "alone", "distilled")
    }
    means = {name: statistics.mean(values) for name, values in each.items()}
    gap = means["teacher"] - means["alone"]
    closed = (means["distilled"] - means["alone"]) / gap if gap else float("nan")
    ratios = [run["seconds"]["distilled"] / run["seconds"]["alone"] for run in runs]
    config, count = runs[0]["lesson"], runs[0]["scores"]["teacher"][split]["count"]
    print(f"{Path(args.data).name}: {count} {split} pictures, {config}, {runs[0]['views']} views")
    print("| teacher | student alone | distilled | gap closed | time ratio | teacher's pass |")
    print("|---|---|---|---|---|---|")
    cells = [f"{means[name]:.4f} ({_values(each[name])})" for name in ("alone", "distilled")]
    print(
        f"| {means['teacher']:.4f} | {cells[0]} | {cells[1]} | {closed:.0%} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{statistics.median(run['seconds']['teacher'] for run in runs):.0f} s |"
    )


def _values(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
