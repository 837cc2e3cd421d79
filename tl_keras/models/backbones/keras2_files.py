"""Reads whole models that Keras 2 (tf.keras up to TensorFlow 2.15, tf_keras) saved as .h5.

The file's configuration is put into the words of Keras 3 and built by it; no layer of Keras 2 is
made and no code from the file is run. Operators of TensorFlow in the graph (`x / 127.5 - 1`)
become stock layers of equal value, slashes in names become underscores.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["keras2_version", "load_keras2"]

_MODELS = ("Functional", "Model", "Sequential")
# Functions of TensorFlow on one tensor, and the stock layer of the same value.
_UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    "nn.relu": ("ReLU", {}),
    "nn.relu6": ("ReLU", {"max_value": 6.0}),
    "nn.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "nn.silu": ("Activation", {"activation": "silu"}),
    "nn.softmax": ("Activation", {"activation": "softmax"}),
    "math.sigmoid": ("Activation", {"activation": "sigmoid"}),
    "math.tanh": ("Activation", {"activation": "tanh"}),
}
# Of two tensors: the layer. Of a tensor and a number: scale and offset, from either side.
_BINARY: dict[str, tuple[str, Callable[[Any], tuple], Callable[[Any], tuple] | None]] = {
    "add": ("Add", lambda c: (1.0, c), lambda c: (1.0, c)),
    "subtract": ("Subtract", lambda c: (1.0, _each(c, lambda v: -v)), lambda c: (-1.0, c)),
    "multiply": ("Multiply", lambda c: (c, 0.0), lambda c: (c, 0.0)),
    "truediv": ("", lambda c: (_each(c, lambda v: 1 / v), 0.0), None),
    "divide": ("", lambda c: (_each(c, lambda v: 1 / v), 0.0), None),
}


def keras2_version(path: Path) -> str:
    """Return the version of Keras 2 that wrote an HDF5 file, empty for other files."""
    import h5py

    if not h5py.is_hdf5(path):
        return ""
    with h5py.File(path, "r") as file:
        found = file.attrs.get("keras_version") or (
            "2" if "layer_names" in file.attrs or "model_weights" in file else "")
    version = found.decode() if isinstance(found, bytes) else str(found)
    return version if version.startswith("2") else ""


def load_keras2(path: Path) -> keras.Model:
    """Load a whole model that Keras 2 saved, uncompiled.

    Raises:
        ModelError: The file holds weights only, a Lambda, a class that is no stock layer, or an
            operator without a stock layer of equal value.
    """
    import h5py
    import keras

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise ModelError(
                    f"{path} holds weights of Keras 2 without their model; build the model and "
                    "give it them with model.load_weights, or save it whole with "
                    "model.save('name.h5')")
            config = json.loads(text.decode() if isinstance(text, bytes) else text)
            try:
                file.attrs["model_config"] = json.dumps(_translate(config))
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise _refusal(f"its configuration is not understood ({error!r})") from error
        return keras.saving.load_model(str(copy), compile=False, safe_mode=True)


def _refusal(why: str) -> ModelError:
    return ModelError(
        f"a model of Keras 2 cannot be taken over: {why}; replace it by a stock layer in the "
        "program that made the model, and save it again")


def _translate(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer's configuration in the words of Keras 3; models within it as well."""
    import keras

    kind, config = layer["class_name"], layer["config"]
    named = {**layer, "name": _plain(layer["name"])} if "name" in layer else dict(layer)
    if kind in _MODELS:
        layers = config["layers"] if isinstance(config, dict) else config
        made: dict[str, Any] = {"layers": [_translate(one) for one in layers]}
        if isinstance(config, dict):
            made = {**config, **made, "name": _plain(config["name"])}
        if "input_layers" in made:
            _renumber(made)
        return {**named, "config": made}
    if kind == "TFOpLambda":
        return _operator(named)
    known = getattr(keras.layers, kind, None)
    if kind == "Lambda" or known is None:
        raise _refusal(f"layer {config.get('name')!r} is a {kind}")
    taken = {"activity_regularizer", "batch_input_shape", "dtype", "name", "trainable",
             *inspect.signature(known.__init__).parameters}
    if kind == "LeakyReLU":
        config = {**config, "negative_slope": config.get("alpha", config.get("negative_slope"))}
    config = {key: value for key, value in config.items() if key in taken}
    if kind == "BatchNormalization" and isinstance(config.get("axis"), list):
        config["axis"] = config["axis"][0]
    if isinstance(config.get("layer"), dict):  # of a wrapper, such as TimeDistributed
        config["layer"] = _translate(config["layer"])
    if isinstance(config.get("dtype"), dict):  # a policy
        config["dtype"] = config["dtype"]["config"]["name"]
    return {**named, "config": {**config, "name": _plain(config["name"])}}


def _plain(name: str) -> str:
    return name.replace("/", "_")


def _operator(layer: dict[str, Any]) -> dict[str, Any]:
    """The stock layer for a function of TensorFlow on a tensor, two tensors, or one and numbers."""
    name, function = layer["name"], layer["config"]["function"]
    refused = _refusal(f"operator {name!r} is tf.{function}")
    if len(layer["inbound_nodes"]) != 1 or len(layer["inbound_nodes"][0]) != 4:
        raise refused
    first, node, place, options = layer["inbound_nodes"][0]
    right = options.pop("y", None)
    left = place if first == "_CONSTANT_VALUE" else [first, node, place]
    kind, config = _stock(function.split(".")[-1], function, left, right)
    if not kind or any(value is not None for value in options.values()):
        raise refused
    tensors = [[*x, {}] for x in (left, right) if _is_tensor(x)]
    return {"class_name": kind, "name": name, "inbound_nodes": [tensors],
            "config": {"name": name, "dtype": layer["config"]["dtype"], **config}}


def _stock(last: str, function: str, left: Any, right: Any) -> tuple[str, dict[str, Any]]:
    """Class and configuration of the stock layer, ("", {}) where there is none."""
    if right is None:
        return _UNARY.get(function, ("", {}))
    kind, of_right, of_left = _BINARY.get(last, ("", None, None))
    if _is_tensor(left) and _is_tensor(right):
        return kind, {}
    formula = of_right if _is_tensor(left) else of_left
    if formula is None:
        return "", {}
    scale, offset = formula(right if _is_tensor(left) else left)
    return "Rescaling", {"scale": scale, "offset": offset}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], str)


def _each(value: Any, function: Callable[[float], float]) -> Any:
    return [_each(one, function) for one in value] if isinstance(value, list) else function(value)


def _renumber(model: dict[str, Any]) -> None:
    """Rename the references to layers, and count the calls of nested models from 0.

    Keras 2 counts the making of a model as its first call.
    """
    nested = {layer["name"] for layer in model["layers"] if layer["class_name"] in _MODELS}
    places = [model["input_layers"], model["output_layers"]]
    found = [ref for place in places + [layer["inbound_nodes"] for layer in model["layers"]]
             for ref in _references(place)]
    for ref in found:
        ref[0] = _plain(ref[0])
    for name in nested:
        calls = [ref for ref in found if ref[0] == name]
        first = min((ref[1] for ref in calls), default=0)
        for ref in calls:
            ref[1] -= first


def _references(structure: Any) -> Iterator[list[Any]]:
    """The places in a configuration that name a layer, a call of it, and a tensor of the call."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if not isinstance(structure, list):
        return
    if len(structure) >= 3 and isinstance(structure[0], str) and isinstance(structure[1], int):
        yield structure
        structure = structure[3:]
    for one in structure:
        yield from _references(one)
