"""Is a shift found where there is one, is none found where there is none, what does it cost.

    python benchmarks/shift.py runs/hymenoptera

Against the run's held-out photos: their p-value when corrupted (half of them against the other
half), the p-values of random halves, and the accuracy estimated without labels beside the true
one: each half by the other, the mean of both.
"""

from __future__ import annotations

import argparse

import numpy as np

from tl_keras.analysis.accuracy_estimate import estimate_accuracy
from tl_keras.analysis.drift import FeatureSet
from tl_keras.analysis.drift_tests import discrepancy, proxy_a_distance
from tl_keras.modalities.image.corruptions import CORRUPTIONS, corrupted
from tl_keras.runs.directory import RunDirectory
from tl_keras.utils.quiet import start_tensorflow
from tl_keras.workflows.drift import describe_pictures, held_out

SPLITS = 100
METHODS = ("mean", "atc", "cott")


def main() -> None:
    """Print one line a corruption, and the halves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--severities", type=int, nargs="+", default=[3])
    asked = parser.parse_args()
    start_tensorflow()
    run = RunDirectory(asked.run)
    held, names = held_out(run), [f"{k}:{s}" for k in CORRUPTIONS for s in asked.severities]
    worse = [corrupted(held, name.split(":")[0], int(name[-1])) for name in names]
    known, *found = describe_pictures(run.model(), (held, *worse), lambda *_: None)
    _halves(known)
    gaps = [_line(name, known, new, held.labels) for name, new in zip(names, found)]
    for method, values in zip(METHODS, np.transpose(gaps)):
        print(
            f"{method}: mean error {100 * np.mean(values):.1f} points, "
            f"within 5 points {np.mean(values <= 0.05):.0%} of {len(values)}"
        )


def _halves(known: FeatureSet) -> None:
    values = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(known.features))
        half = len(order) // 2
        sides = known.features[order[:half]], known.features[order[half:]]
        values.append(discrepancy(*sides, seed=SPLITS + seed).p_value)
    over = np.array(values) > 0.05
    print(
        f"two halves of one set: p > 0.05 in {over[:10].sum()} of the first 10 splits, "
        f"in {over.sum()} of {SPLITS}"
    )


def _line(name: str, known: FeatureSet, new: FeatureSet, labels: np.ndarray) -> list[float]:
    order = np.random.default_rng(0).permutation(len(labels))
    halves = order[::2], order[1::2]
    sides = known.features[halves[0]], new.features[halves[1]]
    p_value, distance = discrepancy(*sides).p_value, proxy_a_distance(*sides).distance
    true = float((new.outputs.argmax(1) == labels).mean())
    said = [_estimated(known, new, labels, halves, method) for method in METHODS]
    print(
        f"{name:14s} p {p_value:.3f}  A-distance {distance:.2f}  true accuracy {true:.3f}  "
        f"estimated {said[0]:.3f}, from confidence alone {said[1]:.3f}, by transport {said[2]:.3f}"
    )
    return [abs(value - true) for value in said]


def _estimated(
    known: FeatureSet,
    new: FeatureSet,
    labels: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    method: str,
) -> float:
    """Either half judged by the other as it was, so that no picture is on both sides."""
    return float(
        np.mean(
            [
                estimate_accuracy(
                    known.outputs[one], labels[one], new.outputs[other], method=method, resamples=0
                ).value
                for one, other in (halves, halves[::-1])
            ]
        )
    )


if __name__ == "__main__":
    main()
