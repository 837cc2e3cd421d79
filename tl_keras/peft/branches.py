"""Side branches of stock layers in a flat graph: put in, found by name, taken out again.

Every layer of a branch bears the name of the layer it belongs to and a role
("block5_conv1_lora_down"), so that the graph itself says what was added: after saving and
loading, in a selector ("*_lora_*") and in another tool. A branch of the head begins with
"head_" as the head does and so counts as part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tl_keras.errors import PlanError
from tl_keras.models import graph
from tl_keras.models.rewrite import Rewriter
from tl_keras.training.freezing import select

if TYPE_CHECKING:
    import keras

__all__ = [
    "KINDS",
    "SHARE",
    "affordable",
    "backbone_parameters",
    "add_branches",
    "branches",
    "choose",
    "freeze_base",
    "count_parameters",
    "describe_branches",
    "upper_half",
    "remove_branches",
]

KINDS = ("lora", "serial_adapter", "parallel_adapter")
SHARE = 0.024
_NAME = re.compile(rf"(.+)_({'|'.join(KINDS)})_(down|mix|up|scale|add|activation)")
Branch = Callable[[Any], Callable[[Any], Any]]


def branches(model: keras.Model) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the branches of a model: kind, then the layer they belong to, then role to layer."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for layer in model.layers:
        if match := _NAME.fullmatch(layer.name):
            owner, kind, role = match.groups()
            found.setdefault(kind, {}).setdefault(owner, {})[role] = layer
    return found


def choose(
    model: keras.Model, patterns: Sequence[str], fits: Callable[[Any], str | None], what: str
) -> list[Any]:
    """Return the layers that patterns name and that can get a branch, in the model's order.

    Args:
        model: A flat functional model.
        patterns: Selectors, see `tl_keras.training.freezing.select`.
        fits: Returns why a layer can get no branch, None when it can.
        what: What is to be put in, for the message.

    Raises:
        PlanError: A pattern matches nothing, or only layers that can get no branch.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        reasons = {name: fits(model.get_layer(name)) for name in select(model, [pattern])}
        good = {name for name, reason in reasons.items() if reason is None}
        if not good:
            told = "; ".join(f"{name} {why}" for name, why in list(reasons.items())[:3])
            raise PlanError(f"pattern '{pattern}' names no layer that can get {what}: {told}")
        chosen |= good
    if not chosen:
        raise PlanError(f"no pattern was given; expected at least one layer to get {what}")
    taken = {owner for owners in branches(model).values() for owner in owners} & chosen
    if taken:
        raise PlanError(f"layer {min(taken)} has a branch already; merge or remove it first")
    return [layer for layer in model.layers if layer.name in chosen]


def backbone_parameters(model: keras.Model) -> int:
    """Return the number of weights of the base: neither of the head nor of branches."""
    head = set(graph.head_layers(model))
    return sum(
        layer.count_params()
        for layer in model.layers
        if layer.name not in head and not _NAME.fullmatch(layer.name)
    )


def upper_half(model: keras.Model) -> list[str]:
    """Return the names of the layers in the upper half of the base's blocks, rounded up."""
    blocks = graph.blocks(model)
    return [name for block in blocks[len(blocks) // 2 :] for name in block]


def affordable(model: keras.Model, costs: Mapping[str, int], share: float) -> list[str]:
    """Return the layers, from the top of the base down, whose branches fit a share of it.

    From the top, because the layers below stay frozen and are computed once. It stops at the
    first branch that does not fit.

    Args:
        model: A flat functional model.
        costs: Layer name to the number of weights of its branch.
        share: Of the base's weights, in (0, 1].

    Raises:
        PlanError: Not even the topmost fits.
    """
    room, chosen = share * backbone_parameters(model), []
    names = list(dict.fromkeys(step.name for step in graph.steps(model)))
    for name in reversed([name for name in names if name in costs]):
        room -= costs[name]
        if room < 0:
            break
        chosen.append(name)
    if not chosen:
        raise PlanError(
            f"no branch of '{model.name}' takes at most {share:.1%} of the base's weights; "
            "name the layers to adapt, or choose a lower rank"
        )
    return chosen


class _Inserting(Rewriter):
    """Replays a graph and puts a branch on some layers."""

    def __init__(self, put: Mapping[str, Branch]) -> None:
        super().__init__()
        self.put = put
        self.made: dict[str, Any] = {}

    def layer(self, operation: Any, prefix: str = "") -> Any:
        if operation.name not in self.put:
            return super().layer(operation, prefix)
        if operation.name not in self.made:
            plain = super().layer(operation, prefix)
            self.made[operation.name] = self.put[operation.name](plain)
        return self.made[operation.name]


class _Removing(Rewriter):
    """Replays a graph without the branches of some kinds."""

    def __init__(self, model: keras.Model, kinds: Iterable[str], fold: Mapping[str, Any]) -> None:
        super().__init__()
        self.kinds, self.fold, found = set(kinds), fold, branches(model)
        self.activations = {
            owner: roles["activation"].activation
            for kind in self.kinds
            for owner, roles in found.get(kind, {}).items()
            if "activation" in roles
        }

    def layer(self, operation: Any, prefix: str = "") -> Any:
        match = _NAME.fullmatch(operation.name)
        if match and match[2] in self.kinds:
            # The other layers of a branch lead nowhere once the sum is gone.
            return {"add": _first, "activation": _same}.get(match[3]) or super().layer(
                operation, prefix
            )
        if operation.name in self.activations or operation.name in self.fold:
            weights = self.fold.get(operation.name, list)
            return self.make(operation, lambda config: self._plain(operation, config), prefix,
                             weights)  # fmt: skip
        return super().layer(operation, prefix)

    def _plain(self, operation: Any, config: dict[str, Any]) -> Any:
        layer = type(operation).from_config(config)
        layer.activation = self.activations.get(operation.name, layer.activation)
        return layer


def _first(pair: Sequence[Any]) -> Any:
    return pair[0]


def _same(tensor: Any) -> Any:
    return tensor


def add_branches(model: keras.Model, put: Mapping[str, Branch]) -> keras.Model:
    """Return a copy of a flat model with branches.

    Args:
        model: A flat functional model with one input; it is left as it is.
        put: Layer name to a function that takes the new layer and returns what is called in
            its place, tensor to tensor.
    """
    return _replay(model, _Inserting(put))


def remove_branches(
    model: keras.Model,
    kinds: Iterable[str] = KINDS,
    fold: Mapping[str, Callable[[list], list]] | None = None,
) -> keras.Model:
    """Return a copy of a model as it was before it got branches.

    Args:
        model: A flat functional model; it is left as it is.
        kinds: Kinds of branches to leave out.
        fold: Layer name to a function from its weights to its new ones; others keep theirs.
    """
    return _replay(model, _Removing(model, kinds, fold or {}))


def _replay(model: keras.Model, rewriter: Rewriter) -> keras.Model:
    import keras

    source = model.inputs[0]
    entry = keras.Input(source.shape[1:], dtype=source.dtype, name=source.name)
    outputs = rewriter.run(model, [entry])
    rewriter.copy_weights()
    return keras.Model(entry, graph.alone(outputs), name=model.name)


def freeze_base(model: keras.Model) -> keras.Model:
    """Freeze all but the branches and the head; return the model."""
    head = set(graph.head_layers(model))
    for layer in model.layers:
        layer.trainable = bool(_NAME.fullmatch(layer.name)) or layer.name in head
    return model


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Return the numbers of weights of the "base", the "head" and the "branches".

    A branch of the head counts as one of the branches.
    """
    found = [roles for owners in branches(model).values() for roles in owners.values()]
    added = sum(layer.count_params() for roles in found for layer in roles.values())
    base = backbone_parameters(model)
    return {"base": base, "head": model.count_params() - base - added, "branches": added}


def describe_branches(model: keras.Model) -> dict[str, Any] | None:
    """Return what a model's branches are, for the record; None when it has none.

    Returns:
        "branches": kind to layer to width (LoRA's rank); "parameters": of base, head and
        branches; "share": of head and branches in a plain model's parameters.
    """
    if not (found := branches(model)):
        return None
    counts = count_parameters(model)
    widths = {
        kind: {name: int(roles["down"].kernel.shape[-1]) for name, roles in owners.items()}
        for kind, owners in found.items()
    }
    plain = counts["base"] + counts["head"]
    share = (counts["branches"] + counts["head"]) / plain
    return {"branches": widths, "parameters": counts, "share": round(share, 5)}
