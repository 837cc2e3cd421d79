"""A frozen stage of many epochs: tl_keras against the plain Keras recipe, in one run.

    python benchmarks/frozen_stage.py --data FOLDER --weights FILE
    python benchmarks/frozen_stage.py --base vgg16 --pictures 200      # random weights

Both train the same head on the same frozen base, pictures, batch size and epochs, and both
validate after every epoch. Plain Keras gets its own best input pipeline: pictures are decoded
and resized once and kept in memory as uint8, and the faster of `jit_compile` on and off is
chosen beforehand. tl_keras reads the files and fills its cache within the measured time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=None, help="random pictures instead")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    start_tensorflow()
    data = _random_pictures(args.pictures) if args.pictures else _read(args.data)
    rows = []
    for seed in range(args.seeds):
        ours, theirs = _ours(args, data, seed), _plain(args, data, seed)
        rows.append((ours, theirs))
        print(f"seed {seed}: tl_keras {ours[0]:.1f} s, accuracy {ours[1]:.3f} ({ours[2]}); "
              f"plain Keras {theirs[0]:.1f} s, accuracy {theirs[1]:.3f} ({theirs[2]}); "
              f"{theirs[0] / ours[0]:.1f} times", flush=True)  # fmt: skip
    ratios = [theirs[0] / ours[0] for ours, theirs in rows]
    accuracies = [statistics.mean(row[i][1] for row in rows) for i in (0, 1)]
    print(
        f"{args.epochs} epochs, {len(data.train)} + {len(data.val)} pictures: "
        f"{statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f}), "
        f"mean accuracy {accuracies[0]:.3f} against {accuracies[1]:.3f}"
    )


def _read(path: str):
    import dataclasses

    from tl_keras.data.sources import load_samples
    from tl_keras.data.splits import split

    samples = load_samples(path)
    if samples.splits and "test" not in samples.splits:
        # A source with two splits: the second is the one that is scored.
        words = tuple("test" if word == "val" else word for word in samples.splits)
        samples = dataclasses.replace(samples, splits=words)
    return split(samples, val=0.2)


def _random_pictures(count: int):
    from tl_keras.data.samples import from_arrays
    from tl_keras.data.splits import Splits

    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (count + count // 4, 224, 224, 3)).astype(np.uint8)
    samples = from_arrays(pictures, np.arange(len(pictures)) % 4)
    return Splits(samples.take(range(count)), samples.take(range(count, len(pictures))), None)


def _model(args: argparse.Namespace, data, seed: int):
    import keras

    from tl_keras.models.build import build_model
    from tl_keras.training.freezing import freeze

    keras.utils.set_random_seed(seed)
    model = build_model(
        args.base, len(data.train.class_names), size=args.size, weights=args.weights
    )
    freeze(model, ["head"])
    return model


def _score(model, data) -> float:
    from tl_keras.features.extract import predict

    part = data.test if data.test is not None else data.val
    return float((predict(model, part).argmax(1) == part.labels).mean())


def _ours(args: argparse.Namespace, data, seed: int) -> tuple[float, float, str]:
    from tl_keras.training.plan import Plan, Stage
    from tl_keras.training.trainer import fit

    model = _model(args, data, seed)
    stage = Stage("head", ("head",), args.epochs, 3e-3)
    plan = Plan("frozen", (stage,), class_weights=False)
    start = time.perf_counter()
    result = fit(model, data, plan, seed=seed, precision=args.precision)
    seconds = time.perf_counter() - start
    return seconds, _score(model, data), result.engine.name


def _plain(args: argparse.Namespace, data, seed: int) -> tuple[float, float, str]:
    import keras
    import tensorflow as tf

    model = _model(args, data, seed)
    start = time.perf_counter()
    train, val = (_in_memory(part, model) for part in (data.train, data.val))
    reading = time.perf_counter() - start
    jit = _faster_jit(model, train)
    steps = args.epochs * -(-len(data.train) // 32)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit,
    )
    start = time.perf_counter()
    model.fit(
        tf.data.Dataset.from_tensor_slices(train).shuffle(len(data.train)).batch(32).prefetch(2),
        validation_data=tf.data.Dataset.from_tensor_slices(val).batch(32).prefetch(2),
        epochs=args.epochs,
        verbose=0,
    )
    seconds = reading + time.perf_counter() - start
    return seconds, _score(model, data), f"jit_compile={jit}"


def _in_memory(samples, model) -> tuple[np.ndarray, np.ndarray]:
    return samples.reader(model).read(range(len(samples)))["image"], samples.labels


def _faster_jit(model, train: tuple[np.ndarray, np.ndarray]) -> bool:
    few, seconds = (train[0][:64], train[1][:64]), {}
    weights = model.get_weights()
    for jit in (False, True):
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit)
        model.fit(*few, verbose=0)
        start = time.perf_counter()
        model.fit(*few, verbose=0)
        seconds[jit] = time.perf_counter() - start
    model.set_weights(weights)
    return seconds[True] < seconds[False]


if __name__ == "__main__":
    main()
