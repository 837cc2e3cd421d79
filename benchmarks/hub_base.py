"""A base from a SavedModel against the same base by name: features, frozen stage, int8 file.

    python benchmarks/hub_base.py --data FOLDER --weights FILE
    python benchmarks/hub_base.py --data digits --base small_resnet --repeats 3

The base is built by name, exported as a SavedModel (`model.export`), and read back as
`hub:FOLDER`. Both train the same head on the same images in turn, caches filled within the measured
time; then both runs are exported to int8 and scored.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--base", default="mobilenet_v2")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    start_tensorflow()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = {"by name": (args.base, args.weights), "hub": (f"hub:{folder / 'net'}", "default")}
        compare_features(args, folder, names)
        compare_stages(args, names)
        compare_files(args, folder, names)


def compare_features(args: argparse.Namespace, folder: Path, names: dict) -> None:
    """Export the base, read it back, and compare on photos."""
    from tl_keras.models.backbones.load import build_backbone
    from tl_keras.models.backbones.saved_model_checks import difference, photos

    base, weights = names["by name"]
    known = build_backbone(base, size=args.size, weights=weights)
    known.export(str(folder / "net"), verbose=False)
    start = time.perf_counter()
    ours = build_backbone(names["hub"][0], size=args.size)
    seconds = time.perf_counter() - start
    images = photos(known.inputs[0].shape[1])
    apart = difference(np.asarray(known(images)), np.asarray(ours(images)))
    print(f"features differ by {apart:.2g} of their range; {len(ours.layers)} layers for "
          f"{len(known.layers)}; rewritten and compared in {seconds:.1f} s", flush=True)


def compare_stages(args: argparse.Namespace, names: dict) -> None:
    """Train a frozen stage on both, in turn."""
    import keras

    from tl_keras.data.sources import load_samples
    from tl_keras.data.splits import split
    from tl_keras.models.build import build_model
    from tl_keras.training.plan import Plan, Stage
    from tl_keras.training.trainer import fit

    data = split(load_samples(args.data), val=0.2)
    plan = Plan("frozen", (Stage("head", ("head",), args.epochs, 3e-3),), class_weights=False)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(args.repeats):
        for name in sorted(names, reverse=bool(repeat % 2)):
            base, weights = names[name]
            keras.utils.set_random_seed(repeat)
            model = build_model(
                base, len(data.train.class_names), size=args.size, weights=weights)
            start = time.perf_counter()
            result = fit(model, data, plan, seed=repeat)
            seconds[name].append(time.perf_counter() - start)
            print(f"repeat {repeat}, {name}: {seconds[name][-1]:.2f} s, features by "
                  f"{result.engine.name}", flush=True)
    ratios = [hub / own for hub, own in zip(seconds["hub"], seconds["by name"], strict=True)]
    own, hub = (statistics.median(seconds[name]) for name in ("by name", "hub"))
    print(f"frozen stage of {args.epochs} epochs: by name {own:.2f} s, hub {hub:.2f} s, ratio "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def compare_files(args: argparse.Namespace, folder: Path, names: dict) -> None:
    """Export both to int8 TFLite, and print size and accuracy."""
    for name, (base, weights) in names.items():
        run, bundle = folder / name.replace(" ", "_"), folder / f"{name}.zip"
        size = [] if args.size is None else ["--size", str(args.size)]
        call("tl_keras.cli.app", "fit", args.data, "--base", base, "--weights", weights,
             "--plan", "solved", "--out", str(run), *size)
        call("export.cli.app", str(run), "--to", "tflite", "--quantize", "int8", "--out",
             str(bundle))
        with zipfile.ZipFile(bundle) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        for one in manifest["variants"]:
            verdict = one["verdict"]
            print(f"{name}, {one['name']}: {one['bytes'] / 1e6:.3f} MB, accuracy "
                  f"{verdict['accuracy']:.4f}, labels equal {verdict['agreement']:.4f}", flush=True)


def call(module: str, *words: str) -> None:
    """Run a command of the programs."""
    import importlib

    from typer.testing import CliRunner

    done = CliRunner().invoke(importlib.import_module(module).app, list(words))
    if done.exit_code:
        raise SystemExit(done.output)


if __name__ == "__main__":
    main()
