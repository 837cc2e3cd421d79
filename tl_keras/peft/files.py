"""An adapter's file: what was added to a base and trained, without the base.

One `.npz` without pickle: the branches (LoRA or bottleneck adapters) and the head, each
array under its layer's name, and a JSON text that says what they are and the fingerprint of
the base they belong to.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError, PlanError, RunError
from tl_keras.models import graph
from tl_keras.peft.adapters import put_adapters
from tl_keras.peft.branches import (
    add_branches,
    branches,
    freeze_base,
    remove_branches,
)
from tl_keras.peft.lora import apply_lora, merge_lora
from tl_keras.training.checkpoint import read_snapshot, write_snapshot

if TYPE_CHECKING:
    import keras

__all__ = ["backbone_fingerprint", "load_adapter", "merge_and_save", "save_adapter"]

FORMAT = "tl_keras adapter 1"


def backbone_fingerprint(model: keras.Model) -> str:
    """Return the SHA-256 of a base: its layers' names and weights, without head and branches.

    The input's size is not part of it: an adapter fits the same base at another size.
    """
    plain = remove_branches(model) if branches(model) else model
    head, digest = set(graph.head_layers(plain)), hashlib.sha256()
    for layer in plain.layers:
        if layer.name in head or not layer.weights:
            continue
        digest.update(layer.name.encode())
        for array in layer.get_weights():
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_adapter(model: keras.Model, path: str | Path) -> None:
    """Write what was added to a base, and the head, to one small file.

    Args:
        model: A model with LoRA or adapters whose base was kept frozen.
        path: The file, by custom named .npz; written whole or not at all.

    Raises:
        PlanError: The model has neither LoRA nor adapters.
        StorageError: The disk is full.
    """
    found = branches(model)
    if not found:
        raise PlanError(
            f"'{model.name}' has neither LoRA nor adapters; expected a model of apply_lora or "
            "insert_adapters, before it is merged"
        )
    layers = _added(model)
    meta = {
        "format": FORMAT,
        "base": {"name": model.name, "fingerprint": backbone_fingerprint(model)},
        "branches": {kind: _describe(owners) for kind, owners in found.items()},
        "head": _head_config(remove_branches(model)),
        "layers": [[layer.name, len(layer.get_weights())] for layer in layers],
    }
    arrays = [array for layer in layers for array in layer.get_weights()]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_snapshot(Path(path), meta, weights=arrays)


def _added(model: keras.Model) -> list[Any]:
    """The layers of branches and head that have weights, in the model's order."""
    owners = [roles for kind in branches(model).values() for roles in kind.values()]
    names = {layer.name for roles in owners for layer in roles.values()}
    names |= set(graph.head_layers(model))
    return [layer for layer in model.layers if layer.name in names and layer.weights]


def _describe(owners: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What :func:`load_adapter` builds the branches from: each one's width and scale."""
    return {
        owner: {
            "width": int(roles["down"].kernel.shape[-1]),
            "scale": float(roles["scale"].scale) if "scale" in roles else 1.0,
        }
        for owner, roles in owners.items()
    }


def _head_config(plain: keras.Model) -> str | None:
    """The head as the JSON text of a Keras model; None when it cannot be cut off."""
    names = graph.head_layers(plain)
    walk = [step.name for step in graph.steps(plain)]
    first = min((walk.index(name) for name in names), default=0)
    if not names or walk[first - 1] not in {cut.layer for cut in graph.cut_points(plain)}:
        return None
    head = graph.split(plain, walk[first - 1])[1]
    # Keras numbers the input over the process; the file should not depend on that.
    return head.to_json().replace(json.dumps(head.layers[0].name), '"features"')


def load_adapter(base_model: keras.Model, path: str | Path) -> keras.Model:
    """Return a copy of a base with what :func:`save_adapter` wrote.

    Args:
        base_model: The same base with the same weights, at any size: bare, as
            `tl_keras.build_backbone` makes it, or with a head of the same layers, whose weights
            are replaced in the copy. It is left as it is.
        path: The file.

    Raises:
        ModelError: The file does not read, or belongs to another base or head.
    """
    meta, arrays = _read(Path(path))
    _check_base(base_model, meta, Path(path))
    model = base_model
    if not graph.head_layers(model):
        model = _with_head(model, meta["head"])
    for kind, owners in meta["branches"].items():
        model = _with_branches(model, kind, owners)
    _fill(model, meta["layers"], arrays, Path(path))
    return freeze_base(model)


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected an adapter that save_adapter wrote")
    try:
        saved = read_snapshot(path)
    except RunError as error:
        why = str(error).split("; start a new run")[0]
        raise ModelError(f"{why}; expected an adapter that save_adapter wrote") from error
    meta, groups = saved or ({}, {})
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        got = meta.get("format", "none") if isinstance(meta, dict) else "none"
        raise ModelError(f"{path} has the format {got!r}, expected {FORMAT!r}")
    return meta, groups.get("weights", [])


def _check_base(model: keras.Model, meta: dict[str, Any], path: Path) -> None:
    if branches(model):
        raise ModelError("the base has LoRA or adapters already; expected a plain one")
    wanted, got = meta["base"]["fingerprint"], backbone_fingerprint(model)
    if got != wanted:
        raise ModelError(
            f"{path} belongs to the base '{meta['base']['name']}' with fingerprint "
            f"{wanted[:12]}, got '{model.name}' with {got[:12]}: another base, or other weights; "
            "build the base with the weights it had when the adapter was trained"
        )


def _with_head(base: keras.Model, config: str | None) -> keras.Model:
    import keras

    if config is None:
        raise ModelError("the adapter's file holds no head; give a base with one (build_model)")
    head = keras.models.model_from_json(config)
    joined = keras.Model(base.inputs[0], head(base.outputs[0]), name=base.name)
    # The copy has no model inside the model.
    return add_branches(joined, {})


def _with_branches(model: keras.Model, kind: str, owners: dict[str, Any]) -> keras.Model:
    if kind != "lora":
        widths = {name: int(one["width"]) for name, one in owners.items()}
        return put_adapters(model, widths, kind.removesuffix("_adapter"))
    groups: dict[tuple[int, float], list[str]] = {}
    for name, one in owners.items():
        groups.setdefault((int(one["width"]), float(one["scale"])), []).append(name)
    for (rank, scale), names in groups.items():
        model = apply_lora(model, names, rank, scale * rank)
    return model


def _fill(
    model: keras.Model, layers: list[list[Any]], arrays: list[np.ndarray], path: Path
) -> None:
    ahead = iter(arrays)
    known = {layer.name: layer for layer in model.layers}
    for name, count in layers:
        weights = [next(ahead) for _ in range(count)]
        shapes = [weight.shape for weight in weights]
        got = [tuple(w.shape) for w in known[name].weights] if name in known else None
        if got != shapes:
            raise ModelError(
                f"{path} has weights {shapes} for layer {name}, got a model where they are {got}; "
                "build the head as it was, or give the bare base"
            )
        known[name].set_weights(weights)


def merge_and_save(model: keras.Model, path: Path) -> keras.Model:
    """Keep a trained model's branches in a file; return the model to ship.

    Args:
        model: A trained model; without branches it comes back and no file is written.
        path: Where to write what :func:`load_adapter` reads.

    Returns:
        The plain model with LoRA merged. Bottleneck adapters stay in it.
    """
    found = branches(model)
    if found:
        save_adapter(model, path)
    return merge_lora(model) if "lora" in found else model
