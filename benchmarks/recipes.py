"""How well each quantization recipe keeps the labels of its float model, and at what size.

    python benchmarks/recipes.py FOLDER --base mobilenet_v2 --weights FILE --recipes int8,int4_gptq

The model is a frozen base under logistic regression (strength by 5-fold cross-validation on the
training images). Files are calibrated on training images, each by the search's first try alone,
with no choice by results; what is printed is from validation and test images, which neither
trained nor calibrated, and with --train from all images that did not calibrate.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from export.convert import onnx, tflite
from export.quantize.recipes import RECIPES, Recipe
from export.quantize.search import (
    Limits,
    QuantizationTask,
    Quantizer,
    Settings,
    try_plainly,
)
from export.runtime.runtimes import load
from export.source import Source
from tl_keras.data.samples import Samples, from_arrays
from tl_keras.data.sources import load_samples
from tl_keras.data.splits import Splits
from tl_keras.models.build import build_model
from tl_keras.probing.linear import logistic
from tl_keras.utils.stats import wilson

FORMATS = {"tflite": tflite, "onnx": onnx}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--recipes", default="int8", help="names, or 'all'")
    parser.add_argument("--formats", default="tflite,onnx")
    parser.add_argument("--train", action="store_true", help="training images, too")
    parser.add_argument("--keep", type=Path, help="a folder to keep images and model in")
    args = parser.parse_args()
    model, samples, splits = _prepare(args)
    shown = splits != "train"
    source = _source(model, samples, splits)
    truth = model.predict(samples.items.astype("float32"), batch_size=16, verbose=0)
    print(f"{args.folder.name}, {args.base}: Keras {_accuracies(truth, samples, splits)}")
    print("| file | size | val | test | together (95 %) | all images | divergence | note |")
    print("|---|---:|---:|---:|---:|---:|---:|---|", flush=True)
    for name in args.formats.split(","):
        contents = FORMATS[name].convert(model)
        for recipe in _choose(args.recipes, name):
            with tempfile.TemporaryDirectory() as folder:
                task = QuantizationTask(
                    source, truth, recipe, contents, Path(folder, recipe.file),
                    FORMATS[name].convert,
                )  # fmt: skip
                made, note, calibrated = _make(task)
                task.path.write_bytes(made)
                asked = np.ones(len(shown), bool) if args.train else shown
                given = np.full_like(truth, np.nan)
                given[asked] = _ask(task.path, samples.items[asked])
            rest = asked.copy()
            rest[np.flatnonzero(splits == "train")[calibrated]] = False
            _print(recipe, len(made) / len(contents), (truth, given, splits, rest), note)


def _choose(names: str, format_: str) -> list[Recipe]:
    wanted = names.split(",")
    return [
        one for one in RECIPES if one.format == format_ and ("all" in wanted or one.name in wanted)
    ]


def _prepare(args: argparse.Namespace) -> tuple[object, Samples, np.ndarray]:
    """Build the model with its head, or read both from the folder that keeps them."""
    import keras

    name = f"{args.folder.name}-{args.base.replace('@', '_')}"
    files = [args.keep / f"{name}.{end}" for end in ("keras", "npz")] if args.keep else []
    if files and all(file.exists() for file in files):
        found = np.load(files[1])
        return (
            keras.saving.load_model(files[0]),
            from_arrays(found["x"], found["y"]),
            found["split"],
        )
    samples = load_samples(str(args.folder))
    model = build_model(args.base, samples.outputs, weights=args.weights)
    reader = samples.reader(model)
    images = reader.read(range(len(samples)), 0)["image"]
    splits = np.array(samples.splits)
    _fit_head(model, images[splits == "train"], samples.labels[splits == "train"])
    if files:
        model.save(files[0])
        np.savez(files[1], x=images, y=samples.labels, split=splits)
    return model, from_arrays(images, samples.labels), splits


def _fit_head(model, images: np.ndarray, labels: np.ndarray) -> None:
    import keras

    head = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]
    features = keras.Model(model.input, head.input).predict(
        images.astype("float32"), batch_size=16, verbose=0
    )
    solved = logistic(features, labels, int(labels.max()) + 1)
    head.set_weights([solved.weights, solved.bias])


def _source(model, samples: Samples, splits: np.ndarray) -> Source:
    train, others = (
        samples.take(np.flatnonzero(one)) for one in (splits == "train", splits != "train")
    )
    return Source(
        model, samples.class_names, {"image": others.items}, others.keys, labels=others.labels,
        data=Splits(train, others, None),
    )  # fmt: skip


def _make(task: QuantizationTask) -> tuple[bytes, str, np.ndarray]:
    from export.quantize.calibration import choose_stratified

    limits = Limits()
    quantizer = Quantizer(task, limits, lambda *step: None)
    uses = task.recipe.calibrated or task.recipe.weights == "int8"
    count = quantizer.available(limits.calibration)
    start = Settings(task.contents, count if task.recipe.calibrated else 0)
    settings, note = next(try_plainly(quantizer, start))
    chosen = choose_stratified(task.source.calibrating, count, limits.seed) if uses else []
    return quantizer.make(settings), note, np.asarray(chosen, np.int64)


def _ask(path: Path, images: np.ndarray) -> np.ndarray:
    runtime = load(path, 2)
    return np.concatenate([runtime.predict(images[i : i + 16]) for i in range(0, len(images), 16)])


def _accuracies(truth: np.ndarray, samples: Samples, splits: np.ndarray) -> str:
    right = truth.argmax(1) == samples.labels
    return ", ".join(f"{one} {right[splits == one].mean():.4f}" for one in np.unique(splits))


def _print(recipe: Recipe, size: float, answers: tuple, note: str) -> None:
    truth, given, splits, rest = answers
    same = truth.argmax(1) == np.nan_to_num(given).argmax(1)

    def count(chosen: np.ndarray) -> str:
        return f"{same[chosen].sum()}/{chosen.sum()}" if chosen.any() else ""

    held = rest & (splits != "train")
    low, high = wilson(same[held].sum(), held.sum())
    floor = 1e-6
    log = np.log((truth[held] + floor) / (given[held] + floor))
    apart = float((truth[held] * log).sum(axis=1).mean())
    everything = f"{count(rest)} = {same[rest].mean():.4f}" if rest.sum() > held.sum() else ""
    print(
        f"| {recipe.format}-{recipe.name} | {size:.3f} | {count(held & (splits == 'val'))} "
        f"| {count(held & (splits == 'test'))} | {same[held].mean():.4f} ({low:.3f}-{high:.3f}) "
        f"| {everything} | {apart:.5f} | {note} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
