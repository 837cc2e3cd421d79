"""Small sets: what `tl-keras fit` gives by default, beside the simple answer.

    TL_KERAS_REAL_DATA=... TL_KERAS_REAL_WEIGHTS=... python benchmarks/small_sets.py --seeds 3
    python benchmarks/small_sets.py hymenoptera:5 fsdd:all --seeds 5
    python benchmarks/small_sets.py digits:all --base small_resnet --size 32 --seeds 1

A cell is a set and the training images of each class: 5, 10, 20 (drawn anew with each seed) or all.
The simple answer is scikit-learn's logistic regression on the frozen base's average-pooled
features of all training images, C by 5-fold cross-validation (fewer folds where a class has fewer
images). The other is a run with the defaults of `RunConfig` and no more, on the same training
images. Both are scored on the whole test split, which neither sees; hymenoptera's is its "val",
rsscn7's a quarter (another one with each seed, four in turn), that of digits a half. fsdd are
spoken digits: log-mel spectrograms, written as images into a temporary folder.

A difference is that of accuracies; its standard error is over test images, each image's own
difference being first averaged over the seeds that had it in the test.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from tl_keras.utils.quiet import start_tensorflow

PHOTOS = ("hymenoptera", "clothing10", "rsscn7", "cifar10_5k")
CELLS = ["fsdd:all", "digits:all", *(f"{name}:{count}" for name in PHOTOS for count in (5, 10, 20))]
FILES = {
    "mobilenet_v2": "mobilenet_v2_1.0_224_imagenet_notop.weights.h5",
    "mobilenet_v2@0.35": "mobilenet_v2_0.35_224_imagenet_notop.weights.h5",
    "efficientnet_lite0": "efficientnet_lite0_imagenet.keras",
    "efficientnet_lite2": "efficientnet_lite2_imagenet.keras",
}
STRENGTHS = [1e-3, 1e-2, 1e-1, 1.0, 10.0]
FOLDS = 4
RATE, WINDOW, HOP, MELS, FRAMES = 8000, 256, 80, 64, 100


def main() -> int:
    """Measure each cell and print a table; 1 where a run is clearly worse than the regression."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", default=CELLS, help="set:images, such as digits:5")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--weights", default="", help="a file; found by the base's name without")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most-test", type=int, default=0, help="test images of a class; 0: all")
    args = parser.parse_args()
    start_tensorflow()
    print("| set | a class | LR | fit | fit − LR, points | seconds a run |")
    print("|---|---|---|---|---|---|")
    differences, worse = [], 0
    for cell in args.cells:
        row, difference, error = measure(cell, args)
        print(row, flush=True)
        differences.append(difference)
        worse += difference < -error
    print(f"\nMean difference {100 * np.mean(differences):+.2f} points; {worse} of "
          f"{len(differences)} cells below LR by more than one standard error.")  # fmt: skip
    return int(worse > 0)


def measure(cell: str, args: argparse.Namespace) -> tuple[str, float, float]:
    """A row of the table, the difference of the mean accuracies and its standard error."""
    name, _, count = cell.partition(":")
    shares: dict[str, list[float]] = {"LR": [], "fit": []}
    by_image: dict[str, list[float]] = defaultdict(list)
    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        original = render(name, Path(temporary))
        for seed in range(args.seeds):
            folder = Path(temporary) / f"{name}-{seed}"
            number = None if count in ("", "all") else int(count)
            link(original, folder, number, seed, args.most_test)
            simple = right_by_regression(folder, args)
            began = time.perf_counter()
            fitted = right_by_fit(folder, seed, args)
            seconds.append(time.perf_counter() - began)
            for kind, right in (("LR", simple), ("fit", fitted)):
                shares[kind].append(statistics.mean(right.values()))
            for key, value in fitted.items():
                by_image[key].append(value - simple[key])
            print(f"<!-- {cell} seed {seed}: LR {shares['LR'][-1]:.4f}, fit "
                  f"{shares['fit'][-1]:.4f}, {seconds[-1]:.0f} s -->", file=sys.stderr,
                  flush=True)  # fmt: skip
    each = [statistics.mean(values) for values in by_image.values()]
    error = statistics.stdev(each) / len(each) ** 0.5
    difference = statistics.mean(shares["fit"]) - statistics.mean(shares["LR"])
    told = [f"{statistics.mean(v):.4f} ± {spread(v):.4f}" for v in shares.values()]
    row = (f"| {name} | {count or 'all'} | {told[0]} | {told[1]} | {100 * difference:+.2f} ± "
           f"{100 * error:.2f} | {statistics.median(seconds):.0f} |")  # fmt: skip
    return row, difference, error


def spread(values: list[float]) -> float:
    """The standard deviation over seeds; 0 of a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def render(name: str, folder: Path) -> Path:
    """The folder of a set; what is none yet is written into a temporary one."""
    if name == "digits":
        from sklearn.datasets import load_digits

        data = load_digits()
        pixels = np.kron(data.images * (255 / 16), np.ones((1, 4, 4))).round().astype(np.uint8)
        for number, (label, image) in enumerate(zip(data.target, pixels)):
            part = "train" if number % 2 else "test"
            save(Image.fromarray(image), folder / "digits" / part / str(label) / f"{number}.png")
        return folder / "digits"
    source = Path(os.environ["TL_KERAS_REAL_DATA"]) / name
    if name != "fsdd":
        return source
    for file in sorted(source.rglob("*.wav")):
        where = folder / "fsdd" / file.relative_to(source).with_suffix(".png")
        save(Image.fromarray(spectrogram(file)), where)
    return folder / "fsdd"


def save(image: Image.Image, path: Path) -> None:
    """Write a gray image as the RGB that a base takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").save(path)


def spectrogram(file: Path) -> np.ndarray:
    """Log-mel spectrogram of the first second, low tones at the bottom: uint8 (mels, frames)."""
    from scipy.io import wavfile
    from scipy.signal import get_window

    rate, sound = wavfile.read(file)
    if rate != RATE:
        raise SystemExit(f"{file} has {rate} samples a second; expected {RATE}")
    wave = np.zeros(WINDOW + HOP * (FRAMES - 1))
    wave[: len(sound)] = sound[: len(wave)] / 32768.0
    starts = HOP * np.arange(FRAMES)[:, None] + np.arange(WINDOW)
    power = np.abs(np.fft.rfft(wave[starts] * get_window("hann", WINDOW))) ** 2
    decibel = 10 * np.log10(power @ mel_filters().T + 1e-10)
    shown = (np.clip(decibel - decibel.max(), -70, 0) + 70) * (255 / 70)
    return np.flipud(shown.T.round().astype(np.uint8)).copy()


def mel_filters() -> np.ndarray:
    """Triangles that are evenly spaced on the mel scale (O'Shaughnessy 1987): (mels, bins)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    # A triangle narrower than the bins would hold none.
    wide = np.maximum(middle - low, bins[1]), np.maximum(high - middle, bins[1])
    return np.clip(np.minimum((bins - middle) / wide[0], (middle - bins) / wide[1]) + 1, 0, 1)


def link(original: Path, folder: Path, count: int | None, seed: int, most_test: int) -> None:
    """Make a data set of links: so many training images a class by the seed, and the test."""
    random = np.random.default_rng(seed)
    split = (original / "train").is_dir()
    test = next((original / n for n in ("test", "val") if (original / n).is_dir()), None)
    for group in sorted(path for path in (original / "train" if split else original).iterdir()
                        if path.is_dir()):  # fmt: skip
        files = [file for file in sorted(group.iterdir()) if file.is_file()]
        if test is None:
            order = np.random.default_rng(0).permutation(len(files))
            folds = {int(i) for i in order[seed % FOLDS :: FOLDS]}
            held = [file for i, file in enumerate(files) if i in folds]
            files = [file for i, file in enumerate(files) if i not in folds]
        else:
            held = [file for file in sorted((test / group.name).iterdir()) if file.is_file()]
        chosen = [files[i] for i in random.permutation(len(files))[:count]]
        for part, some in (("train", chosen), ("test", held[: most_test or None])):
            where = folder / part / group.name
            where.mkdir(parents=True)
            for file in some:
                (where / file.name).symlink_to(file.resolve())


def weights_of(args: argparse.Namespace) -> str:
    """The weights asked for, or the base's file among the published ones, or its own."""
    folder, file = os.environ.get("TL_KERAS_REAL_WEIGHTS"), FILES.get(args.base)
    return args.weights or (str(Path(folder) / file) if folder and file else "default")


def right_by_fit(folder: Path, seed: int, args: argparse.Namespace) -> dict[str, bool]:
    """Whether each test image, by its path, is named rightly by a run with default settings."""
    from tl_keras.features.extract import predict
    from tl_keras.runs.config import RunConfig
    from tl_keras.workflows.fit import train

    config = RunConfig.of(str(folder), args.base, args.size, weights_of(args), seed=seed)
    run = train(config, folder.with_name(f"{folder.name}-run"))
    test = run.samples("test")
    return keyed(test, predict(run.model(), test).argmax(1) == test.labels)


def keyed(test, right: np.ndarray) -> dict[str, bool]:
    """Right answers by the image's own path, whichever folder links to it."""
    paths = [Path(test.root, key).resolve() for key in test.keys]
    return {str(path): bool(one) for path, one in zip(paths, right, strict=True)}


def right_by_regression(folder: Path, args: argparse.Namespace) -> dict[str, bool]:
    """Whether each test image, by its path, is named rightly by logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    from tl_keras.data.sources import load_samples

    samples = load_samples(str(folder))
    train, test = samples.where("train"), samples.where("test")
    folds = StratifiedKFold(min(5, int(np.bincount(train.labels).min())), shuffle=True,
                            random_state=0)  # fmt: skip
    plain = make_pipeline(StandardScaler(with_std=False), LogisticRegression(max_iter=3000))
    search = GridSearchCV(plain, {"logisticregression__C": STRENGTHS}, cv=folds)
    known, new = features(train, args), features(test, args)
    # Problems so small lose more by sharing than they gain, forty-fold on a busy machine.
    with threadpool_limits(1):
        search.fit(known, train.labels)
    return keyed(test, search.predict(new) == test.labels)


_KEPT: dict = {}


def features(samples, args: argparse.Namespace) -> np.ndarray:
    """The base's average-pooled features, float32 (n, d)."""
    from tl_keras.features.backends import prefix_function
    from tl_keras.features.extract import collect
    from tl_keras.features.places import feature_model, parse_places
    from tl_keras.models.backbones.load import build_backbone

    if "base" not in _KEPT:
        base = build_backbone(args.base, size=args.size, weights=weights_of(args))
        _KEPT["base"] = feature_model(base, parse_places("last", base)[0])
        _KEPT["run"] = prefix_function(_KEPT["base"], "onnxruntime")
    return collect(_KEPT["run"], samples.reader(_KEPT["base"]))[0]


if __name__ == "__main__":
    sys.exit(main())
