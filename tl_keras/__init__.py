"""Transfer learning with Keras, from a folder of labelled photos to a proven model."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name to module: imported on first use, so that `import tl_keras` costs nothing.
_PUBLIC = {
    "FitOptions": "tl_keras.training.options",
    "FitResult": "tl_keras.training.options",
    "Head": "tl_keras.models.heads",
    "LayerwiseAdamW": "tl_keras.training.optimizers",
    "Plan": "tl_keras.training.plans",
    "Samples": "tl_keras.data.samples",
    "Splits": "tl_keras.data.splits",
    "Stage": "tl_keras.training.plans",
    "StagedUnfreezing": "tl_keras.training.callbacks",
    "StopOnNaN": "tl_keras.training.callbacks",
    "TLKerasError": "tl_keras.errors",
    "apply_lora": "tl_keras.adaptation.lora",
    "base_names": "tl_keras.models.bases",
    "build_base": "tl_keras.models.bases",
    "build_model": "tl_keras.models.builders",
    "check_pictures": "tl_keras.data.check",
    "evaluate": "tl_keras.evaluation.metrics",
    "fit": "tl_keras.training.fit",
    "from_arrays": "tl_keras.data.samples",
    "insert_adapters": "tl_keras.adaptation.adapters",
    "load_adapter": "tl_keras.adaptation.adapter_files",
    "load_samples": "tl_keras.data.sources",
    "lr_find": "tl_keras.training.lr_finder",
    "merge_lora": "tl_keras.adaptation.lora",
    "named_plan": "tl_keras.training.plans",
    "picture_dataset": "tl_keras.data.pipeline",
    "predict": "tl_keras.evaluation.prediction",
    "save_adapter": "tl_keras.adaptation.adapter_files",
    "split": "tl_keras.data.splits",
    "vgg16_average": "tl_keras.models.builders",
    "vgg16_flatten": "tl_keras.models.builders",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tl_keras' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
