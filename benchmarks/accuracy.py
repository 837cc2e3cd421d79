"""From folder to report, over seeds: test accuracy beside logistic regression's.

    python benchmarks/accuracy.py FOLDER ... --weights FILE --seeds 5

Each run is what `tl-keras fit` does; the test split is scored once at the end. A validation split
of the data decides, and without one folds do. The references are logistic regression (sklearn) on
the same base's frozen, average-pooled features, C chosen by 5-fold cross-validation: of the images
that the run learnt from, and of those and its validation images. A folder without a test split
gives a quarter of its images by the seed. With `--all` a validation split is learned from too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tl_keras.training.plan import FOLDED_PLANS
from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--plan", default="tuned")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--augment", default="flip+crop")
    parser.add_argument("--epochs", default="")
    parser.add_argument("--all", action="store_true", help="learn from validation's images too")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    args = parser.parse_args()
    start_tensorflow()
    print(
        "| data | test | fit | by seed | LR, same pictures | LR, with validation "
        "| seconds a run |"
    )
    print("|---|---|---|---|---|---|---|")
    for data in args.data:
        print(_row(args, data), flush=True)


def _row(args: argparse.Namespace, data: str) -> str:
    fits, references, seconds, count = [], [], [], 0
    for seed in range(args.seed, args.seed + args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run = _train(args, data, seed, Path(folder))
            seconds.append(time.perf_counter() - start)
            fits.append(run.record["metrics"]["test"]["accuracy"]["value"])
            count = run.record["metrics"]["test"]["count"]
            print(f"<!-- {data} seed {seed}: {fits[-1]:.4f} -->", flush=True)
            references.append(_reference(args, run.splits()))
            stages = [(s["name"], s["epochs_run"], *_chosen(s)) for s in run.record["stages"]]
            print(f"<!-- {data} seed {seed}: {fits[-1]:.4f}, logistic {references[-1]}, "
                  f"{seconds[-1]:.0f} s, kept {run.record['best_stage']} of {stages} -->",
                  flush=True)  # fmt: skip
    each = " ".join(f"{value:.3f}" for value in fits)
    spread = statistics.stdev(fits) if len(fits) > 1 else 0.0
    return (
        f"| {Path(data).name} | {count} | **{statistics.mean(fits):.4f}** ± {spread:.4f} | {each} "
        f"| {' | '.join(f'{value:.4f}' for value in np.mean(references, axis=0))} "
        f"| {statistics.median(seconds):.0f} "
        f"({min(seconds):.0f} to {max(seconds):.0f}) |"
    )


def _chosen(stage: dict) -> tuple:
    choice = stage.get("choice")
    return () if choice is None else (f"rate x {choice['factor']:g}", f"alpha {choice['alpha']:g}")


def _train(args: argparse.Namespace, data: str, seed: int, folder: Path):
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    settings = {"augment": args.augment, **({} if args.plan in FOLDED_PLANS else {"views": 4})}
    source, share = _with_test(data, folder, args.all)
    job = RunConfig.of(
        source, args.base, weights=args.weights, plan=args.plan, seed=seed, test=share,
        settings=settings, epochs=tuple(int(e) for e in args.epochs.split(",") if e),
    )  # fmt: skip
    return train(job, folder / "run")


def _with_test(data: str, folder: Path, everything: bool) -> tuple[str, float]:
    """Return the source and the share to carve: a folder of two splits keeps the second."""
    names = {path.name.lower() for path in Path(data).iterdir() if path.is_dir()}
    if names & {"test"} and not (everything and len(names) > 2):
        return data, 0.0
    if names & {"test"}:
        for split in sorted(names):
            for one in sorted((Path(data) / split).glob("*/*")):
                under = "test" if split == "test" else "train"
                linked = folder / "data" / under / one.parent.name
                linked.mkdir(parents=True, exist_ok=True)
                (linked / f"{split}-{one.name}").symlink_to(one.resolve())
        return str(folder / "data"), 0.0
    if not names & {"train"}:
        return data, 0.25
    linked = folder / "data"
    linked.mkdir()
    (linked / "train").symlink_to(Path(data).resolve() / "train")
    (linked / "test").symlink_to(Path(data).resolve() / "val")
    return str(linked), 0.0


def _reference(args: argparse.Namespace, data) -> list[float]:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    known, test = _features(args, data.train), _features(args, data.test)
    more = np.concatenate([known, _features(args, data.val)]) if len(data.val) else known
    labels = np.concatenate([data.train.labels, data.val.labels])
    found = []
    for rows in (known, more):
        search = LogisticRegressionCV(Cs=[1e-3, 1e-2, 1e-1, 1.0], cv=5, max_iter=3000)
        model = make_pipeline(StandardScaler(with_std=False), search)
        with threadpool_limits(1):  # more threads would wait for each other
            model.fit(rows, labels[: len(rows)])
        found.append(round(float((model.predict(test) == data.test.labels).mean()), 4))
    return found


_KEPT: dict = {}


def _features(args: argparse.Namespace, samples) -> np.ndarray:
    from tl_keras.features.backends import prefix_function
    from tl_keras.features.extract import collect
    from tl_keras.models import graph
    from tl_keras.models.build import build_model

    if "prefix" not in _KEPT:
        weights = None if args.weights == "none" else args.weights
        model = build_model(args.base, 2, weights=weights)
        _KEPT["prefix"] = prefix = graph.split(model, "head_avg_pool")[0]
        _KEPT["run"] = prefix_function(prefix, "onnxruntime")
    return collect(_KEPT["run"], samples.reader(_KEPT["prefix"]))[0]


if __name__ == "__main__":
    main()
