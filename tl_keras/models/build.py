"""Base and head in one flat functional model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError
from tl_keras.models.backbones.load import build_backbone
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.models.graph import feature_point, has_weights, is_functional, steps
from tl_keras.models.heads import Head, attach
from tl_keras.models.rewrite import flatten
from tl_keras.utils.suggest import nearest

if TYPE_CHECKING:
    import keras

__all__ = ["build_model", "vgg16_average", "vgg16_flatten"]

_LOG = logging.getLogger(__name__)


def build_model(
    base: str | Path | keras.Model | Callable[[int], keras.Model],
    outputs: int,
    *,
    head: Head | None = None,
    size: int | None = None,
    weights: str | Path | None = "default",
    features: str | None = None,
) -> keras.Model:
    """One flat functional model: raw RGB in, predictions out.

    A user's own model (an object, a `.keras` file, or a function that takes the size in
    pixels and returns a model) must take RGB 0..255 itself, scaling included. Its own
    classification head is replaced and named in a log line: a pooling, flattening or choice of
    the first token, and the stock layers (dense, dropout, normalization, activation) on the
    vector behind it. Nothing else is left away: where other layers follow the pooling, the
    features are the vector that they give. With pooling "none" the model is taken whole and
    must give a vector. It is copied, not changed.

    Args:
        base: Name of a base (`tl_keras.backbone_names()`), or a user's own model.
        outputs: Number of outputs: classes, labels or values.
        head: The head; None is average pooling and softmax.
        size: Side of the images in pixels; None is the base's own.
        weights: For a base by name: "default", "imagenet", a file or None (random).
        features: The layer whose output, a map (h, w, c), a sequence (t, c) or a vector (c),
            the head is put on, in place of where the base ends. What follows it is left away.

    Returns:
        A model from float32 (None, size, size, 3), RGB 0..255, to float32 (None, outputs).
        Base layers stand under their own names, the head's are named head_*. All stock: the
        saved file loads with `keras.saving.load_model` alone.

    Raises:
        ModelError: When base, size, weights and head do not fit together.
        DownloadError: When weights must be downloaded and cannot be.
    """
    import keras

    head = head or Head()
    if _is_own_model(base):
        body = _user_base(base, size, weights, head.pooling, features)
    else:
        body = build_backbone(str(base), size=size, weights=weights)
    if features is not None:
        body = _cut_at(body, features)
    return keras.Model(body.input, attach(body, head, outputs), name=body.name)


def vgg16_flatten(
    outputs: int, *, size: int | None = None, weights: str | Path | None = "default"
) -> keras.Model:
    """VGG16, flatten, Dense(256, relu), softmax: the published recipe for small data sets.

    Args:
        outputs: Number of classes.
        size: Side of the images in pixels; None is 224.
        weights: As in `build_model`.

    Returns:
        A flat model, RGB 0..255 in, probabilities out.
    """
    head = Head(pooling="flatten", dense=(256,))
    return build_model("vgg16", outputs, head=head, size=size, weights=weights)


def vgg16_average(
    outputs: int, *, size: int | None = None, weights: str | Path | None = "default"
) -> keras.Model:
    """VGG16, average pooling, Dense(512, relu), softmax: the published recipe.

    Args:
        outputs: Number of classes.
        size: Side of the images in pixels; None is 224.
        weights: As in `build_model`.

    Returns:
        A flat model, RGB 0..255 in, probabilities out.
    """
    head = Head(pooling="avg", dense=(512,))
    return build_model("vgg16", outputs, head=head, size=size, weights=weights)


def _is_own_model(base: Any) -> bool:
    return not isinstance(base, (str, Path)) or is_model_file(str(base))


def _user_base(
    base: Any, size: int | None, weights: Any, pooling: str, features: str | None
) -> keras.Model:
    if weights not in ("default", None):
        raise ModelError(
            f"got weights {str(weights)!r} for a model of your own, which has its weights; "
            "load them into it first")
    model = _resolve(base, size)
    whole = features is None and pooling == "none"
    _check_ends(model, size, whole)
    flat = flatten(model)
    if features is None and not whole:
        flat = _remove_head(flat)
    shape = flat.inputs[0].shape
    if len(shape) != 4:
        return flat
    if shape[1] is None and size is None:
        raise ModelError("the model takes images of any size; say which: size=224")
    return flat if size in (None, shape[1]) else flatten(flat, size)


def _resolve(base: Any, size: int | None) -> Any:
    import keras

    from tl_keras.models.backbones.weights import load_user_model
    if isinstance(base, (str, Path)):
        return load_user_model(Path(base).expanduser())
    if isinstance(base, keras.Model):
        return base
    if callable(base):
        return base(224 if size is None else size)
    raise ModelError(
        f"got a base of type {type(base).__name__}; expected a name, a keras.Model, a .keras "
        "file or a function that takes the size and returns a keras.Model")


def _check_ends(model: Any, size: int | None, whole: bool) -> None:
    """Inputs must be what is understood, outputs are replaced unless the model is taken whole."""
    if not is_functional(model):
        raise ModelError(
            f"got {type(model).__name__}, whose graph cannot be read; expected a functional or "
            "a built sequential keras.Model")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    images = [shape for shape in shapes if len(shape) == 4]
    if (whole and len(model.outputs) != 1) or any(shape[3] != 3 for shape in images):
        raise ModelError(
            f"got a model with inputs {shapes} and {len(model.outputs)} outputs; expected images "
            "(None, size, size, 3) or other arrays, and one output")
    if size is not None and len(shapes) + len(images) != 2:
        raise ModelError(
            f"got size={size} for a model with inputs {shapes}; only a model of one image has one")


def _remove_head(model: keras.Model) -> keras.Model:
    """The model up to where its features end; what is left away is named."""
    end = feature_point(model)
    replaced = [step for step in steps(model)[end.position + 1 :]]
    names = ", ".join(dict.fromkeys(step.name for step in replaced))
    body = _cut_at(model, end.layer)
    if replaced and not has_weights(steps(body)):
        raise ModelError(
            f"'{model.name}' has no layer with weights before what a new head would replace "
            f"({names}); name the layer whose output to keep (features=NAME), or choose pooling "
            "none to take the model's output as it is")
    if not all(step.name.startswith("head_") for step in replaced):
        _LOG.warning(
            "the features of '%s' end at '%s' %s; a new head replaces %s",
            model.name, end.layer, end.shape, names)
    return body


def _cut_at(model: keras.Model, layer: str) -> keras.Model:
    """The model up to the output of a layer, which it may be declared to have its features at."""
    import keras

    made = {step.name: step.outputs for step in steps(model)}
    if len(made.get(layer, ())) != 1:
        near = nearest(layer, made, cutoff=0.3) or list(made)[-3:]
        raise ModelError(
            f"'{model.name}' has no layer '{layer}' with one output for its features; the nearest "
            f"are: {', '.join(near)}")
    return keras.Model(model.input, made[layer][0], name=model.name)
