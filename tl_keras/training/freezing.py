"""From selectors such as "head" or "block5*" to the layers' `trainable` flags."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tl_keras.errors import PlanError
from tl_keras.models import graph

if TYPE_CHECKING:
    import keras

__all__ = ["freeze", "last_frozen_cut", "select"]


def select(model: keras.Model, selectors: Sequence[str]) -> list[str]:
    """Return the names of the layers that the selectors name, in the model's order.

    Args:
        model: A flat functional model.
        selectors: Any of "head" (pooling and all after it), "all", "top:N" (the N last base
            layers that have weights), "blocks:N" (the N last blocks of the base), a layer's
            name, or a shell pattern on names ("block5*").

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
    if selector == "head":
        return graph.head_layers(model)
    return fnmatch.filter(names, selector)


def _topmost(model: keras.Model, kind: str, count: int) -> list[str]:
    if kind == "blocks":
        return [name for block in graph.blocks(model)[-count:] for name in block]
    head = set(graph.head_layers(model))
    return [layer.name for layer in model.layers if layer.weights and layer.name not in head][
        -count:
    ]


def _no_match(model: keras.Model, selector: str) -> str:
    names = [layer.name for layer in model.layers if layer.weights]
    near = difflib.get_close_matches(selector, names, n=3, cutoff=0.3) or names[-3:]
    return (
        f"selector '{selector}' matches no layer of '{model.name}'; expected 'head', 'all', "
        f"'top:N', 'blocks:N' or a name or pattern such as {', '.join(near)}"
    )


def freeze(model: keras.Model, train: Sequence[str], *, batchnorm: str = "frozen") -> list[str]:
    """Set every layer's `trainable` so that only the selected ones learn.

    BatchNorm of the base stays in inference mode (`trainable=False` on each layer) unless
    `batchnorm="train"`: with few pictures a batch its statistics would drift.

    Args:
        model: A flat functional model; changed in place.
        train: Selectors, see :func:`select`.
        batchnorm: "frozen" or "train".

    Returns:
        The names of the layers that have weights to train.

    Raises:
        PlanError: A selector matches nothing, or nothing would be trained.
    """
    import keras

    chosen = set(select(model, train))
    head = set(graph.head_layers(model))
    model.trainable = True
    for layer in model.layers:
        still = isinstance(layer, keras.layers.BatchNormalization) and layer.name not in head
        layer.trainable = layer.name in chosen and not (still and batchnorm == "frozen")
    learning = [layer.name for layer in model.layers if layer.trainable_weights]
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
        The name of the last such cut point's layer, or None when there is none or nothing
        before it has weights (what scales the pictures is not worth a cache).
    """
    head = set(graph.head_layers(model))
    active = {
        layer.name
        for layer in model.layers
        if layer.trainable_weights or (layer.name in head and _is_random(layer))
    }
    positions = [i for i, step in enumerate(graph.steps(model)) if step.name in active]
    first = min(positions, default=0)
    names = [cut.layer for cut in graph.cut_points(model) if cut.position < first]
    return names[-1] if names and _has_weights_until(model, first) else None


def _has_weights_until(model: keras.Model, position: int) -> bool:
    before = graph.steps(model)[:position]
    return any(getattr(step.operation, "weights", []) for step in before)


def _is_random(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "rate", 0)) or getattr(layer, "seed_generator", None) is not None
