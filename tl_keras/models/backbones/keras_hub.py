"""Bases from KerasHub: presets, or folders that `save_to_preset` wrote.

    keras_hub:FOLDER                    a backbone on the disk
    keras_hub:PRESET                    a name such as resnet_18_imagenet, which KerasHub fetches
    keras_hub:FOLDER?range=-1..1        what the backbone takes: 0..1, -1..1 or 0..255

Convolutional backbones become stock Keras layers by the same rewriting as SavedModels; ViT and DeiT
do by their weights, and so do BERT and DistilBERT, from token ids to a vector. Of others whose
graph holds what no stock layer stands for, KerasHub's own layers are taken; the model then needs
keras-hub to be opened, which run.json says. What a backbone of images takes is read from its image
converter (`image_converter.json` or `preprocessor.json` in the folder).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import DownloadError, ModelError
from tl_keras.models.backbones import keras_hub_bert as encoders
from tl_keras.models.backbones.frozen_graph import freeze
from tl_keras.models.backbones.graph_layers import UnknownOperationsError, rewrite_graph
from tl_keras.models.backbones.keras_hub_vit import KINDS, rewrite_vit
from tl_keras.models.backbones.preprocessing import Scaling, read_chain, with_scaling
from tl_keras.models.backbones.registry import OWN, BackboneInfo
from tl_keras.models.backbones.saved_model import RANGES
from tl_keras.models.backbones.saved_model_checks import check_equal, follow_training, photos
from tl_keras.models.backbones.saved_model_folder import Module
from tl_keras.models.rewrite import flatten
from tl_keras.utils.files import read_small

if TYPE_CHECKING:
    import keras

    from tl_keras.modalities.text.wordpiece import WordPiece

__all__ = ["build", "describe", "modality", "read_tokenizer"]

_LOG = logging.getLogger(__name__)

_USUAL_SIDE = 224
_LARGEST_CONFIG = 2**24
_CONVERTERS = ("image_converter.json", "preprocessor.json")


def _parse(place: str) -> tuple[str, str]:
    """The preset or folder, and the range that was asked for."""
    where, _, option = place.partition("?")
    name, _, value = option.partition("=")
    if option and (name != "range" or value not in RANGES):
        raise ModelError(f"got ?{option} in keras_hub:{place}; expected ?range= with one of "
                         f"{', '.join(RANGES)}")
    return where, value


def describe(name: str, place: str) -> BackboneInfo:
    """Say what is known of a backbone without KerasHub.

    A folder that is not there is no error yet: a run whose base it was must open without it.

    Args:
        name: The base's whole name.
        place: What stands behind "keras_hub:".

    Raises:
        ModelError: An option in it is unknown, or the folder holds no backbone for images.
    """
    where, _ = _parse(place)
    config = _read(Path(where).expanduser(), "config.json")
    if config.get("class_name") in encoders.KINDS:
        shape_of = encoders.encoder_config(where, config)
        return BackboneInfo(
            name, "keras_hub", f"{OWN}keras_hub", "pool", "included", shape_of.usual, 3,
            "as its authors state it", str(config["class_name"]), default_weights="default",
            maximum_size=shape_of.positions, unit="tokens", modality="text")
    shape = config.get("config", {}).get("image_shape") or config.get("config", {}).get(
        "input_shape")
    side = shape[0] if isinstance(shape, list) and len(shape) == 3 else None
    if side is not None and (not isinstance(side, int) or not 0 < side < 2**14):
        raise ModelError(f"'{where}': config.json has images of {side!r}; expected a side in px")
    return BackboneInfo(
        name, "keras_hub", f"{OWN}keras_hub", "", "included", side or _USUAL_SIDE, side or 8,
        "as its authors state it", str(config.get("class_name", "a preset of KerasHub")),
        default_weights="default", maximum_size=side)


def modality(place: str) -> str:
    """Return what a backbone is shown: "text" for encoders, else "image", "" where none is here."""
    config = _read(Path(_parse(place)[0]).expanduser(), "config.json")
    if not config:
        return ""
    return "text" if config.get("class_name") in encoders.KINDS else "image"


def read_tokenizer(place: str) -> WordPiece | None:
    """Return the tokenizer of an encoder, None for a backbone of images.

    Raises:
        ModelError: It was not saved with the encoder, or has ids that the encoder has not.
    """
    if modality(place) != "text":
        return None
    folder = Path(_parse(place)[0]).expanduser()
    tokenizer = encoders.read_wordpiece(folder, _read(folder, "tokenizer.json"))
    rows = encoders.encoder_config(str(folder), _read(folder, "config.json")).vocabulary
    if len(tokenizer) > rows:
        raise ModelError(f"'{folder}': the vocabulary has {len(tokenizer)} pieces and the model "
                         f"{rows}; expected files of one model")
    return tokenizer


def _read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a folder; empty where there is none."""
    if not (folder / name).is_file():
        return {}
    try:
        found = json.loads(read_small(folder / name, _LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{folder / name}' cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("config", {}), dict):
        raise ModelError(f"'{folder / name}' is no configuration of KerasHub")
    return found


def build(
    info: BackboneInfo, place: str, size: int, weights: str | Path | None = "default"
) -> keras.Model:
    """Make a base of a backbone of KerasHub.

    Args:
        info: What `describe` gave.
        place: What stands behind "keras_hub:".
        size: Side of the images, pixels.
        weights: "default" for its own, None for random ones.

    Returns:
        A flat model from RGB 0..255, float32 (None, size, size, 3), to a map (None, h, w, c) or a
        sequence (None, t, c), of stock layers where these do.

    Raises:
        ModelError: KerasHub is not installed, or the backbone cannot be opened or takes something
            else than one image.
        DownloadError: It must be fetched and cannot be.
    """
    if weights not in ("default", None):
        raise ModelError(f"got weights {str(weights)!r} for {info.name}, which has its weights; "
                         "expected default or none")
    where, asked = _parse(place)
    backbone = _open(where, load=weights == "default")
    if type(backbone).__name__ in encoders.KINDS:
        return _encoder(info, where, backbone, size)
    _check_images(where, backbone)
    scaling = _scaling(info, where, asked)
    pixels = photos(size)
    images = (pixels * scaling.scale + scaling.offset).astype(np.float32)
    name = "keras_hub_" + re.sub(r"\W+", "_", Path(where).name).strip("_").lower()
    own = backbone.inputs[0].shape[1]
    if own not in (None, size):
        raise ModelError(f"{info.name} takes images of {own} px; got size {size}")
    plain = rewrite_vit(backbone) if type(backbone).__name__ in KINDS else _stock(
        info, backbone, size, images)
    base = with_scaling(plain, scaling.then(read_chain(plain)), name)
    check_equal("features", np.asarray(backbone(images, training=False)), np.asarray(base(pixels)))
    return base


def _open(where: str, *, load: bool) -> Any:
    """The backbone of a preset."""
    if importlib.util.find_spec("keras_hub") is None:
        raise ModelError(f"got keras_hub:{where}, and keras-hub is not installed: pip install "
                         "keras-hub, or tl_keras with the extra [hub]")
    folder = Path(where).expanduser()
    local = folder.exists() or where.startswith((".", "/", "~"))
    if local and not (folder / "config.json").is_file():
        raise ModelError(f"'{where}' is no preset of KerasHub: it has no config.json; expected a "
                         "folder that save_to_preset wrote, or a preset's name")
    import keras_hub

    try:
        return keras_hub.models.Backbone.from_preset(
            str(folder) if local else where, load_weights=load)
    except Exception as error:  # whatever a preset or the network makes KerasHub raise
        text = " ".join(str(error).split())[:200]
        if local:
            raise ModelError(f"'{where}' cannot be opened by KerasHub ({text}); save it again "
                             "with save_to_preset") from error
        raise DownloadError(
            f"KerasHub's preset {where!r} cannot be fetched ({text}); save it by save_to_preset "
            "on a machine with a network and give the folder: keras_hub:FOLDER") from error


def _check_images(where: str, backbone: Any) -> None:
    import keras

    shapes = [tuple(tensor.shape) for tensor in backbone.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or not isinstance(
            backbone.output, keras.KerasTensor):
        raise ModelError(f"'{where}' is a {type(backbone).__name__} with inputs {shapes}; expected "
                         "a backbone that takes images (None, height, width, 3) and gives one "
                         "output, or a BertBackbone or DistilBertBackbone")


def _encoder(info: BackboneInfo, where: str, backbone: Any, length: int) -> keras.Model:
    """A text encoder from token ids to a vector, its blocks compared on random ids."""
    import keras

    found = _read(Path(where).expanduser(), "config.json") or {
        "class_name": type(backbone).__name__, "config": backbone.get_config()}
    config = encoders.encoder_config(where, found)
    model = encoders.rewrite_bert(backbone, config, length)
    ids = np.random.default_rng(0).integers(1, config.vocabulary, (4, length)).astype(np.int32)
    ids[1, length // 2 :] = 0
    last = model.get_layer(f"block{config.blocks - 1}_out").output
    ours = np.asarray(keras.Model(model.input, last)(ids))[..., : config.width]
    check_equal("features", encoders.sequence_of(backbone, ids), ours * (ids != 0)[..., None])
    return model


def _stock(info: BackboneInfo, backbone: Any, size: int, images: np.ndarray) -> keras.Model:
    """The backbone rewritten as stock layers by its graph, else with KerasHub's own."""
    graph = freeze(lambda x: backbone(x, training=False), (size, size, 3))
    try:
        rewritten = rewrite_graph(graph)
    except UnknownOperationsError as error:
        _LOG.warning("%s keeps layers of KerasHub (%s): keras-hub is needed to open what is made "
                     "of it", info.name, str(error).split(" (")[0])
        return flatten(backbone, size)
    variables = tuple(variable.value for variable in backbone.variables)
    module = Module(lambda x: backbone(x, training=False), lambda x: backbone(x, training=True),
                    None, variables, backbone)
    kept = backbone.get_weights()
    follow_training(module, rewritten, images)
    backbone.set_weights(kept)
    return rewritten.model


def _scaling(info: BackboneInfo, where: str, asked: str) -> Scaling:
    """From RGB 0..255 to what the backbone takes."""
    if not asked:
        for name in _CONVERTERS:
            found = _read(Path(where).expanduser(), name).get("config", {})
            found = found.get("image_converter", {"config": found}).get("config", {})
            if found.get("scale") is not None or found.get("offset") is not None:
                scale = found.get("scale") if found.get("scale") is not None else 1.0
                offset = found.get("offset") if found.get("offset") is not None else 0.0
                return Scaling(np.broadcast_to(np.asarray(scale, float), 3),
                               np.broadcast_to(np.asarray(offset, float), 3))
        _LOG.warning("nothing in %s says what images it takes: 0..255 is assumed, as KerasHub does "
                     "without an image converter; if it was trained on others, say so: "
                     "?range=-1..1 or ?range=0..1", info.name)
    low, high = RANGES[asked or "0..255"]
    return Scaling(np.full(3, (high - low) / 255), np.full(3, low))
