"""Whether repeated conversion keeps memory: resident size after 20 conversions against 3.

python benchmarks/conversion_leak.py                # tflite and onnx, small_resnet at 32 px
python benchmarks/conversion_leak.py --base mobilenet_v2 --size 96
"""

from __future__ import annotations

import argparse

import numpy as np

from export.convert import onnx, tflite
from export.quantize.calibration import clip_ranges
from export.quantize.recipes import find_recipe
from export.quantize.search import TOOLS
from tl_keras.utils.quiet import start_tensorflow


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="small_resnet")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args()
    start_tensorflow()
    from tl_keras.models.build import build_model

    model = build_model(args.base, 5, size=args.size, weights=None)
    for name, convert in (("tflite", tflite.convert), ("onnx", onnx.convert)):
        sizes = [_once(name, convert, model, args.size) for _ in range(args.times)]
        print(f"{name}: {sizes[2]:.0f} MB after 3, {sizes[-1]:.0f} MB after {args.times}, "
              f"ratio {sizes[-1] / sizes[2]:.2f} (target 1.20)", flush=True)  # fmt: skip


def _once(name: str, convert, model, size: int) -> float:
    """Convert and quantize; MB resident afterwards."""
    contents, tool = convert(model), TOOLS[name]
    noise = np.random.default_rng(0).integers(0, 256, (4, size, size, 3)).astype(np.uint8)
    ranges = clip_ranges(tool.observe(contents, {"image": noise}))
    tool.quantize(contents, find_recipe("int8", name), ranges)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
