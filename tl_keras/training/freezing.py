"""From selectors such as "head" or "block5*" to the layers' `trainable` flags."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tl_keras.errors import PlanError
from tl_keras.models import graph
from tl_keras.training.batchnorm import norms_of
from tl_keras.utils.suggest import nearest

if TYPE_CHECKING:
    import keras

__all__ = ["freeze", "last_frozen_cut", "select"]

# Selectors of weights, not of whole layers.
_PARTS = {"batchnorm": ("gamma", "beta"), "bias": ("bias", "beta")}


def select(model: keras.Model, selectors: Sequence[str]) -> list[str]:
    """Return the names of the layers that the selectors name, in the model's order.

    Args:
        model: A flat functional model.
        selectors: Any of "head" (pooling and all after it), "all", "upper" (where maps have
            at most a sixteenth of the image's side, or the upper half of the blocks),
            "top:N" (the N last base layers that have weights), "blocks:N" (the N last blocks of
            the base), "batchnorm" and "bias" (layers of the base that have such weights), a
            layer's name, or a shell pattern on names ("block5*").

    Raises:
        PlanError: A selector matches no layer; the nearest names are offered.
    """
    chosen: set[str] = set()
    for selector in selectors:
        names = _match(model, selector)
        if not names:
            raise PlanError(_no_match(model, selector))
        chosen.update(names)
    return [layer.name for layer in model.layers if layer.name in chosen]


def _match(model: keras.Model, selector: str) -> list[str]:
    names = [layer.name for layer in model.layers]
    counted = re.fullmatch(r"(top|blocks):(\d+)", selector)
    if counted and int(counted[2]) > 0:
        return _topmost(model, counted[1], int(counted[2]))
    if selector == "all":
        return names
    if selector == "upper":
        return _upper(model)
    if selector == "head":
        return graph.head_layers(model)
    if selector in _PARTS:
        return list(dict.fromkeys(layer.name for layer, _ in _parts(model, [selector])))
    return fnmatch.filter(names, selector)


def _parts(model: keras.Model, selectors: Sequence[str]) -> list[tuple[Any, Any]]:
    """Layers of the base with those of their weights that "batchnorm" and "bias" select."""
    head, found = set(graph.head_layers(model)), []
    for layer in model.layers:
        normal = {id(weight) for norm in norms_of(layer) for weight in norm.weights}
        for weight in layer.weights if layer.name not in head else ():
            kinds = ("batchnorm", "bias") if id(weight) in normal else ("bias",)
            if any(weight.name in _PARTS[kind] for kind in kinds if kind in selectors):
                found.append((layer, weight))
    return found


def _upper(model: keras.Model) -> list[str]:
    names, blocks = [layer.name for layer in model.layers], graph.blocks(model)
    image = [tensor.shape[1] or 0 for tensor in model.inputs if len(tensor.shape) == 4]
    side = max(-(-max(image, default=0) // 16), 8)
    cuts = [
        cut
        for cut in graph.cut_points(model)
        if len(cut.shape) == 4 and 1 < (cut.shape[1] or 0) <= side
    ]
    if cuts and image:
        # Of the largest such maps the first of the fewest numbers: the cheapest to keep.
        wide = [cut for cut in cuts if cut.shape[1] == cuts[0].shape[1]]
        at = min(wide, key=lambda cut: cut.shape[3] or 0).position
        above = {step.name for step in graph.steps(model)[at + 1 :]}
        if _has_weights_until(model, at):
            return [name for name in names if name in above]
    if len(blocks) < 2:
        return names
    above = {name for block in blocks[-(len(blocks) // 2) :] for name in block}
    return [name for name in names if name in above | set(graph.head_layers(model))]


def _topmost(model: keras.Model, kind: str, count: int) -> list[str]:
    if kind == "blocks":
        return [name for block in graph.blocks(model)[-count:] for name in block]
    head = set(graph.head_layers(model))
    return [layer.name for layer in model.layers if layer.weights and layer.name not in head][
        -count:
    ]


def _no_match(model: keras.Model, selector: str) -> str:
    names = [layer.name for layer in model.layers if layer.weights]
    near = nearest(selector, names, 3, 0.3) or names[-3:]
    return (
        f"selector '{selector}' matches no layer of '{model.name}'; expected 'head', 'all', "
        f"'upper', 'top:N', 'blocks:N', 'batchnorm', 'bias' or a name or pattern such as "
        f"{', '.join(near)}"
    )


def freeze(model: keras.Model, train: Sequence[str], *, batchnorm: str = "frozen") -> list[str]:
    """Set every layer's `trainable` so that only the selected ones learn.

    BatchNorm of the base stays in inference mode (`trainable=False` on each layer) unless
    `batchnorm="train"`: with few images a batch its statistics would drift.

    "batchnorm" and "bias" choose single weights: scale and offset of every BatchNorm of the
    base (Frankle et al., arXiv 2003.00152), or every bias, BatchNorm's offset among them
    (Cai et al., arXiv 2007.11622; Ben Zaken et al., arXiv 2106.10199). These layers keep
    `trainable=False`, so that statistics and kernels stay; only the weights themselves learn.

    Args:
        model: A flat functional model; changed in place.
        train: Selectors, see :func:`select`.
        batchnorm: "frozen" or "train".

    Returns:
        The names of the layers that have weights to train.

    Raises:
        PlanError: A selector matches nothing, or nothing would be trained.
    """
    select(model, train)
    parts = [one for one in train if one in _PARTS and (one, batchnorm) != ("batchnorm", "train")]
    chosen = set(select(model, [one for one in train if one not in parts]))
    head = set(graph.head_layers(model))
    model.trainable = True
    for layer in model.layers:
        # Setting a flag to the value it has would leave single weights as they are.
        for one in layer._flatten_layers():
            one.trainable = True
        layer.trainable = layer.name in chosen
        for norm in norms_of(layer) if batchnorm == "frozen" and layer.name not in head else ():
            norm.trainable = False
    for _, weight in _parts(model, parts):
        weight.trainable = True
    learning = [layer.name for layer in model.layers if _learns(layer)]
    if not learning:
        raise PlanError(f"selectors {list(train)} leave nothing of '{model.name}' to train")
    return learning


def last_frozen_cut(model: keras.Model) -> str | None:
    """Return the layer after which the model may be cut so that nothing before it learns.

    Random layers of the head (dropout) count as learning, since they must run anew in every
    step; those of a frozen base run in inference mode, as the base does.

    Args:
        model: A flat functional model with its `trainable` flags set.

    Returns:
        The name of the last such cut point's layer, or None when there is none or not
        more than one layer before it has weights (what scales the images, or a first
        convolution, is not worth a cache).
    """
    head = set(graph.head_layers(model))
    active = {
        layer.name
        for layer in model.layers
        if _learns(layer) or (layer.name in head and _is_random(layer))
    }
    positions = [i for i, step in enumerate(graph.steps(model)) if step.name in active]
    first = min(positions, default=0)
    names = [cut.layer for cut in graph.cut_points(model) if cut.position < first]
    return names[-1] if names and _has_weights_until(model, first) else None


def _learns(layer: Any) -> bool:
    """Whether a weight of the layer learns, perhaps without the layer as a whole."""
    return any(weight.trainable for weight in layer.weights)


def _has_weights_until(model: keras.Model, position: int) -> bool:
    before = graph.steps(model)[:position]
    if any(getattr(step.operation, "worth_a_cache", False) for step in before):
        return True  # a whole base in one layer
    return sum(bool(getattr(step.operation, "weights", [])) for step in before) > 1


def _is_random(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "rate", 0)) or getattr(layer, "seed_generator", None) is not None
