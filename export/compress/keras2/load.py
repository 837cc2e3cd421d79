"""Import tf_keras (Keras 2) and tfmot without a trace in the environment.

tfmot sets `TF_USE_LEGACY_KERAS` when it is imported and looks at `tf.keras`, which TensorFlow
resolves once, by that very variable. Left alone, both would turn what this process and its
children do later with `tf.keras` into Keras 2.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced, start_tensorflow

__all__ = ["load_tf_keras", "load_tfmot"]

_SWITCH = "TF_USE_LEGACY_KERAS"


def load_tf_keras() -> Any:
    """Return the module `tf_keras`.

    Raises:
        ExportError: if it is not installed.
    """
    return _import("tf_keras", "tf_keras")


def load_tfmot() -> Any:
    """Return the module `tensorflow_model_optimization`.

    Raises:
        ExportError: if it, or tf_keras, is not installed.
    """
    load_tf_keras()
    return _import("tensorflow_model_optimization", "tensorflow-model-optimization")


def _import(name: str, package: str) -> Any:
    start_tensorflow()
    import tensorflow

    # Resolved now, by the user's own setting, it stays what it is.
    _ = tensorflow.keras.Model
    try:
        with _keep_environment(), silenced():
            return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"Compression needs {package}, which cannot be imported ({error}); install it with: "
            f"pip install {package}"
        ) from error


@contextmanager
def _keep_environment() -> Iterator[None]:
    before = os.environ.get(_SWITCH)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
