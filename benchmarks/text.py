"""Texts: test accuracy of a base by plan and number of rows, beside words alone.

    python benchmarks/text.py FOLDER --rows 2000 --plan solved --seeds 3
    python benchmarks/text.py FOLDER --few 8 --seeds 10

Rows are drawn from the training table by the seed; the test table is scored once. `--few` draws so
many a class and compares, on the same frozen features, a head solved on all that the base gives
(several blocks) with one on its last block alone, which is the usual sentence vector.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="folders with train and test tables")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--plan", default="solved")
    parser.add_argument("--rows", type=int, default=0, help="0 for all")
    parser.add_argument("--few", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None)
    args = parser.parse_args()
    start_tensorflow()
    if args.few:
        print("| data | sentences a class | last block | all blocks read | difference |")
        print("|---|---|---|---|---|")
    else:
        print("| data | rows | plan | test | out of fold | words alone | class names | seconds |")
        print("|---|---|---|---|---|---|---|---|")
    for data in args.data:
        print((_few if args.few else _fits)(args, data), flush=True)


def _fits(args: argparse.Namespace, data: str) -> str:
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    found, rows = [], 0
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            table = _draw(data, args.rows, seed, Path(folder) / "data.csv")
            more = {"minutes": args.minutes} if args.minutes else {}
            start = time.perf_counter()
            run = train(
                RunConfig.of(str(table), args.base, task="text", plan=args.plan, seed=seed, **more),
                Path(folder) / "run",
            )
            seconds = time.perf_counter() - start
            metrics, rows = run.record["metrics"], run.record["data"]["pictures"]["train"]
            aside = [one["metrics"]["accuracy"]["value"] for one in run.record["baselines"]]
            own = [metrics[name]["accuracy"]["value"] for name in ("test", "out_of_fold")]
            found.append([*own, *aside, seconds])
            print(f"<!-- {data} seed {seed}: {found[-1]} -->", flush=True)
    columns = list(zip(*found, strict=True))
    spread = statistics.stdev(columns[0]) if len(found) > 1 else 0.0
    rest = " | ".join(f"{statistics.mean(one):.3f}" for one in columns[1:-1])
    return (
        f"| {Path(data).name} | {rows} | {args.plan} | **{statistics.mean(columns[0]):.3f}** ± "
        f"{spread:.3f} | {rest} | {statistics.median(columns[-1]):.0f} |"
    )


def _draw(data: str, rows: int, seed: int, path: Path) -> Path:
    from tl_keras.data.sources import load_samples

    samples = load_samples(data, modality="text")
    words = np.array(samples.splits)
    known = np.flatnonzero(words == "train")
    chosen = np.random.default_rng(seed).permutation(known)[: rows or None]
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "split"])
        for place in [*chosen, *np.flatnonzero(words == "test")]:
            label = samples.class_names[samples.labels[place]]
            table.writerow([samples.items[place].value, label, words[place]])
    return path


def _few(args: argparse.Namespace, data: str) -> str:
    from tl_keras import tasks
    from tl_keras.data.sources import load_samples
    from tl_keras.evaluation.folds import assign_folds
    from tl_keras.features.extract import predict
    from tl_keras.models.backbones.load import build_backbone
    from tl_keras.runs.prepare import bind
    from tl_keras.training.solved_head import apply_head, solve_head

    samples = bind(load_samples(data, modality="text"), args.base)
    model = build_backbone(args.base, size=samples.modality.input_size)
    width = [one for one in model.layers if one.name.endswith("_pool")][-1].output.shape[-1]
    words, task = np.array(samples.splits), tasks.get("classes")
    test, known = np.flatnonzero(words == "test"), np.flatnonzero(words == "train")
    drawn = {}
    for seed in range(args.seeds):
        draw = np.random.default_rng(seed)
        rows = [draw.permutation(known[samples.labels[known] == label])[: args.few]
                for label in range(samples.outputs)]  # fmt: skip
        drawn[seed] = np.concatenate(rows)
    needed = np.unique(np.concatenate([test, *drawn.values()]))
    features = np.zeros((len(samples), model.outputs[0].shape[-1]), np.float32)
    features[needed] = predict(model, samples.take(needed))
    scores = []
    for rows in drawn.values():
        labels = samples.labels[rows]
        parts = assign_folds(labels, np.arange(len(rows)), 4, 0)
        folds = [(np.flatnonzero(parts != k), np.flatnonzero(parts == k)) for k in range(4)]
        pair = []
        for count in (width, features.shape[1]):
            head = solve_head(
                [features[rows, :count]], task.targets(labels, samples.outputs),
                np.ones(len(rows), np.float32), "softmax", folds, task.sample_losses,
            )  # fmt: skip
            said = apply_head(features[test, :count], head.weights, "softmax").argmax(1)
            pair.append(float((said == samples.labels[test]).mean()))
        scores.append(pair)
    last, several = np.array(scores).T
    gains = several - last
    return (
        f"| {Path(data).name} | {args.few} | {last.mean():.3f} | **{several.mean():.3f}** | "
        f"{100 * gains.mean():+.1f} ± {100 * gains.std(ddof=1) / len(gains) ** 0.5:.1f} points |"
    )


if __name__ == "__main__":
    main()
