"""Record what networks of timm, torchvision and transformers give, for a test without torch.

    pip install timm torchvision transformers safetensors
    python scripts/record_torch_features.py tests/data/torch_features.json.gz

Each network gets numbers that NumPy draws for each tensor's name, and sees one image of noise. The
file keeps the tensors' names and shapes and some of the features.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from torchvision import models

MEAN, DEVIATION, HALF = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.5, 0.5, 0.5)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of a tensor: those of a network in which nothing dies out or explodes."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        values = rng.uniform(0.75, 1.25, shape)
    elif len(shape) in (2, 4):
        values = rng.normal(0, (1.5 / np.prod(shape[1:])) ** 0.5, shape)
    else:
        values = rng.normal(0, 0.1, shape)
    return values.astype(np.float32)


def record(base: str, network: Any, features: Callable[[Any], Any], size: int,
           **settings: Any) -> dict[str, Any]:  # fmt: skip
    """Names and shapes of a network's tensors, and some features of the image of its size."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.tensor(draw(name, shape))
                             for name, shape in shapes.items()})  # fmt: skip
    network.eval()
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3)) / 255
    mean, deviation = settings.get("mean", MEAN), settings.get("std", DEVIATION)
    scaled = ((image - mean) / deviation).astype(np.float32).transpose(2, 0, 1)[None]
    with torch.no_grad():
        found = features(torch.tensor(scaled)).numpy()
    found = found.transpose(0, 2, 3, 1) if found.ndim == 4 else found
    kept = found.reshape(-1, found.shape[-1])
    kept = np.concatenate([kept[0, :24], kept[-1, -24:], kept.mean(0)[:24]])
    config = {"architecture": settings["architecture"], "pretrained_cfg": {
        "mean": mean, "std": deviation}} if "architecture" in settings else {}  # fmt: skip
    return {"base": base, "size": size, "config": config,
            "features": [float(f"{one:.7g}") for one in kept],
            "shapes": {name: list(shape) for name, shape in shapes.items()}}  # fmt: skip


def of_timm(base: str, architecture: str, size: int, **more: Any) -> dict[str, Any]:
    """Record a network of timm."""
    network = timm.create_model(architecture, **more.pop("make", {}))
    after = network.head.norm if architecture.startswith("convnext") else lambda x: x
    return record(base, network, lambda x: after(network.forward_features(x)), size,
                  architecture=architecture, **more)  # fmt: skip


def of_torchvision(base: str, name: str, size: int) -> dict[str, Any]:
    """Record a network of torchvision."""
    network = getattr(models, name)()
    return record(base, network, network.features, size)


def of_transformers(base: str, family: str, size: int, **config: Any) -> dict[str, Any]:
    """Record a network of transformers."""
    scaling = config.pop("scaling", {})
    made = getattr(transformers, f"{family}Config")(**config)
    network = getattr(transformers, f"{family}ForImageClassification")(made)
    inner = network.base_model

    def features(x: Any) -> Any:
        found = inner(x).last_hidden_state
        if family != "ConvNext":
            return found
        return inner.layernorm(found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return record(base, network, features, size, **scaling)


HALVES = {"mean": HALF, "std": HALF}
TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768,
        "layer_norm_eps": 1e-6}  # fmt: skip
CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "timm vit_tiny": lambda: of_timm("vit_tiny16", "vit_tiny_patch16_224", 48,
                                     make={"img_size": 48}, **HALVES),
    "timm deit_tiny_distilled": lambda: of_timm(
        "deit_tiny16_distilled", "deit_tiny_distilled_patch16_224", 32, make={"img_size": 32}),
    "timm resnet50": lambda: of_timm("resnet50", "resnet50", 65),
    "timm mobilenetv2_050": lambda: of_timm("mobilenet_v2@0.5", "mobilenetv2_050", 64),
    "timm mobilenetv3_small": lambda: of_timm("mobilenet_v3_small", "mobilenetv3_small_100", 64),
    "timm tf_mobilenetv3_large": lambda: of_timm(
        "mobilenet_v3_large", "tf_mobilenetv3_large_100", 64, **HALVES),
    "timm efficientnet_b0": lambda: of_timm("efficientnet_b0", "efficientnet_b0", 64),
    "timm tf_efficientnet_b1": lambda: of_timm("efficientnet_b1", "tf_efficientnet_b1", 63),
    "timm efficientnet_lite0": lambda: of_timm("efficientnet_lite0", "efficientnet_lite0", 64),
    "timm tf_efficientnet_lite0": lambda: of_timm(
        "efficientnet_lite0", "tf_efficientnet_lite0", 64, **HALVES),
    "timm convnext_tiny": lambda: of_timm("convnext_tiny", "convnext_tiny", 64),
    "torchvision mobilenet_v2": lambda: of_torchvision("mobilenet_v2", "mobilenet_v2", 65),
    "torchvision mobilenet_v3_large": lambda: of_torchvision(
        "mobilenet_v3_large", "mobilenet_v3_large", 64),
    "torchvision mobilenet_v3_small": lambda: of_torchvision(
        "mobilenet_v3_small", "mobilenet_v3_small", 64),
    "torchvision efficientnet_b0": lambda: of_torchvision(
        "efficientnet_b0", "efficientnet_b0", 64),
    "torchvision vgg16": lambda: of_torchvision("vgg16", "vgg16", 32),
    "transformers ResNet": lambda: of_transformers("resnet50", "ResNet", 64),
    "transformers MobileNetV2": lambda: of_transformers(
        "mobilenet_v2", "MobileNetV2", 64, tf_padding=True, scaling=HALVES),
    "transformers EfficientNet": lambda: of_transformers(
        "efficientnet_b0", "EfficientNet", 64, width_coefficient=1.0, depth_coefficient=1.0,
        hidden_dim=1280),
    "transformers ConvNext": lambda: of_transformers("convnext_tiny", "ConvNext", 64),
    "transformers ViT": lambda: of_transformers(
        "vit_tiny16", "ViT", 32, image_size=32, scaling=HALVES, **TINY),
    "transformers DeiT": lambda: of_transformers(
        "deit_tiny16_distilled", "DeiT", 32, image_size=32, **TINY),
}  # fmt: skip


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(make(), separators=(',', ':'))}"
             for name, make in CASES.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    Path(sys.argv[1]).write_bytes(gzip.compress(text.encode(), mtime=0))
