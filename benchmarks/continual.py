"""Learning one task after another: what is kept, as a share of what joint training reaches.

python benchmarks/continual.py permuted             # EWC against plain training, 10 tasks
python benchmarks/continual.py split                # replay and streaming ridge, 5 x 2 classes
python benchmarks/continual.py streaming --data cifar10_5k/ --weights FILE --size 96
python benchmarks/continual.py permuted --tune      # strengths, scored on validation alone
"""

from __future__ import annotations

import argparse

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def digits(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pictures (n, 64) in 0..1 and labels; half train, a sixth validation, the rest test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    borders = np.split(order, [900, 1200])
    names = ("train", "val", "test")
    x = {name: (data.data[part] / 16).astype(np.float32) for name, part in zip(names, borders)}
    return x, {name: data.target[part] for name, part in zip(names, borders)}


def network(outputs: int, width: int, seed: int):
    """Two hidden layers, as in the paper's protocol."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((64,))
    for number in (1, 2):
        x = keras.layers.Dense(width, activation="relu", name=f"hidden_{number}")(x)
    x = keras.layers.Dense(outputs, name="head_logits")(x)
    return keras.Model(inputs, keras.layers.Softmax(name="head_predictions")(x))


def train(model, x, y, args, loss="sparse_categorical_crossentropy") -> None:
    import keras

    model.compile(keras.optimizers.SGD(args.rate, momentum=0.9), loss)
    model.fit(x, y, batch_size=32, epochs=args.epochs, verbose=0)


def accuracy(model, x, y) -> float:
    return float((np.asarray(model(x)).argmax(1) == y).mean())


def permuted(args, strength: float, seed: int, split: str) -> np.ndarray:
    """Accuracy on each task after each task, (tasks, tasks)."""
    from tl_keras.continual.ewc import fisher

    x, y = digits(seed)
    x = {name: args.gain * pixels for name, pixels in x.items()}
    generator = np.random.default_rng(seed + 100)
    orders = [np.arange(64)] + [generator.permutation(64) for _ in range(args.tasks - 1)]
    model, anchor = wide_network(args, seed), None
    matrix = np.zeros((args.tasks, args.tasks))
    for number, order in enumerate(orders):
        rate = args.wide_rate * 0.85**number
        held = proximal(model, anchor, rate * strength) if anchor else []
        train_wide(model, x["train"][:, order], y["train"], args.wide_epochs, rate, held)
        if strength:
            found = fisher(model, x["train"][:, order])
            anchor = found if anchor is None else anchor + found
        matrix[number] = [accuracy(model, x[split][:, o], y[split]) for o in orders]
    return matrix


def wide_network(args, seed: int):
    """One wide hidden layer, half of it dropped in each step: tasks then share fewer units."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(args.units, "relu", kernel_initializer="he_normal", name="hidden")
    logits = keras.layers.Dense(10, name="head_logits")(keras.layers.Dropout(0.5)(hidden(inputs)))
    return keras.Model(inputs, keras.layers.Softmax(name="head_predictions")(logits))


def proximal(model, anchor, factor: float):
    """EWC's penalty as an implicit step, w <- (w + a c) / (1 + a) with a = rate * strength * F.

    That is where the penalty alone, whose curvature is known, pulls a weight: exact for a
    quadratic, and stable however large it is, where a plain step of SGD diverges past
    a = 2 (the proximal gradient method).
    """
    names = {f"{layer.name}/{v.name}": v for layer in model.layers for v in layer.weights}
    return [(names[n], factor * f, anchor.centers[n]) for n, f in anchor.importance.items()]


def train_wide(model, x, y, epochs: int, rate: float, held) -> None:
    """Plain SGD without momentum, each step followed by the penalty's own."""
    import keras
    import tensorflow as tf

    batch, variables = 32, [v.value for v in model.trainable_variables]
    pulls = [(v.value, tf.constant(f), tf.constant(c)) for v, f, c in held]
    x, y = tf.constant(x), tf.constant(y, tf.int32)

    @tf.function
    def epoch(order):
        for first in tf.range(0, len(x), batch):
            rows = order[first : first + batch]
            with tf.GradientTape() as tape:
                said = model(tf.gather(x, rows), training=True)
                losses = keras.losses.sparse_categorical_crossentropy(tf.gather(y, rows), said)
                loss = tf.reduce_mean(losses)
            for variable, gradient in zip(variables, tape.gradient(loss, variables)):
                variable.assign_sub(rate * gradient)
            for variable, pull, center in pulls:
                variable.assign((variable + pull * center) / (1.0 + pull))

    for _ in range(epochs):
        epoch(tf.random.shuffle(tf.range(len(x))))


def show_permuted(args) -> None:
    from tl_keras.continual.forgetting import transfer

    strengths = args.strengths if args.tune else (0.0, args.strength)
    seeds = [args.seed + 50] if args.tune else range(args.seed, args.seed + args.seeds)
    for strength in strengths:
        split = "val" if args.tune else "test"
        found = [transfer(permuted(args, strength, seed, split), [0.1] * args.tasks)
                 for seed in seeds]  # fmt: skip
        means = [one["average"] for one in found]
        lost = np.mean([one["forgetting"] for one in found])
        print(
            f"permuted digits, {args.tasks} tasks, {split}, strength {strength:g}: mean accuracy "
            f"{np.mean(means):.3f} (seeds {min(means):.3f} to {max(means):.3f}), "
            f"forgetting {lost:.3f}", flush=True,
        )  # fmt: skip


def show_split(args) -> None:
    """Class-incremental: two new classes a task, one head for all, no task is told."""
    for name, method in (("nothing", 0), ("replay", args.exemplars)):
        found = [split_run(args, method, seed) for seed in range(args.seed, args.seed + args.seeds)]
        print(
            f"split digits 5 x 2, {name} ({method} exemplars a class): accuracy "
            f"{np.mean(found):.3f} (seeds {min(found):.3f} to {max(found):.3f})", flush=True,
        )  # fmt: skip


def split_run(args, exemplars: int, seed: int) -> float:
    from tl_keras.continual.growing import feature_model, grow
    from tl_keras.continual.replay import select_by_herding

    x, y = digits(seed)
    model, old_x, old_y = network(2, args.width, seed), x["train"][:0], y["train"][:0]
    for task in range(5):
        chosen = np.isin(y["train"], (2 * task, 2 * task + 1))
        new_x, new_y = x["train"][chosen], y["train"][chosen]
        model = grow(model, 2 * task + 2)
        # Every class counts the same, however few exemplars it has.
        repeats = max(1, round(len(new_y) / 2 / max(exemplars, 1)))
        seen_x = np.concatenate([new_x, *[old_x] * repeats])
        train(model, seen_x, np.concatenate([new_y, *[old_y] * repeats]), args)
        features = np.asarray(feature_model(model)(new_x))
        for label in (2 * task, 2 * task + 1) if exemplars else ():
            members = np.flatnonzero(new_y == label)
            kept = members[select_by_herding(features[members], exemplars)]
            old_x, old_y = np.concatenate([old_x, new_x[kept]]), np.r_[old_y, new_y[kept]]
    return accuracy(model, x["test"], y["test"])


def show_streaming(args) -> None:
    """Features of a frozen base; the head from sums, two classes at a time, against all at once."""
    from tl_keras.data.sources import load_samples
    from tl_keras.data.splits import split
    from tl_keras.models.build import build_model
    from tl_keras.probing.linear import StreamingLDA, StreamingRidge, logistic, ridge
    from tl_keras.workflows.update.learn import extract_features

    samples = load_samples(args.data)
    parts = split(samples, 0.15, 0.25, args.seed)
    model = build_model(args.base, samples.outputs, size=args.size, weights=args.weights)
    x, y = {}, {}
    for name in ("train", "test"):
        part = getattr(parts, name)
        x[name] = extract_features(model, part, args.engine, lambda *_: None)
        y[name] = part.labels
    joint = {"logistic": logistic, "ridge": ridge}
    heads = {n: f(x["train"], y["train"], samples.outputs) for n, f in joint.items()}
    scores = {n: float((h.predict(x["test"]) == y["test"]).mean()) for n, h in heads.items()}
    best = max(scores.values())
    print(f"joint heads on {args.data}: {scores}; train {len(y['train'])}, test {len(y['test'])}")
    for kind in (StreamingRidge, StreamingLDA):
        sums = kind(x["train"].shape[1])
        for task in range(0, samples.outputs, 2):
            chosen = np.isin(y["train"], (task, task + 1))
            sums.update(x["train"][chosen], y["train"][chosen])
        got = float((sums.solve().predict(x["test"]) == y["test"]).mean())
        print(f"{kind.__name__}, two classes at a time: {got:.4f}, {got / best:.4f} of the best "
              "joint head", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("permuted", "split", "streaming"))
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--strength", type=float, default=300.0)
    parser.add_argument("--strengths", type=float, nargs="+", default=[30, 100, 300])
    parser.add_argument("--gain", type=float, default=3.0, help="factor on pixels, permuted")
    parser.add_argument("--units", type=int, default=2000)
    parser.add_argument("--wide-epochs", type=int, default=60)
    parser.add_argument("--wide-rate", type=float, default=0.3)
    parser.add_argument("--exemplars", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="digits@80")
    parser.add_argument("--base", default="small_resnet")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    start_tensorflow()
    {"permuted": show_permuted, "split": show_split, "streaming": show_streaming}[args.what](args)


if __name__ == "__main__":
    main()
