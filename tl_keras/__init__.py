"""Transfer learning with Keras, from a folder of labelled photos to a proven model."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name to module: imported on first use, so that `import tl_keras` costs nothing.
_PUBLIC = {
    "FitOptions": "tl_keras.training.config",
    "FitResult": "tl_keras.training.config",
    "Head": "tl_keras.models.heads",
    "LayerwiseAdamW": "tl_keras.training.optimizers",
    "Plan": "tl_keras.training.plan",
    "Samples": "tl_keras.data.samples",
    "Splits": "tl_keras.data.splits",
    "Stage": "tl_keras.training.plan",
    "StagedUnfreezing": "tl_keras.training.callbacks",
    "StopOnNaN": "tl_keras.training.callbacks",
    "TLKerasError": "tl_keras.errors",
    "apply_lora": "tl_keras.peft.lora",
    "backbone_names": "tl_keras.models.backbones.load",
    "build_backbone": "tl_keras.models.backbones.load",
    "build_model": "tl_keras.models.build",
    "check_images": "tl_keras.modalities.image.modality",
    "evaluate": "tl_keras.tasks",
    "fit": "tl_keras.training.trainer",
    "from_arrays": "tl_keras.data.samples",
    "image_dataset": "tl_keras.training.batches",
    "insert_adapters": "tl_keras.peft.adapters",
    "load_adapter": "tl_keras.peft.files",
    "load_samples": "tl_keras.data.sources",
    "lr_find": "tl_keras.training.lr_finder",
    "merge_lora": "tl_keras.peft.lora",
    "named_plan": "tl_keras.training.plan",
    "predict": "tl_keras.features.extract",
    "save_adapter": "tl_keras.peft.files",
    "split": "tl_keras.data.splits",
    "vgg16_average": "tl_keras.models.build",
    "vgg16_flatten": "tl_keras.models.build",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tl_keras' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
