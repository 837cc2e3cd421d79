"""Base and head in one flat functional model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError
from tl_keras.models.backbones.load import build_base
from tl_keras.models.graph import cut_points, is_functional
from tl_keras.models.heads import Head, attach
from tl_keras.models.rewrite import flatten

if TYPE_CHECKING:
    import keras

__all__ = ["build_model", "vgg16_average", "vgg16_flatten"]


def build_model(
    base: str | Path | keras.Model | Callable[[int], keras.Model],
    outputs: int,
    *,
    head: Head | None = None,
    size: int | None = None,
    weights: str | Path | None = "default",
) -> keras.Model:
    """One flat functional model: raw RGB in, predictions out.

    A user's own model (an object, a `.keras` file, or a function that takes the size in
    pixels and returns a model) must take RGB 0..255 itself, scaling included. Its own head is
    cut off: all after the last feature map (4-D tensor) that alone crosses its graph. With
    pooling "none" it is taken as it is and must give a vector. It is copied, not changed.

    Args:
        base: Name of a base (`tl_keras.models.backbones.load.base_names`), or a user's own model.
        outputs: Number of outputs: classes, labels or values.
        head: The head; None is average pooling and softmax.
        size: Side of the pictures in pixels; None is the base's own.
        weights: For a base by name: "default", "imagenet", a file or None (random).

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
        body = _user_base(base, size, weights, head.pooling)
    else:
        body = build_base(str(base), size=size, weights=weights)
    predictions = attach(body, head, outputs)
    return keras.Model(body.inputs[0], predictions, name=body.name)


def vgg16_flatten(
    outputs: int, *, size: int | None = None, weights: str | Path | None = "default"
) -> keras.Model:
    """VGG16, flatten, Dense(256, relu), softmax: the published recipe for small data sets.

    Args:
        outputs: Number of classes.
        size: Side of the pictures in pixels; None is 224.
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
        size: Side of the pictures in pixels; None is 224.
        weights: As in `build_model`.

    Returns:
        A flat model, RGB 0..255 in, probabilities out.
    """
    head = Head(pooling="avg", dense=(512,))
    return build_model("vgg16", outputs, head=head, size=size, weights=weights)


def _is_own_model(base: Any) -> bool:
    return not isinstance(base, (str, Path)) or str(base).endswith((".keras", ".h5"))


def _user_base(base: Any, size: int | None, weights: Any, pooling: str) -> keras.Model:
    if weights not in ("default", None):
        raise ModelError(
            f"got weights {str(weights)!r} for a model of your own, which has its weights; "
            "load them into it first")
    model = _resolve(base, size)
    _check_input(model)
    flat = _without_head(flatten(model), pooling)
    own = flat.inputs[0].shape[1]
    if own is None and size is None:
        raise ModelError("the model takes pictures of any size; say which: size=224")
    return flat if size in (None, own) else flatten(flat, size)


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


def _check_input(model: Any) -> None:
    if not is_functional(model):
        raise ModelError(
            f"got {type(model).__name__}, whose graph cannot be read; expected a functional or "
            "a built sequential keras.Model")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(model.outputs) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise ModelError(
            f"got a model with inputs {shapes} and {len(model.outputs)} outputs; expected one "
            "input (None, size, size, 3) and one output")


def _without_head(model: keras.Model, pooling: str) -> keras.Model:
    """The model up to its last feature map; the whole of it for pooling "none"."""
    import keras

    if pooling == "none" or len(model.outputs[0].shape) == 4:
        return model
    maps = [cut for cut in cut_points(model)[1:] if len(cut.shape) == 4]
    if not maps:
        raise ModelError(
            f"the model gives shape {tuple(model.outputs[0].shape)} and has no feature map to "
            "pool; choose pooling none to take its output as it is")
    return keras.Model(model.inputs[0], maps[-1].tensor, name=model.name)
