"""Peak memory of a frozen stage with many pictures against a tenth of them.

    python benchmarks/memory.py

Writes JPEG files of noise, 224 px, trains the head of a frozen MobileNetV2 (width 0.35, random
weights) on cached features in a process of its own for each count, and compares the peak RSS.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (2000, 20000)


def main() -> None:
    """Measure and print; with a folder and a count, be the measured process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder")
    parser.add_argument("--count", type=int)
    args = parser.parse_args()
    if args.folder:
        print(_peak(Path(args.folder), args.count))
        return
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), max(COUNTS))
        peaks = [_in_a_process(folder, count) for count in COUNTS]
    for count, peak in zip(COUNTS, peaks, strict=True):
        print(f"{count} pictures: peak RSS {peak:.0f} MB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def _write(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for index in range(count):
        small = generator.integers(0, 256, (14, 14, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize((224, 224))
        picture.save(folder / f"{index:05d}.jpg", quality=80)


def _in_a_process(folder: str, count: int) -> float:
    command = [sys.executable, __file__, "--folder", folder, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _peak(folder: Path, count: int) -> float:
    from tl_keras.utils.quiet import start_tensorflow

    start_tensorflow()
    from tl_keras import modalities
    from tl_keras.data.samples import Samples
    from tl_keras.data.splits import split
    from tl_keras.models.build import build_model
    from tl_keras.training.plan import Plan, Stage
    from tl_keras.training.trainer import fit

    paths = tuple(str(path) for path in sorted(folder.iterdir())[:count])
    labels = np.arange(count) % 4
    samples = Samples(
        paths, labels.astype(np.int64), ("a", "b", "c", "d"), paths, modalities.get("image")
    )
    model = build_model("mobilenet_v2@0.35", 4, size=224, weights=None)
    plan = Plan("memory", (Stage("head", ("head",), 3, 1e-3),))
    fit(model, split(samples), plan, precision="onnxruntime")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
