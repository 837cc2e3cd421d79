"""Wrong labels: how well they are found, and what leaving them out gives.

    python benchmarks/label_noise.py hymenoptera clothing10 --weights FILE --cache features/

The folder of data sets is TL_KERAS_REAL_DATA's. A tenth of the training labels (those of the test
split never) become another class, drawn uniformly, in each of five seeds. Printed: the area under
the ROC curve of the suspects' scores, F1 of those taken for wrong, and accuracy and log loss on the
test split of a logistic regression (penalty by five-fold cross-validation) that learned from the
noisy labels, from what `--drop-suspects` leaves, without all suspects, and from the right labels.
Training images are those of every split but the test; where there is none, validation is the test.
`--noise 0` shows what is dropped where nothing is wrong but what was wrong before.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("features"))
    args = parser.parse_args()
    kinds = ("noisy", "drop-suspects", "all suspects dropped", "clean")
    heads = ["data", "images", "AUROC", "F1", "flagged", "dropped"]
    heads += [f"{what}, {kind}" for what in ("accuracy", "log loss") for kind in kinds]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in args.data:
        views, labels, words = describe(name, args)
        test = words == ("test" if "test" in words else "val")
        rows = [
            one_seed(views, labels, test, args.noise, seed) for seed in range(args.seeds)
        ]
        means, spreads = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0, ddof=1)
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(means, spreads)]
        print(f"| {name} | {(~test).sum()} + {test.sum()} | {' | '.join(cells)} |", flush=True)


def describe(name: str, args: argparse.Namespace) -> tuple[list[np.ndarray], ...]:
    """Features of a data set, plain and mirrored, from the cache where they are there."""
    kept = args.cache / f"{name}-{args.base}-{args.size}.npz"
    if not kept.exists():
        start_tensorflow()
        import tl_keras
        from tl_keras.workflows.check_data import describe_samples

        samples = tl_keras.load_samples(Path(os.environ["TL_KERAS_REAL_DATA"]) / name)
        base = tl_keras.build_backbone(args.base, size=args.size, weights=args.weights)
        plain, mirrored = describe_samples(base, samples).views
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, plain=plain, mirrored=mirrored, labels=samples.labels,
                 words=np.array(samples.splits))  # fmt: skip
    found = np.load(kept)
    return [found["plain"], found["mirrored"]], found["labels"], found["words"]


def one_seed(views, labels, test, noise: float, seed: int) -> list[float]:
    from sklearn.metrics import f1_score, roc_auc_score

    from tl_keras import tasks
    from tl_keras.analysis.label_quality import decide_drop, find_suspects

    task, classes = tasks.get("classes"), int(labels.max()) + 1
    known = [one[~test] for one in views]
    true = labels[~test]
    noisy = flip(true, classes, noise, np.random.default_rng(seed))
    wrong = noisy != true
    suspects, _ = find_suspects(known, noisy, task, classes, seed=seed)
    names = [str(index) for index in range(classes)]
    decision = decide_drop(known, noisy, task, names, suspects, seed=seed)
    flagged = np.isin(np.arange(len(noisy)), suspects.indices)
    dropped = np.isin(np.arange(len(noisy)), decision.indices)
    asked = [one[test] for one in views], labels[test]
    scores = [
        score([one[kept] for one in known], given[kept], asked, classes)
        for given, kept in (
            (noisy, ~np.zeros_like(dropped)), (noisy, ~dropped), (noisy, ~flagged),
            (true, ~np.zeros_like(dropped)),
        )
    ]  # fmt: skip
    found = [float("nan")] * 2
    if wrong.any():
        found = [roc_auc_score(wrong, suspects.scores), f1_score(wrong, flagged)]
    return [*found, float(flagged.mean()), float(dropped.mean()), *np.transpose(scores).ravel()]


def flip(labels, classes: int, share: float, generator):
    """Labels of which a share is another class."""
    chosen = generator.permutation(len(labels))[: round(share * len(labels))]
    made = labels.copy()
    made[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    return made


def score(views, labels, asked, classes: int) -> tuple[float, float]:
    """Accuracy and log loss of a logistic regression on both views, its penalty cross-validated."""
    from sklearn.decomposition import PCA
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tl_keras.analysis.out_of_fold import ask_linear

    both = np.concatenate(views)
    reduce = make_pipeline(StandardScaler(), PCA(min(256, len(labels)), random_state=0)).fit(both)
    points = [reduce.transform(one) / np.sqrt(both.shape[1]) for one in views]
    strengths, losses = (0.3, 1.0, 3.0, 10.0, 30.0), []
    for strength in strengths:
        loss = 0.0
        for kept, out in StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels):
            given, held = [one[kept] for one in points], [one[out] for one in points]
            found = ask_linear(given, labels[kept], held, classes, strength)
            own = found[np.arange(len(out)), labels[out]]
            loss -= np.log(np.maximum(own, 1e-3)).sum()
        losses.append(loss)
    best = strengths[int(np.argmin(losses))]
    test = [reduce.transform(one) / np.sqrt(both.shape[1]) for one in asked[0]]
    found = ask_linear(points, labels, test, classes, best)
    own = found[np.arange(len(found)), asked[1]]
    return float((found.argmax(1) == asked[1]).mean()), -float(np.log(own).mean())


if __name__ == "__main__":
    main()
