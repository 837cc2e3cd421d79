"""Pruned by half and trained in int8: the size when zipped, and the accuracy that is left.

    python benchmarks/compression.py runs/photos                        # prune+qat
    python benchmarks/compression.py runs/photos --method qat cluster+qat --epochs 4
    python benchmarks/compression.py runs/photos --stages 0.5 0.7 2:4   # of pruning alone

For each method, on a finished run: the .tflite file zipped, over the size of the run's own
.tflite in float32 (not zipped); accuracy on all validation pictures over that of the run's model;
labels equal. Bound for prune+qat: size at most 0.20 at a retention of at least 0.985. The exit
code is 1 when it is missed.

With --stages, for each sparsity: accuracy on the test pictures (without any: the validation's),
labels equal to the unpruned model's and mean KL divergence from it, of magnitude pruning, after
the reconstruction, and after the fine-tune; which of the last two is kept is decided by training
pictures that were set aside. A .keras file may stand for a run, with --data FOLDER.
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


STAGES = (
    "| model | zeros | stage | accuracy | labels equal | KL | zeros in all kernels |\n"
    "|---|---|---|---:|---:|---:|---:|"
)


def stages(place: Path, wanted: list[str], how, data: str | None) -> None:
    """Print what each stage of pruning leaves of a model."""
    import numpy as np

    from export.compress.graph import fold_trainable
    from export.compress.prune import choose_shares, fine_tune_kept, set_aside
    from export.compress.reconstruct import TWO_OF_FOUR, prune_and_reconstruct
    from tl_keras.data.splits import Splits
    from tl_keras.features.extract import predict

    model, splits = _load(place, data)
    part = splits.test or splits.val
    learn, judges = set_aside(splits.train)
    plain = fold_trainable(model)
    truth = [predict(model, each) for each in (part, judges)]
    task = part.kind

    def show(name, stage, made):
        given = [predict(made, each) for each in (part, judges)]
        kernels = [x.get_weights()[0] for x in made.layers if type(x).__name__ in
                   ("Conv2D", "Dense")]  # fmt: skip
        zeros = sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)
        gaps = [
            (task.sample_losses(g, t) - task.sample_losses(t, t)).mean()
            for g, t in zip(given, truth, strict=True)
        ]
        print(
            f"| {place.stem} | {name} | {stage} | {task.correct(given[0], part.labels).mean():.4f} "
            f"| {task.agree(truth[0], given[0]).mean():.4f} | {gaps[0]:.4f} | {zeros:.3f} |",
            flush=True,
        )
        return gaps[1]

    print(f"<!-- {len(learn)} pictures to prune on, {len(judges)} set aside, {len(part)} test -->")
    print(STAGES)
    show("-", "unpruned", plain)
    for word in wanted:
        shares = choose_shares(plain, None if word == "2:4" else float(word))
        smallest = fold_trainable(model)
        for layer in smallest.layers:
            if share := shares.get(layer.name):
                kernel, bias = layer.get_weights()
                if share == TWO_OF_FOUR:
                    fours = np.abs(kernel).reshape(*kernel.shape[:-2], -1, 4, kernel.shape[-1])
                    low = fours.argsort(-2).argsort(-2).reshape(kernel.shape) < 2
                else:
                    low = np.abs(kernel) < np.quantile(np.abs(kernel), share)
                layer.set_weights([np.where(low, 0, kernel), bias])
        show(word, "magnitude", smallest)
        start = time.perf_counter()
        reader = learn.reader(plain, how.augment, how.seed)
        slim = prune_and_reconstruct(plain, reader, shares)
        middle = time.perf_counter()
        gaps = {"reconstructed": show(word, "reconstructed", slim)}
        tuned = fine_tune_kept(slim, model, Splits(learn, splits.val, splits.test), how)
        gaps["fine-tuned"] = show(word, "fine-tuned", tuned)
        print(f"<!-- kept: {min(gaps, key=gaps.get)}, KL on the pictures set aside: {gaps}; "
              f"{middle - start:.0f} s and {time.perf_counter() - middle:.0f} s -->")  # fmt: skip


def _load(place: Path, data: str | None):
    from tl_keras.data.sources import load_samples
    from tl_keras.data.splits import split
    from tl_keras.models.backbones.weights import load_user_model
    from tl_keras.runs.directory import RunDirectory

    if place.is_file():
        return load_user_model(place), split(load_samples(data))
    run = RunDirectory(place)
    return run.model(), run.splits(data)


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
    parser.add_argument("--stages", nargs="+", metavar="SPARSITY", help="such as 0.5 0.7 2:4")
    wanted = parser.parse_args()
    how = FineTune(wanted.epochs, wanted.rate, augment=wanted.augment)
    if wanted.stages:
        for run in wanted.runs:
            stages(run, wanted.stages, how, wanted.data)
        return 0
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
