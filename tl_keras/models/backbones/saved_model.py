"""Bases from SavedModels and TF-Hub: their graph rewritten as one flat graph of stock layers.

    hub:FOLDER                          a SavedModel
    hub:https://tfhub.dev/...           a handle, which tensorflow_hub fetches and keeps
    hub:FOLDER?range=-1..1              what the SavedModel takes: 0..1, -1..1 or 0..255
    hub:FOLDER?signature=NAME           where there are several
    hub:FOLDER?opaque                   not rewritten: one frozen layer, for graphs with operations
                                        that no stock layer stands for

What a SavedModel takes: images in 0..1, by the convention of TF-Hub
(https://www.tensorflow.org/hub/common_signatures/images); 0..255 where its graph begins with a
scaling from there; what `range` says where something else is true. A base is not taken before its
features are those of the SavedModel itself, on photos.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.frozen_graph import FrozenGraph, freeze
from tl_keras.models.backbones.graph_layers import (
    Rewritten,
    UnknownOperationsError,
    rewrite_graph,
)
from tl_keras.models.backbones.preprocessing import LAYER, Scaling, read_chain, with_scaling
from tl_keras.models.backbones.registry import OWN, BackboneInfo
from tl_keras.models.backbones.saved_model_checks import check_equal, follow_training, photos
from tl_keras.models.backbones.saved_model_folder import (
    Module,
    image_side,
    open_saved_model,
    resolve,
)
from tl_keras.models.graph import feature_point

if TYPE_CHECKING:
    import keras

__all__ = ["build", "describe"]

_LOG = logging.getLogger(__name__)

RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
"""What a SavedModel may take: name -> what black and white are."""

_USUAL_SIDE = 224
_FROM_BYTES = 1 / 16
"""A factor below this, right behind the input, scales from 0..255."""


@dataclass(frozen=True)
class _Place:
    """What stands behind "hub:".

    Attributes:
        where: A folder or an address.
        range: A name in `RANGES`, empty to find out.
        signature: Name of the signature, empty to choose.
        opaque: Whether it is taken as it is.
    """

    where: str
    range: str = ""
    signature: str = ""
    opaque: bool = False


def _parse(place: str) -> _Place:
    where, _, words = place.partition("?")
    options: dict[str, str] = {}
    opaque = False
    for word in filter(None, words.split("&")):
        name, _, value = word.partition("=")
        if name == "tf-hub-format":  # of an address
            where = f"{where}?{word}"
        elif word == "opaque":
            opaque = True
        elif name not in ("range", "signature") or not value:
            raise ModelError(f"got {word!r} in hub:{place}; expected hub:{where}?range="
                             f"{'|'.join(RANGES)}, ?signature=NAME or ?opaque")
        else:
            options[name] = value
    if options.get("range", "0..1") not in RANGES:
        raise ModelError(f"got range={options['range']} in hub:{place}; expected one of "
                         f"{', '.join(RANGES)}")
    return _Place(where, **options, opaque=opaque)


def describe(name: str, place: str) -> BackboneInfo:
    """Say what is known of a SavedModel without loading it.

    A folder that is not there is no error yet: a run whose base it was must open without it.

    Args:
        name: The base's whole name.
        place: What stands behind "hub:".

    Raises:
        ModelError: An option in it is unknown.
    """
    where = _parse(place).where
    side = image_side(Path(where).expanduser()) if "://" not in where else None
    said = re.search(r"_(\d{2,3})(?=/|$)", where) if "://" in where else None
    return BackboneInfo(
        name, "saved_model", f"{OWN}saved_model", "", "included",
        side or (int(said.group(1)) if said else _USUAL_SIDE), side or 8,
        "as its authors state it", "a SavedModel", default_weights="default",
        maximum_size=side)


def build(
    info: BackboneInfo, place: str, size: int, weights: str | Path | None = "default"
) -> keras.Model:
    """Make a base of a SavedModel.

    Args:
        info: What `describe` gave.
        place: What stands behind "hub:".
        size: Side of the images, pixels.
        weights: "default" for its own, None for random ones.

    Returns:
        A flat model of stock layers from RGB 0..255, float32 (None, size, size, 3), to where the
        features end: a head that the SavedModel has, pooling included, is left away.

    Raises:
        ModelError: The SavedModel cannot be opened or rewritten, or the base differs from it.
        DownloadError: It must be fetched and cannot be.
    """
    import keras

    if weights not in ("default", None):
        raise ModelError(f"got weights {str(weights)!r} for {info.name}, which has its weights; "
                         "expected default or none")
    asked = _parse(place)
    folder = resolve(asked.where)
    module = open_saved_model(folder, asked.signature)
    if module.side not in (None, size):
        raise ModelError(f"'{folder}' takes images of {module.side} px; got size {size}")
    graph = _trace(folder, module, size)
    if asked.opaque:
        if weights is None:
            raise ModelError(f"got weights none for {info.name}, whose weights stand in its graph; "
                             "leave out ?opaque")
        return _opaque(info, asked, folder, graph, size)
    try:
        whole = rewrite_graph(graph)
    except UnknownOperationsError as error:
        raise UnknownOperationsError(
            f"'{folder}' cannot be rewritten: {error}; take it as it is, frozen: "
            f"hub:{place}{'&' if '?' in place else '?'}opaque") from error
    scaling = _scaling(info, asked, whole.model)
    pixels = photos(size)
    images = (pixels * scaling.scale + scaling.offset).astype(np.float32)
    check_equal("outputs", _run(module.infer, images), _run(whole.model, images))
    follow_training(module, whole, images)
    base, cut = _without_head(info, whole)
    base = with_scaling(base, scaling.then(read_chain(base)), _model_name(folder, asked.where))
    check_equal("features", graph.compute([cut], images)[0], _run(base, pixels))
    return base if weights == "default" else keras.models.clone_model(base)


def _run(function: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    return np.asarray(function(tf.constant(images)))


def _trace(folder: Path, module: Module, size: int) -> FrozenGraph:
    try:
        return freeze(module.infer, (size, size, 3))
    except ModelError:
        raise
    except Exception as error:  # whatever a graph that does not fit the size makes it raise
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"'{folder}' cannot be traced for images of {size} px ({text}); give the "
                         "size that it was made for") from error


def _opaque(
    info: BackboneInfo, asked: _Place, folder: Path, graph: FrozenGraph, size: int
) -> keras.Model:
    """The SavedModel as one frozen layer behind its scaling."""
    import keras

    from tl_keras.models.backbones.opaque import opaque_layer

    shape = graph.exit.shape
    if shape.rank not in (2, 3, 4) or None in shape[1:].as_list():
        raise ModelError(f"'{folder}' gives {shape} at {size} px; expected a vector, a sequence "
                         "or a map of known size")
    low, high = RANGES[asked.range or "0..1"]
    if not asked.range:
        _LOG.warning("nothing says what images %s takes: 0..1 is assumed, as of TF-Hub's; if it "
                     "was trained on others, say so: &range=-1..1 or &range=0..255", info.name)
    x = entry = keras.Input((size, size, 3), name="pixels")
    if (low, high) != RANGES["0..255"]:
        x = keras.layers.Rescaling((high - low) / 255, low, name=LAYER)(x)
    features = opaque_layer(graph, "opaque_graph")(x)
    return keras.Model(entry, features, name=_model_name(folder, asked.where))


def _scaling(info: BackboneInfo, asked: _Place, model: keras.Model) -> Scaling:
    """From RGB 0..255 to what the SavedModel takes."""
    own = read_chain(model)
    chosen = asked.range
    if not chosen and own.layers and float(np.max(np.abs(own.scale))) < _FROM_BYTES:
        chosen = "0..255"
    if not chosen:
        chosen = "0..1"
        if not own.layers:
            _LOG.warning(
                "nothing in %s says what images it takes: 0..1 is assumed, as of TF-Hub's; if it "
                "was trained on others, say so: ?range=-1..1 or ?range=0..255", info.name)
    low, high = RANGES[chosen]
    return Scaling(np.full(3, (high - low) / 255), np.full(3, low))


def _without_head(info: BackboneInfo, whole: Rewritten) -> tuple[keras.Model, Any]:
    """The model up to where its features end, and the name of that tensor in the graph."""
    import keras

    end = feature_point(whole.model)
    left = [layer.name for layer in keras.Model(end.tensor, whole.model.outputs).layers[1:]] if (
        end.tensor is not whole.model.outputs[0]) else []
    if left:
        _LOG.info("the features of %s end at '%s' %s; left away: %s", info.name, end.layer,
                  end.shape, ", ".join(left))
    model = keras.Model(whole.model.inputs[0], end.tensor)
    return model, whole.tensors()[id(end.tensor)]


def _model_name(folder: Path, where: str) -> str:
    words = re.sub(r"https?://[^/]*/", "", where) if "://" in where else folder.resolve().name
    return "hub_" + re.sub(r"\W+", "_", words).strip("_").lower()
