"""Translate a layer's configuration into the words of the other Keras."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_keras.errors import ExportError

__all__ = ["find_counterpart", "refuse", "translate_config"]

_COMMON = {"name", "trainable", "dtype", "activity_regularizer"}
# They describe how a layer was called or saved, not what it computes.
_DESCRIBING = {"batch_input_shape", "batch_shape", "build_config", "compile_config", "dynamic",
               "input_length", "implementation", "key_shape", "module", "query_shape",
               "registered_name", "seed", "trainable", "use_cudnn", "value_shape"}  # fmt: skip
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha", ("LeakyReLU", "alpha"): "negative_slope"}


def find_counterpart(layer: Any, library: Any) -> Any:
    """The class of the same name in the other library.

    Args:
        layer: a layer of one Keras.
        library: the other Keras, as a module.

    Raises:
        ExportError: if there is none, or the layer is none of Keras' own.
    """
    kind = type(layer)
    stock = kind.__module__.split(".")[0] in ("keras", "tf_keras")
    found = getattr(library.layers, kind.__name__, None)
    if not stock or found is None:
        raise refuse(layer, f"{library.__name__} has no such layer")
    return found


def refuse(layer: Any, why: str) -> ExportError:
    """Build the error that names a layer without a counterpart, and what can be done."""
    return ExportError(
        f"Layer {layer.name!r} ({type(layer).__name__}) has no counterpart in the other Keras: "
        f"{why}. Replace it by stock layers that both have, or leave compression out and export "
        "the model as it is."
    )


def translate_config(layer: Any, target: type, library: Any) -> dict[str, Any]:
    """A configuration that the counterpart can be made from.

    Keys that only one of the two knows are left out where they hold their default.

    Args:
        layer: a layer of one Keras.
        target: its class in the other.
        library: the other Keras, as a module.

    Raises:
        ExportError: if a key that the other does not know changes what the layer computes.
    """
    known, defaults = _list_parameters(target), _list_parameters(type(layer))
    config = {}
    for key, value in layer.get_config().items():
        value = _simplify(value, layer, library)
        # Keras 2 keeps an axis as a list, which the batch normalisation of Keras 3 refuses.
        if key == "axis" and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if key not in known:
            key = _RENAMED.get((target.__name__, key), key)
        if key in known:
            config[key] = value
        elif key.endswith("_initializer") or key in _DESCRIBING:
            continue
        elif not (_is_default(value, defaults.get(key)) or value == "channels_last"):
            raise refuse(layer, f"{library.__name__} does not know {key}={value!r}")
    return config


def _list_parameters(kind: type) -> dict[str, Any]:
    """What a layer's constructor takes, with the defaults."""
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if parent.__name__ in ("Layer", "object"):
            found.update((name, found.get(name)) for name in _COMMON)
            break
        parameters = inspect.signature(parent.__init__).parameters.values()  # type: ignore[misc]
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "self":
                found.setdefault(one.name, None if one.default is one.empty else one.default)
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found


def _is_default(value: Any, default: Any) -> bool:
    return value is None or value is False or value == default


def _simplify(value: Any, layer: Any, library: Any) -> Any:
    """A value in plain Python: no policies, no modules, no tracked lists."""
    if isinstance(value, Mapping):
        return _simplify_object(dict(value), layer, library)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple):
        return tuple(_simplify(one, layer, library) for one in value)
    if isinstance(value, list) or type(value).__name__ in ("ListWrapper", "TrackedList"):
        return [_simplify(one, layer, library) for one in value]
    return value


def _simplify_object(value: dict[str, Any], layer: Any, library: Any) -> Any:
    if not {"class_name", "config"} <= value.keys():
        return {key: _simplify(one, layer, library) for key, one in value.items()}
    kind, config = value["class_name"], value["config"]
    if kind in ("DTypePolicy", "Policy", "FloatDTypePolicy"):
        return config["name"]
    if kind == "__tuple__" or not isinstance(config, Mapping):
        return _simplify(config, layer, library)
    own = getattr(_find_library(layer).layers, kind, None)
    if own is not None and "name" in config:
        inner = own.from_config(dict(config))
        target = find_counterpart(inner, library)
        inside = translate_config(inner, target, library)
        # Without its module Keras 3 would look for a user's class.
        return {"class_name": kind, "config": inside, "module": "keras.layers",
                "registered_name": None}  # fmt: skip
    known = _list_parameters(_find_helper(layer, kind, library))
    # An initializer has done its work; what it knows more than its counterpart is not missed.
    config = {key: _simplify(one, layer, library) for key, one in config.items() if key in known}
    return {"class_name": kind, "config": config}


def _find_helper(layer: Any, kind: str, library: Any) -> type:
    """The class of an initializer, a regularizer or a constraint in the other Keras."""
    for module in (library.initializers, library.regularizers, library.constraints):
        found = getattr(module, kind, None)
        if inspect.isclass(found):
            return found
    raise refuse(layer, f"{library.__name__} has no {kind}")


def _find_library(layer: Any) -> Any:
    import importlib

    return importlib.import_module(type(layer).__module__.split(".")[0])
