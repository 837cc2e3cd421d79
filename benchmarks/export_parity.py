"""Every base on its way out: Keras against LiteRT and ONNX Runtime, on random weights.

    python benchmarks/export_parity.py                       # all of them, more than an hour
    python benchmarks/export_parity.py mobilenet_v2@0.35     # some

Each base has a softmax head of seven classes, whose logits are scaled to a root mean square of
three, as a trained network's are; random weights that keep values of order one (the statistics of
BatchNorm too); and the smallest size of 64 px or more that it takes. Pictures go
through in batches of 1, 3 and 8: in ONNX Runtime by the open batch, in LiteRT by resizing the
input of the file made for one picture. A difference is the largest absolute one of any
probability over all batches. Bounds: ONNX Runtime 1e-5, LiteRT 1e-4; all labels must be equal.
"rounding" is how far Keras' own answer moves when its input moves by one unit in the last
place; "spread" how far the pictures' answers lie apart, so that equality means something. Each base
has a process of its own, for conversions leave memory behind. The exit code is 1 when a base
exceeds its bounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))
from base_parity import blobs, each_alone, gain, randomize

BATCHES = (1, 3, 8)
BOUNDS = {"litert": 1e-4, "onnx": 1e-5}
SMALLEST = {
    "vgg": "vgg16", "resnet": "resnet50", "resnet_v2": "resnet50_v2", "mobilenet": "mobilenet@0.25",
    "mobilenet_v2": "mobilenet_v2@0.35", "mobilenet_v3": "mobilenet_v3_small",
    "efficientnet": "efficientnet_b0", "efficientnet_v2": "efficientnet_v2_b0",
    "densenet": "densenet121", "inception_v3": "inception_v3",
    "inception_resnet_v2": "inception_resnet_v2", "xception": "xception",
    "nasnet": "nasnet_mobile", "convnext": "convnext_tiny", "small_resnet": "small_resnet",
    "efficientnet_lite": "efficientnet_lite0",
}  # fmt: skip
# At 75 px its last map is one pixel, and LiteRT's converter makes reshapes for one picture of the
# convolutions there: such a file does not take another batch.
SIZES = {"inception_resnet_v2": 128}
RESULT = Path(__file__).parent / "results" / "export_parity.md"
HEADING = (
    "| base | size, px | LiteRT | ONNX Runtime | labels equal | rounding | spread | seconds |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)


def litert(contents: bytes, batch: np.ndarray) -> np.ndarray:
    """Answer for a whole batch at once, by a file that was made for one picture.

    A transformer's reshapes are for one: it is shown the pictures one by one.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=contents, num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.allocate_tensors()
    if len(batch) > 1 and any("softmax" in one["name"] for one in interpreter.get_tensor_details()
                              if len(one["shape"]) == 4):  # fmt: skip
        return np.concatenate([litert(contents, one[None]) for one in batch])
    interpreter.resize_tensor_input(place, batch.shape, strict=False)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, batch)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def compare(name: str, size: int | None = None) -> dict:
    """One base: largest differences, labels, rounding, spread and seconds."""
    from export.convert import onnx, tflite
    from export.runtime.runtimes import load
    from tl_keras.models.backbones.load import describe
    from tl_keras.models.build import build_model

    start = time.perf_counter()
    info = describe(name)
    size = size or SIZES.get(name, max(info.minimum_size, 64))
    model = build_model(name, 7, size=size, weights=None)
    randomize(model, gain=gain(info))
    pictures = blobs(sum(BATCHES), size, seed=1)
    scale_logits(model, pictures)
    truth = answers(model, pictures)
    moved = answers(model, np.nextafter(pictures, np.float32(np.inf)))
    lite = tflite.convert(model)
    parts = np.split(np.arange(len(pictures)), np.cumsum(BATCHES)[:-1])
    found = {"litert": np.concatenate([litert(lite, pictures[part]) for part in parts])}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        file.write_bytes(onnx.convert(model))
        runtime = load(file, 1)
        found["onnx"] = np.concatenate([runtime.predict(pictures[part]) for part in parts])
    labels = {key: (row.argmax(1) == truth.argmax(1)).all() for key, row in found.items()}
    return {
        "base": name, "size": size, "pictures": len(pictures), "equal": all(labels.values()),
        **{key: float(np.abs(row - truth).max()) for key, row in found.items()},
        "rounding": float(np.abs(moved - truth).max()),
        "spread": float(np.ptp(truth, axis=0).max()),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def scale_logits(model, pictures: np.ndarray) -> None:
    """Bring the logits to the size that they have in a trained network."""
    import keras

    layer = model.get_layer("head_logits")
    logits = answers(keras.Model(model.inputs, layer.output), pictures)
    layer.set_weights([3 / np.sqrt((logits**2).mean()) * array for array in layer.get_weights()])


def answers(model, pictures: np.ndarray) -> np.ndarray:
    """Outputs in inference, in batches of eight."""
    parts = [model(pictures[i : i + 8], training=False) for i in range(0, len(pictures), 8)]
    return np.concatenate([np.asarray(part) for part in parts])


def passed(result: dict) -> bool:
    """Whether a base is within its bounds, on pictures that differ."""
    near = all(result[key] <= bound for key, bound in BOUNDS.items())
    return near and result["equal"] and result["spread"] > 1e-3


def row(result: dict) -> str:
    """One line of the table."""
    shown = [result["base"], str(result["size"])]
    shown += [f"{result[key]:.1e}" for key in ("litert", "onnx")]
    shown += ["all" if result["equal"] else "NOT ALL"]
    shown += [f"{result[key]:.1e}" for key in ("rounding", "spread")]
    shown += [f"{result['seconds']:.0f}"]
    return f"| {' | '.join(shown)} |"


def main() -> int:
    """Print the table, and keep it when all bases were asked for."""
    import keras

    from tl_keras.models.backbones.load import backbone_names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bases", nargs="*", help="names of bases; all when none is given")
    parser.add_argument("--smallest", action="store_true", help="the smallest of each family")
    asked = parser.parse_args()
    wanted = list(SMALLEST.values()) if asked.smallest else asked.bases
    lines, failed, start = [HEADING], 0, time.perf_counter()
    print(HEADING)
    for result in each_alone(compare, wanted or backbone_names()):
        lines.append(row(result))
        print(lines[-1], flush=True)
        failed += not passed(result)
    seconds = time.perf_counter() - start
    last = (
        f"\n{len(lines) - 1} bases, {failed} beyond LiteRT {BOUNDS['litert']:.0e}, ONNX Runtime "
        f"{BOUNDS['onnx']:.0e} or with another label; {sum(BATCHES)} pictures in batches of "
        f"{', '.join(map(str, BATCHES))}; {seconds:.0f} s; Keras {keras.__version__}."
    )
    print(last)
    if not asked.bases:
        RESULT.parent.mkdir(exist_ok=True)
        kept = RESULT.with_stem("export_parity_smallest") if asked.smallest else RESULT
        kept.write_text("\n".join([*lines, last, ""]), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
