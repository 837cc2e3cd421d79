"""What the small base's pretraining on letters is worth on handwritten digits, few a class.

    python benchmarks/digits_gain.py --seeds 5

A seed draws the training pictures (10 a class) and the initial weights; 20 a class validate, all
others test, once, at the end. Rates are chosen on the first two seeds' mean validation accuracy,
the epoch on each seed's. Both networks see the same views (`--augment`) of the same pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tl_keras.modalities.image.augment import view
from tl_keras.modalities.image.decode import resize
from tl_keras.models.backbones.small_resnet import SMALL_RESNET_WEIGHTS, small_resnet

SIZE, CLASSES, VALIDATION, VIEWS, BATCH = 32, 10, 20, 20, 20
SCRATCH_RATES, SCRATCH_EPOCHS = (1e-3, 3e-3, 1e-2), 150
HEAD_RATES, HEAD_EPOCHS = (3e-2, 1e-1, 3e-1), 60
TUNE_RATES, TUNE_EPOCHS = (1e-4, 3e-4, 1e-3), 90
TUNING_SEEDS = 2


@dataclass
class Task:
    """One seed's pictures: `train` holds the views, (views, n, ...), view 0 being plain."""

    seed: int
    train: np.ndarray
    train_labels: np.ndarray
    val: np.ndarray
    val_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    pixels: dict[str, np.ndarray]


@dataclass
class Trained:
    """The weights of the best epoch by validation."""

    weights: list[np.ndarray]
    accuracy: float
    epoch: int


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (1797, 8, 8, 3) light strokes on black, and their labels."""
    from sklearn import datasets

    data = datasets.load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), data.target.astype(np.int64)


def draw(labels: np.ndarray, indices: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    members = [rng.permutation(indices[labels[indices] == label]) for label in range(CLASSES)]
    return np.concatenate([some[:per_class] for some in members])


def make_task(seed: int, per_class: int, augment: str) -> Task:
    from PIL import Image

    small, labels = load_digits()
    everything = np.arange(len(labels))
    val = draw(labels, everything, VALIDATION, seed=10**6)
    rest = np.setdiff1d(everything, val)
    train = draw(labels, rest, per_class, seed)
    test = np.setdiff1d(rest, train)
    images = [Image.fromarray(picture) for picture in small]
    plain = np.stack([resize(image, SIZE) for image in images])
    views = [
        np.stack([view(images[i], SIZE, augment, seed, str(i), k) for i in train])
        for k in range(1 if augment == "none" else VIEWS + 1)
    ]
    flat = small[..., 0].reshape(len(small), -1) / 255
    pixels = {"train": flat[train], "test": flat[test]}
    return Task(
        seed, np.stack(views), labels[train], plain[val], labels[val], plain[test],
        labels[test], pixels,
    )  # fmt: skip


def classifier(base, batchnorm: bool):
    """Base, average pooling, softmax; with `batchnorm` False its BatchNorm stays as it is."""
    import keras

    x = keras.layers.GlobalAveragePooling2D()(base.output)
    model = keras.Model(base.input, keras.layers.Dense(CLASSES, activation="softmax")(x))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = batchnorm
    return model


def head(width: int):
    import keras

    features = keras.Input((width,))
    return keras.Model(features, keras.layers.Dense(CLASSES, activation="softmax")(features))


class Trainer:
    """Trains one compiled model again and again, from given weights, so it is traced once."""

    def __init__(self, model, validate_every: int) -> None:
        import keras

        self.model, self.every = model, validate_every
        optimizer = keras.optimizers.Adam()
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        optimizer.build(model.trainable_variables)
        self.fresh = [variable.numpy() for variable in optimizer.variables]

    def run(self, weights, task: Task, rate: float, epochs: int, features=None) -> Trained:
        """Train with a warm-up of a tenth and cosine decay; keep the best epoch."""
        import keras

        keras.utils.set_random_seed(task.seed)
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        views, val = features or (task.train, task.val)
        rng, best = np.random.default_rng(task.seed), Trained(weights, -1.0, 0)
        for epoch in range(epochs):
            done = epoch / epochs
            factor = min(1, (epoch + 1) / (0.1 * epochs)) * 0.5 * (1 + np.cos(np.pi * done))
            self.model.optimizer.learning_rate = rate * factor
            self.epoch(views, task.train_labels, rng)
            if (epoch + 1) % self.every == 0:
                accuracy = self.accuracy(val, task.val_labels)
                if accuracy >= best.accuracy:
                    best = Trained(self.model.get_weights(), accuracy, epoch + 1)
        return best

    def epoch(self, views, labels, rng) -> None:
        """One view of each picture, in random order."""
        for chosen in np.array_split(rng.permutation(len(labels)), len(labels) // BATCH):
            numbers = rng.integers(min(1, len(views) - 1), len(views), len(chosen))
            batch = views[numbers, chosen].astype(np.float32)
            self.model.train_on_batch(batch, labels[chosen])

    def accuracy(self, pictures, labels) -> float:
        found = [
            np.asarray(self.model(pictures[i : i + 256].astype(np.float32), training=False))
            for i in range(0, len(pictures), 256)
        ]
        return float(np.mean(np.concatenate(found).argmax(1) == labels))

    def test(self, trained: Trained, task: Task, pictures=None) -> float:
        self.model.set_weights(trained.weights)
        return self.accuracy(task.test if pictures is None else pictures, task.test_labels)


def regression(train, labels, test, test_labels) -> float:
    """Logistic regression, its C chosen by cross-validation on the training pictures."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from threadpoolctl import threadpool_limits

    grid = {"C": np.logspace(-3, 4, 8)}
    with threadpool_limits(1):
        search = GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=5).fit(train, labels)
    return float(search.score(test, test_labels))


def mean_accuracy(runs: list[Trained]) -> float:
    return float(np.mean([trained.accuracy for trained in runs]))


def row(name: str, rate: float | None, chosen: list[Trained], tests: list[float]) -> dict:
    return {
        "name": name,
        "rate": "" if rate is None else f"{rate:g}",
        "epochs": ", ".join(str(trained.epoch) for trained in chosen),
        "val": np.mean([trained.accuracy for trained in chosen]) if chosen else None,
        "tests": tests,
    }


def regressions(tasks: list[Task], features: list) -> list[dict]:
    raw, frozen = [], []
    for task, (views, _, test) in zip(tasks, features, strict=True):
        labels = task.train_labels, task.test_labels
        raw.append(regression(task.pixels["train"], labels[0], task.pixels["test"], labels[1]))
        frozen.append(regression(views[0], labels[0], test, labels[1]))
    print(f"regression: raw {np.mean(raw):.4f}, frozen base {np.mean(frozen):.4f}", flush=True)
    return [
        row("logistic regression on raw pixels", None, [], raw),
        row("logistic regression on the frozen base", None, [], frozen),
    ]


def frozen_features(base, task: Task):
    """Pooled features of the training views, the validation and the test pictures."""
    import keras

    pooled = keras.Model(base.input, keras.layers.GlobalAveragePooling2D()(base.output))

    def run(pictures):
        return pooled.predict(pictures.astype(np.float32), batch_size=256, verbose=0)

    views = run(task.train.reshape(-1, SIZE, SIZE, 3))
    return views.reshape(len(task.train), -1, views.shape[-1]), run(task.val), run(task.test)


def sweep(trainer: Trainer, tasks, starts, rates, epochs, features=None):
    """Choose the rate on the first seeds' validation; train all seeds at it."""

    def runs(rate, numbers):
        given = [features[n][:2] if features else None for n in numbers]
        pairs = zip(numbers, given)
        return [trainer.run(starts[n], tasks[n], rate, epochs, some) for n, some in pairs]

    first, found = range(min(TUNING_SEEDS, len(tasks))), {}
    for rate in rates:
        found[rate] = runs(rate, first)
        print(f"  rate {rate:g}: validation {mean_accuracy(found[rate]):.4f}", flush=True)
    best = max(rates, key=lambda rate: mean_accuracy(found[rate]))
    return best, found[best] + runs(best, range(len(first), len(tasks)))


def transfer(tasks: list[Task], base, features: list) -> list[dict]:
    """LP-FT: the head on the frozen base, then all at a low rate, BatchNorm frozen."""
    import keras

    starts = []
    for task in tasks:
        keras.utils.set_random_seed(task.seed)
        starts.append(head(base.output_shape[-1]).get_weights())
    print("head on the frozen base", flush=True)
    prober = Trainer(head(base.output_shape[-1]), 5)
    rate, probes = sweep(prober, tasks, starts, HEAD_RATES, HEAD_EPOCHS, features)
    tests = [prober.test(*pair, kept[2]) for *pair, kept in zip(probes, tasks, features)]
    rows = [row("frozen base, softmax head", rate, probes, tests)]
    print("all layers", flush=True)
    tuner = Trainer(classifier(base, batchnorm=False), 5)
    # Keras lists a model's weights by layer, and the head comes last.
    starts = [base.get_weights() + probe.weights for probe in probes]
    rate, tuned = sweep(tuner, tasks, starts, TUNE_RATES, TUNE_EPOCHS)
    tests = [tuner.test(*pair) for pair in zip(tuned, tasks)]
    return [*rows, row("transferred: head, then all (lp-ft)", rate, tuned, tests)]


def scratch(tasks: list[Task]) -> dict:
    """The same network from random weights, BatchNorm learning."""
    import keras

    print("from scratch", flush=True)
    trainer, starts = Trainer(classifier(small_resnet(SIZE), batchnorm=True), 5), []
    for task in tasks:
        keras.utils.set_random_seed(task.seed)
        starts.append(classifier(small_resnet(SIZE), batchnorm=True).get_weights())
    rate, runs = sweep(trainer, tasks, starts, SCRATCH_RATES, SCRATCH_EPOCHS)
    return row("from scratch", rate, runs, [trainer.test(*pair) for pair in zip(runs, tasks)])


def table(rows: list[dict]) -> str:
    lines = ["| | rate | best epochs | validation | test |", "|---|---|---|---|---|"]
    for each in rows:
        val = "" if each["val"] is None else f"{each['val']:.3f}"
        test = f"{np.mean(each['tests']):.4f} ± {np.std(each['tests'], ddof=1):.4f}"
        lines.append(f"| {each['name']} | {each['rate']} | {each['epochs']} | {val} | {test} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, at least 2")
    parser.add_argument("--per-class", type=int, default=10, help="training pictures a class")
    parser.add_argument("--weights", default=SMALL_RESNET_WEIGHTS)
    parser.add_argument("--augment", default="none", help='for both, e.g. "affine"')
    options, began = parser.parse_args(), time.perf_counter()
    tasks = [make_task(seed, options.per_class, options.augment) for seed in range(options.seeds)]
    base = small_resnet(SIZE)
    base.load_weights(options.weights)
    features = [frozen_features(base, task) for task in tasks]
    rows = [*regressions(tasks, features), *transfer(tasks, base, features), scratch(tasks)]
    sizes = [len(part) for part in (tasks[0].train_labels, tasks[0].val, tasks[0].test)]
    print(f"\n{options.seeds} seeds; train, validate, test {sizes}; views: {options.augment}\n")
    print(table(rows))
    gain = np.subtract(rows[-2]["tests"], rows[-1]["tests"]) * 100
    print(f"\nGain over scratch: {gain.mean():.2f} points (each seed: {np.round(gain, 1)})")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
