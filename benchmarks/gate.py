"""How often the gate of the export passes files that lose 0, 1, 2 and 5 points of accuracy.

    python benchmarks/gate.py [--repetitions 1000] [--out benchmarks/results/gate.md]

Files are simulated, the gate is the real one (`export.agreement.measure` and `judge`, a loss of one
point allowed). A model answers for a pool of images whose true probabilities are known; what it
says of itself is those, or too sure of itself (logits times 1.5, as fine-tuned networks are). Its
file answers otherwise in one of three ways:

- "noise": every logit is off at random, as rounding does;
- "class": one class is preferred too little;
- "images": for some images it gives the answers for another one, as saturated sums do.

The size of the harm is chosen so that the file loses, over the pool and by the true probabilities,
exactly the points named. A file that loses nothing still changes 0.5 or 1 % of the answers: those
that were near ties; what is harmed in the other two ways has the noise of the former besides. In
each repetition the gate sees other images: some with labels drawn by the true probabilities, and
some without. Its answer is one of three: proven, not proven (nothing speaks against the file and
too few images for it: written with a warning, never a default), refused.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import softmax

from export.agreement import judge, measure
from export.source import Shown
from tl_keras import tasks

POOL, CLASSES, ALLOWED = 50_000, 5, 0.01
ACCURACIES = (0.6, 0.9, 0.96)
IMAGES = ((46, 0), (153, 0), (46, 500), (153, 500), (500, 500), (2000, 500), (46, 2000))
"""Labeled and unlabeled ones that the gate sees."""
SURE, LOSSES, AGREEMENTS = (1.0, 1.5), (0.01, 0.02, 0.05), (0.99, 0.995)
GENERATOR = np.random.default_rng(0)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows = [
        f"Allowed {100 * ALLOWED:g} point; {args.repetitions} repetitions each; proven / not "
        "proven / refused, %. Worst: the two kinds of model, and the ways to lose, that pass",
        "least often without a loss and most often with one; by way: noise, class, images.",
        "",
        "| accuracy | labeled | unlabeled | loses 0, agreement 0.995 | loses 0, agreement 0.99 "
        "| loses 1 | loses 2 | loses 5 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print(*rows, sep="\n", flush=True)
    for accuracy in ACCURACIES:
        files = {sure: _make_files(accuracy, sure) for sure in SURE}
        for labeled, unlabeled in IMAGES:
            cells = _describe_cells(files, labeled, unlabeled, args.repetitions)
            rows.append(f"| {accuracy} | {labeled} | {unlabeled} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _make_files(accuracy: float, sure: float):
    """A pool's true probabilities, the model's answers, and its files by (loss, way)."""
    normal = GENERATOR.normal(size=(POOL, CLASSES))
    scale = _bisect(lambda size: softmax(size * normal, 1).max(1).mean(), accuracy, 50.0)
    true, logits = softmax(scale * normal, 1), sure * scale * normal
    noise = GENERATOR.normal(size=logits.shape)
    other = GENERATOR.permutation(POOL)
    drawn = GENERATOR.uniform(size=(POOL, 1))
    first = logits.argmax(1)

    def agreement(size: float) -> float:
        return float((first == (logits + size * noise).argmax(1)).mean())

    quiet = {share: _bisect(agreement, share, 20.0) for share in AGREEMENTS}
    still = logits + quiet[0.995] * noise
    lower: np.ndarray = np.eye(CLASSES)[0]
    ways: dict[str, Callable[[float], np.ndarray]] = {
        "noise": lambda size: logits + size * noise,
        "class": lambda size: still - size * lower,
        "images": lambda size: np.where(drawn < size, still[other], still),
    }

    def lost(answers: np.ndarray) -> float:
        rows = np.arange(POOL)
        return float((true[rows, first] - true[rows, answers.argmax(1)]).mean())

    files = {(0.0, str(share)): softmax(logits + size * noise, 1) for share, size in quiet.items()}
    for loss, (way, make) in itertools.product(LOSSES, ways.items()):
        most = 1.0 if way == "images" else 60.0
        size = _bisect(lambda size: lost(make(size)), loss, most)  # noqa: B023
        files[loss, way] = softmax(make(size), 1)
    return true, softmax(logits, 1), files


def _bisect(measured: Callable[[float], float], wanted: float, high: float) -> float:
    low, rises = 0.0, measured(high) > measured(0.0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if (measured(middle) < wanted) == rises else (low, middle)
    return (low + high) / 2


def _describe_cells(files, labeled: int, unlabeled: int, repetitions: int) -> list[str]:
    """Proven, not proven and refused in percent, for each file that loses so much."""
    found = {
        (sure, *name): _ask_gate(true, before, after, labeled, unlabeled, repetitions)
        for sure, (true, before, made) in files.items()
        for name, after in made.items()
    }
    cells = []
    for loss, ways in [(0.0, ["0.995"]), (0.0, ["0.99"]), *((one, None) for one in LOSSES)]:
        names = ways or ["noise", "class", "images"]
        each = [[found[sure, loss, way] for sure in files] for way in names]
        choose = min if ways else max
        # What counts is how often it is proven.
        worst = [choose(one, key=lambda counts: counts[0]) for one in each]
        cells.append(", ".join("/".join(f"{100 * share:.3g}" for share in one) for one in worst))
    return cells


def _ask_gate(true, before, after, labeled: int, unlabeled: int, repetitions: int) -> list[float]:
    counts, task = np.zeros(3), tasks.get("classes")
    for _ in range(repetitions):
        chosen = GENERATOR.integers(POOL, size=labeled + unlabeled)
        rows = chosen[:labeled]
        labels = (true[rows].cumsum(1) < GENERATOR.uniform(size=(labeled, 1))).sum(1)
        shown = Shown({}, np.minimum(labels, CLASSES - 1), {})
        decision = judge(measure(before[chosen], after[chosen], shown, task, ()), ALLOWED)
        counts[0 if decision.proven else 1 if decision.passed else 2] += 1
    return (counts / repetitions).tolist()


if __name__ == "__main__":
    sys.exit(main())
