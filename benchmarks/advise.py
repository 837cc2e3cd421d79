"""Which score from features alone ranks bases best, and what advice costs.

    python benchmarks/advise.py hymenoptera clothing10 rsscn7 cifar10_5k

The folder of data sets is TL_KERAS_REAL_DATA's, that of weights TL_KERAS_REAL_WEIGHTS'. Sixteen
candidates: MobileNetV2 by size, width, layer and weights (ImageNet's and random), other
architectures with random weights, and the project's small base. The true order is that of the
accuracy on the test split of logistic regression (C by cross-validation) on the features of up to
800 training pictures; the predicted one comes from up to 200 of these. Printed: Kendall's tau (b)
between the two for each score, and for the order of the architectures' ImageNet accuracy, in
which candidates with random weights share the last place. Then what advice costs, as a share of
fine-tuning every candidate that was appraised (plan lp-ft, estimated from measured steps).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from tl_keras.utils.quiet import start_tensorflow

# Published top-1 on ImageNet, in %; layers below the last have the base's.
CANDIDATES = {
    "mobilenet_v2:224=LARGE": 71.8,
    "mobilenet_v2:160=LARGE": 68.8,
    "mobilenet_v2:96=LARGE": 60.3,
    "mobilenet_v2@0.35:224=SMALL": 60.3,
    "mobilenet_v2@0.35:160=SMALL": 55.7,
    "mobilenet_v2@0.35:96=SMALL": 45.5,
    "mobilenet_v2:160:block_15_add=LARGE": 68.8,
    "mobilenet_v2:160:block_13_expand_relu=LARGE": 68.8,
    "mobilenet_v2:160:block_6_expand_relu=LARGE": 68.8,
    "mobilenet_v2@0.35:160:block_3_expand_relu=SMALL": 55.7,
    "mobilenet_v2:96=none": 0.0,
    "mobilenet_v2@0.35:96=none": 0.0,
    "resnet50:64=none": 0.0,
    "densenet121:64=none": 0.0,
    "vgg16:64=none": 0.0,
    "small_resnet:32": 0.0,
}
SCORES = ("ridge_log_likelihood", "ridge", "knn", "logme", "h_score")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FILES = {"LARGE": "mobilenet_v2_1.0_224", "SMALL": "mobilenet_v2_0.35_224"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=len(CANDIDATES))
    parser.add_argument("--cache", type=Path, default=None, help="keeps what was found, as .npz")
    parser.add_argument("--cost", type=int, default=2, help="candidates whose cost is measured")
    args = parser.parse_args()
    start_tensorflow()
    sets = {name: make_samples(name, args.train, args.test) for name in args.data}
    words = list(CANDIDATES)[: args.candidates]
    found = {word: of_candidate(word, sets, args) for word in words}
    for name in sets:
        print_table(name, {word: found[word][name] for word in words})
    print_taus(list(sets), found)
    if args.cost:
        print_cost(words[: args.cost], sets, args.pictures)


def make_samples(name: str, train: int, test: int):
    """Training and test pictures, as many of each class as of the others."""
    from tl_keras.data.sources import load_samples
    from tl_keras.data.splits import split
    from tl_keras.workflows.advise import choose_samples

    samples = load_samples(Path(os.environ["TL_KERAS_REAL_DATA"]) / name)
    words = set(samples.splits or ())
    if words and "test" not in words:
        # What the source calls validation is the test here: nothing is chosen by it.
        parts = samples.where("train"), samples.where("val")
    elif words:
        parts = samples.where("train"), samples.where("test")
    else:
        three = split(samples, val=0.01, test=0.33)
        parts = three.train, three.test
    return [unsplit(part, most, choose_samples) for part, most in zip(parts, (train, test))]


def unsplit(samples, most, choose):
    from dataclasses import replace

    return choose(replace(samples, splits=None), most)


def of_candidate(word: str, sets, args) -> dict[str, dict[str, float]]:
    """Scores, and the accuracy on the test split, for each data set."""
    place = args.cache / f"{word.replace(':', '_').replace('=', '_')}.npz" if args.cache else None
    kept = dict(np.load(place)) if place and place.exists() else {}
    missing = [name for name in sets if f"{name}-train" not in kept]
    if missing:
        kept.update(features_of(word, {name: sets[name] for name in missing}))
        if place:
            place.parent.mkdir(parents=True, exist_ok=True)
            np.savez(place, **kept)
    rows = {}
    for name, (train, test) in sets.items():
        began = time.perf_counter()
        rows[name] = judged(kept[f"{name}-train"], kept[f"{name}-test"], train, test, args)
        print(f"# {word} {name}: {time.perf_counter() - began:.1f} s", flush=True)
    return rows


def features_of(word: str, sets) -> dict[str, np.ndarray]:
    from tl_keras.analysis.candidates import parse_candidates
    from tl_keras.features.backends import onnx_function
    from tl_keras.features.extract import collect
    from tl_keras.features.places import feature_model, parse_places
    from tl_keras.models.onnx_graph import to_onnx
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.probe import open_backbone

    one = parse_candidates(with_files(word))[0]
    base = open_backbone(RunConfig.of("", one.base, one.size, one.weights))
    model = feature_model(base, parse_places(one.at, base)[0])
    predict = onnx_function(to_onnx(model).SerializeToString())
    made = {}
    for name, parts in sets.items():
        for kind, part in zip(("train", "test"), parts):
            made[f"{name}-{kind}"] = collect(predict, part.reader(model))[0]
    return made


def with_files(word: str) -> str:
    folder = Path(os.environ["TL_KERAS_REAL_WEIGHTS"])
    for mark, stem in FILES.items():
        word = word.replace(f"={mark}", f"={folder / stem}_imagenet_notop.weights.h5")
    return word


def judged(train_features, test_features, train, test, args) -> dict[str, float]:
    from tl_keras.probing.linear import logistic
    from tl_keras.workflows.advise import score_features

    share = max(2, args.pictures // train.outputs)
    order = np.random.default_rng(1).permutation(len(train))
    picked = [order[train.labels[order] == c][:share] for c in range(train.outputs)]
    few = np.sort(np.concatenate(picked))
    scores, _ = score_features(train_features[few], train.labels[few], train.outputs)
    head = logistic(train_features, train.labels, train.outputs, strengths=STRENGTHS)
    true = float((head.predict(test_features) == test.labels).mean())
    return {**scores, "true": true}


def print_table(name: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{name}\n{'candidate':50s} {'true':>7s} " + " ".join(f"{s[:10]:>10s}" for s in SCORES))
    for word, row in sorted(rows.items(), key=lambda item: -item[1]["true"]):
        print(f"{word:50s} {row['true']:7.3f} " + " ".join(f"{row[s]:10.3f}" for s in SCORES))


def print_taus(names: list[str], found) -> None:
    from scipy.stats import kendalltau

    words = list(found)
    print(
        "\nKendall's tau with the true order\n" + f"{'':24s}" + "".join(f"{n:>13s}" for n in names)
    )
    for score in (*SCORES, "ImageNet order"):
        taus = []
        for name in names:
            true = [found[word][name]["true"] for word in words]
            plain = [CANDIDATES[word] for word in words]
            guess = plain if score == "ImageNet order" else [found[w][name][score] for w in words]
            taus.append(float(kendalltau(guess, true).statistic))
        cells = "".join(f"{tau:13.3f}" for tau in taus)
        print(f"{score:24s}{cells}   mean {np.mean(taus):.3f}")


def print_cost(words: list[str], sets, pictures: int) -> None:
    from tl_keras.analysis.candidates import parse_candidates
    from tl_keras.workflows.advise import appraise, choose_samples

    print("\nadvice as a share of fine-tuning, %")
    train = next(iter(sets.values()))[0]
    chosen = choose_samples(train, pictures)
    costs = [appraise(parse_candidates(with_files(w))[0], chosen, len(train)).costs for w in words]
    spent, tuning = sum(c.appraisal for c in costs), sum(c.fine_tuning for c in costs)
    for name, (part, _) in sets.items():
        whole = tuning * len(part) / len(train)
        print(f"{name:16s} {spent:7.1f} s of {whole:8.1f} s  {100 * spent / whole:5.1f}")


if __name__ == "__main__":
    main()
