"""Variants of a small model with their files, for the tests of bundles."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from export_models import int8, pictures, settle, small_model

from export.bundle.metadata import add_metadata
from export.convert import onnx, tflite
from export.source import Signature, Source
from export.variant import Attempt, Latency, Variant, Verdict
from tl_keras import tasks
from tl_keras.modalities.base import InputSpec

NAMES = ("ants", "蜜蜂 bees", 'a "wasp": no')


def toy_source(count=12):
    """A model whose answers differ from picture to picture."""
    model = small_model()
    colours = pictures(count)
    for index, picture in enumerate(colours):
        picture[..., index % 3] //= 4
    settle(model, colours)
    head = model.get_layer("head_logits")
    kernel, bias = head.get_weights()
    head.set_weights([8 * kernel, bias])
    keys = tuple(f"{NAMES[index % 3]}/{index}.png" for index in range(count))
    return Source(model, NAMES, {"image": colours}, keys, name="toy")


def toy_variant(folder, format_, recipe, contents, **changes):
    path = folder / f"{format_}-{recipe}.{format_}"
    path.write_bytes(contents)
    verdict = Verdict(12, 0.75, 0.43, 0.95, 0.75, 1.0, 1e-6, 1e-7)
    made = Variant(
        format_, recipe, path, "float32", "float32", len(contents),
        hashlib.sha256(contents).hexdigest(), verdict,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def described(contents):
    """A file with the metadata of the toy."""
    signature = Signature({"image": InputSpec((16, 16, 3), "uint8", "RGB, 0..255")}, 3, "scores")
    return add_metadata(contents, NAMES, signature, tasks.get("classes"), name="toy")


def toy_variants(source, folder):
    """fp32 in both formats, and int8."""
    slow = Latency("LiteRT", 2, 1.5, 1.75, 12.0, 80.0)
    tried = (
        Attempt("int8", False, 0.25, 0.75, 1.5),
        Attempt("more calibration", True, 0.0, 1.0, 2.0, "512 pictures"),
    )
    made = int8(source.model, source.inputs["image"])
    contents = {
        ("tflite", "fp32"): described(tflite.convert(source.model)),
        ("tflite", "int8"): described(made),
        ("onnx", "fp32"): onnx.convert(source.model, NAMES),
    }
    changes = {
        ("tflite", "fp32"): {"latencies": (slow, dataclasses.replace(slow, threads=1))},
        ("tflite", "int8"): {
            "latencies": (dataclasses.replace(slow, median_ms=2.0),),
            "attempts": tried, "input_dtype": "uint8", "notes": ("slower than fp32 here",),
        },
        ("onnx", "fp32"): {"latencies": (Latency("ONNX Runtime", 2, 1.0, 1.25),)},
    }  # fmt: skip
    return [toy_variant(folder, *name, contents[name], **changes[name]) for name in contents]


FACTS = {
    "versions": {"tl_keras": "0.1.0", "tensorflow": "2.21.0"},
    "data": {"fingerprint": "ab" * 32, "root": "/home/me/photos"},
    "metrics": {"val": {"accuracy": np.float64(0.75)}},
    "base": "small_resnet",
}
