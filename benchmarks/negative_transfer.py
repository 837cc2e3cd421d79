"""Is the verdict on transfer right where the answer is known by construction?

    python benchmarks/negative_transfer.py

Ten cases from digits and rendered letters, at 32 pixels, with the project's small base:

- helps: the shipped base (letters) with 5 and 10 pictures a class; a base that learned the
  digits themselves from others, with its head alone and with all layers trained;
- hurts: a base that learned shuffled labels, one of random weights, and one that learned
  nothing but a flat colour, each frozen under a new head against all layers from scratch;
- no difference: the weights "pretrained" are a random initialization like that of scratch, at
  the same plan; every picture is a blank (nothing can be learned); and enough pictures.

A verdict that comes with 3 seeds costs 6 short trainings.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tl_keras.analysis.transfer_benefit import compare_transfer, fresh
from tl_keras.data.builtin.glyphs import render
from tl_keras.data.samples import Samples, from_arrays
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits
from tl_keras.training.plan import Plan, Stage
from tl_keras.utils.quiet import start_tensorflow

SIZE = 32
PROBE = Plan("probe", (Stage("head", ("head",), epochs=25, learning_rate=1e-2),), batch_size=32)
BRIEF = Plan("probe", (Stage("head", ("head",), epochs=10, learning_rate=1e-2),), batch_size=32)
LP_FT = Plan(
    "lp-ft", (Stage("head", ("head",), 10, 1e-2), Stage("all", ("all",), 8, 1e-3, decay=0.8))
)
FULL = Plan("full", (Stage("all", ("all",), epochs=15, learning_rate=1e-3),), batch_size=32)
LONG = Plan("full", (Stage("all", ("all",), 8, 2e-3, batchnorm="train"),), batch_size=32)


def model(weights: str | None = "default", seed: int = 0, outputs: int = 10) -> Any:
    """Return the small base with a head."""
    import keras

    from tl_keras.models.build import build_model

    keras.utils.set_random_seed(seed)
    return build_model("small_resnet", outputs, size=SIZE, weights=weights)


def base_of(trained: Any) -> Callable[[int], Any]:
    """Return what puts a trained base under a new head of ten outputs."""

    def build(seed: int) -> Any:
        made = model(None, seed)
        for layer in trained.layers:
            if layer.weights and not layer.name.startswith("head_"):
                made.get_layer(layer.name).set_weights(layer.get_weights())
        return made

    return build


def some(samples: Samples, each: int, start: int = 0) -> Samples:
    """Return `each` pictures of every class, from the `start`-th of each on."""
    rows = [np.flatnonzero(samples.labels == label) for label in range(10)]
    return samples.take(np.concatenate([row[start : start + each] for row in rows]))


def pretrained(samples: Samples, outputs: int, epochs: int) -> Callable[[int], Any]:
    """Return what makes a base that learned these samples from scratch, once it is wanted."""

    @functools.cache
    def source() -> Callable[[int], Any]:
        from tl_keras.training.trainer import fit

        made = model(None, 99, outputs)
        stage = Stage("scratch", ("all",), epochs=epochs, learning_rate=2e-3, batchnorm="train")
        data = Splits(samples, samples.take(range(200)), None)
        fit(made, data, Plan("source", (stage,)), seed=99)
        return base_of(made)

    return lambda seed: source()(seed)


def cases() -> list[tuple[str, str, Callable[[int], Any], Splits, Plan]]:
    """Return name, answer, base, data and plan of every case."""
    digits = load_samples("digits")
    held = {"val": some(digits, 20, 100), "test": some(digits, 40, 120)}
    five, ten = (Splits(some(digits, each), **held) for each in (5, 10))
    much = Splits(some(digits, 100), **held)
    pictures, labels = render(1000, seed=1)
    noise = from_arrays(pictures, np.random.default_rng(0).permutation(labels) % 10)
    flat = np.broadcast_to(
        (np.arange(600) % 10 * 25).astype(np.uint8)[:, None, None, None], (600, 16, 16, 3)
    )
    colour = from_arrays(np.ascontiguousarray(flat), np.arange(600) % 10)
    blank = {name: _blank(part) for name, part in {"train": ten.train, **held}.items()}
    own = pretrained(some(digits, 60, 10), 10, 12)
    shipped = lambda seed: model("default", seed)  # noqa: E731
    return [
        ("letters, 5 a class", "helps", shipped, five, LP_FT),
        ("letters, 10 a class", "helps", shipped, ten, LP_FT),
        ("own task, head alone", "helps", own, five, PROBE),
        ("own task, all layers", "helps", own, five, FULL),
        ("shuffled labels, frozen", "hurts", pretrained(noise, 10, 12), much, BRIEF),
        ("random weights, frozen", "hurts", lambda seed: model(None, 7 + seed), much, BRIEF),
        ("flat colours, frozen", "hurts", pretrained(colour, 10, 6), much, BRIEF),
        ("another start, not trained", "no difference", _unlearned, ten, LONG),
        ("blank pictures", "no difference", shipped, Splits(**blank), FULL),
        ("letters, 100 a class", "no difference", shipped, much, LONG),
    ]


def _unlearned(seed: int) -> Any:
    return fresh(model(None, seed + 50))


def _blank(samples: Samples) -> Samples:
    return from_arrays(np.zeros((len(samples), SIZE, SIZE, 3), np.uint8), samples.labels)


def main() -> None:
    """Print a line a case and how many verdicts were right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases, from 0")
    asked = parser.parse_args()
    start_tensorflow()
    began, right, told = time.perf_counter(), 0, 0
    for number, (name, answer, build, data, plan) in enumerate(cases()):
        if asked.only and number not in asked.only:
            continue
        found = compare_transfer(build, data, plan, seeds=asked.seeds).verdict
        right, told = right + (found.word == answer), told + 1
        print(
            f"{name:28s} expected {answer:14s} said {found.word:14s} "
            f"{100 * found.difference:+6.1f} points ({100 * found.low:+.1f} to "
            f"{100 * found.high:+.1f})  {found.pretrained:.3f} against {found.scratch:.3f}",
            flush=True,
        )
    print(f"right on {right} of {told} in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
