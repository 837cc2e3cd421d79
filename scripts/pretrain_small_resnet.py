"""Pretrain the project's own small base on letters that it renders itself.

    python scripts/pretrain_small_resnet.py

The shipped weights took 27 minutes on two cores that other work shared. The source task has no
digits and no data from elsewhere: the letters of six alphabets in matplotlib's fonts
(`tl_keras.data.builtin.glyphs`), fresh pictures in every round. The same seed renders the same
pictures; the weights come out alike, not equal to the last bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tl_keras.data.builtin.glyphs import render
from tl_keras.data.builtin.letters import draw_glyphs
from tl_keras.models.backbones.small_resnet import SMALL_RESNET_WEIGHTS, small_resnet

BATCH = 128
HELD_OUT_SEED = 10**9


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=SMALL_RESNET_WEIGHTS, help="weights file to write")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of fresh pictures")
    parser.add_argument("--pictures", type=int, default=20_480, help="pictures a round")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def classifier(base, classes: int, rate: float, steps: int):
    """The base with a softmax over the letters, compiled with warm-up and cosine decay."""
    import keras

    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    dropped = keras.layers.Dropout(0.1)(pooled)
    model = keras.Model(base.input, keras.layers.Dense(classes, activation="softmax")(dropped))
    warm = min(100, steps // 5)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / warm, steps - warm, warmup_target=rate, warmup_steps=warm
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    # XLA runs convolutions on one core here, which takes twice as long.
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    return model


def main() -> None:
    import keras

    options, began = arguments(), time.perf_counter()
    keras.utils.set_random_seed(options.seed)
    classes = len(draw_glyphs().names)
    base = small_resnet()
    steps = options.rounds * options.pictures // BATCH
    model = classifier(base, classes, options.rate, steps)
    for number in range(options.rounds):
        pictures, labels = render(options.pictures, seed=options.seed * 10_000 + number)
        row = model.fit(pictures, labels, batch_size=BATCH, verbose=0).history
        spent = time.perf_counter() - began
        print(
            f"round {number + 1:2}/{options.rounds}  loss {row['loss'][0]:.3f}  "
            f"accuracy {row['accuracy'][0]:.3f}  {spent:4.0f} s",
            flush=True,
        )
    pictures, labels = render(4096, seed=HELD_OUT_SEED)
    accuracy = model.evaluate(pictures, labels, batch_size=256, verbose=0)[1]
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    base.save_weights(options.out)
    size = Path(options.out).stat().st_size / 1e6
    print(f"{classes} classes, held-out accuracy {accuracy:.3f}, {size:.2f} MB, {options.out}")


if __name__ == "__main__":
    main()
