"""The graph of a functional model: its steps, its cut points, its halves, its blocks.

A *cut point* is a tensor that alone crosses the graph: everything before it reaches the
output through it. Keras keeps the graph as nodes behind each tensor; this file is the only
one that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["CutPoint", "Step", "blocks", "cut_points", "head_layers", "is_functional", "split",
           "steps"]

HEAD_PREFIX = "head_"


@dataclass(frozen=True, eq=False)
class Step:
    """One call in a graph.

    Attributes:
        operation: The layer or operation that is called.
        args: Positional arguments of the call; tensors stand in them as Keras tensors.
        kwargs: Keyword arguments of the call.
        inputs: The Keras tensors that go in.
        outputs: The Keras tensors that come out.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Name of the layer or operation."""
        return str(self.operation.name)


@dataclass(frozen=True, eq=False)
class CutPoint:
    """A tensor that alone crosses the graph.

    Attributes:
        layer: Name of the layer or operation that makes the tensor.
        tensor: The Keras tensor, shape (None, ...).
        position: Index of the step that makes it, in topological order.
    """

    layer: str
    tensor: Any
    position: int

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the tensor, batch axis first."""
        return tuple(self.tensor.shape)


def is_functional(model: Any) -> bool:
    """Whether an object is a Keras model whose graph can be read (functional or sequential)."""
    import keras

    return isinstance(model, keras.Model) and bool(getattr(model, "outputs", None))


def _require_functional(model: Any) -> None:
    if not is_functional(model):
        raise ModelError(
            f"got {type(model).__name__}, whose graph cannot be read; expected a functional or "
            "a built sequential keras.Model; build it with keras.Model(inputs, outputs)"
        )


def _node_of(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _ordered_nodes(model: keras.Model) -> Iterator[Any]:
    """Nodes behind the outputs, each after all it needs; iterative, since graphs are deep."""
    inputs = {id(tensor) for tensor in model.inputs}
    done: set[int] = set()
    stack = [(_node_of(tensor), False) for tensor in reversed(model.outputs)]
    while stack:
        node, expanded = stack.pop()
        if id(node) in done:
            continue
        if expanded:
            done.add(id(node))
            yield node
            continue
        stack.append((node, True))
        if not any(id(tensor) in inputs for tensor in node.outputs):
            stack.extend((_node_of(tensor), False) for tensor in reversed(node.input_tensors))


def steps(model: keras.Model) -> list[Step]:
    """The calls of a functional model in topological order, the inputs among them.

    Args:
        model: A functional or built sequential model.

    Returns:
        One step a call. The step that makes a model input has no inputs of its own.

    Raises:
        ModelError: When the graph cannot be read.
    """
    _require_functional(model)
    starts = {id(tensor) for tensor in model.inputs}
    found = []
    for node in _ordered_nodes(model):
        is_start = any(id(tensor) in starts for tensor in node.outputs)
        inputs = () if is_start else tuple(node.input_tensors)
        args = () if is_start else tuple(node.arguments.args)
        kwargs = {} if is_start else dict(node.arguments.kwargs)
        found.append(Step(node.operation, args, kwargs, inputs, tuple(node.outputs)))
    return found


def _last_uses(model: keras.Model, walk: list[Step]) -> dict[int, int]:
    uses = {id(tensor): i for i, step in enumerate(walk) for tensor in step.inputs}
    uses.update({id(tensor): len(walk) for tensor in model.outputs})
    return uses


def cut_points(model: keras.Model) -> list[CutPoint]:
    """Tensors that alone cross the graph, from the input to the output, both among them.

    A tensor that alone is still needed after a step separates the graph in any topological
    order, so that the result does not depend on the order of the walk.

    Args:
        model: A functional or built sequential model.

    Returns:
        The cut points in topological order.

    Raises:
        ModelError: When the graph cannot be read.
    """
    walk = steps(model)
    uses = _last_uses(model, walk)
    pending = {id(tensor) for tensor in model.inputs}
    found = []
    for position, step in enumerate(walk):
        pending |= {id(tensor) for tensor in step.outputs if id(tensor) in uses}
        pending -= {id(tensor) for tensor in step.inputs if uses[id(tensor)] <= position}
        if len(pending) == 1 and id(step.outputs[0]) in pending:
            found.append(CutPoint(step.name, step.outputs[0], position))
    return found


def _find_cut(model: keras.Model, at: str) -> tuple[CutPoint, int, int]:
    found = cut_points(model)
    for index, cut in enumerate(found):
        if cut.layer == at:
            return cut, index, len(found)
    known = any(step.name == at for step in steps(model))
    why = "other tensors run past it" if known else "the model has no such layer"
    names = ", ".join(cut.layer for cut in found[-6:])
    raise ModelError(f"cannot cut at {at!r}: {why}; expected a cut point, the last are: {names}")


def split(model: keras.Model, at: str) -> tuple[keras.Model | None, keras.Model]:
    """Cut a model in two that share their layers, and so their weights, with it.

    Args:
        model: A functional model.
        at: Name of a layer whose output is a cut point.

    Returns:
        (prefix, suffix): suffix(prefix(x)) equals model(x) to the last bit. The prefix is None
        for a cut at the input; the suffix is then the model itself.

    Raises:
        ModelError: When `at` is no cut point, or is the model's output.
    """
    import keras

    cut, index, count = _find_cut(model, at)
    if index == 0:
        return None, model
    if index == count - 1:
        raise ModelError(f"cannot cut at {at!r}: it is the output and nothing would come after")
    prefix = keras.Model(_alone(model.inputs), cut.tensor, name="prefix")
    suffix = keras.Model(cut.tensor, _alone(model.outputs), name="suffix")
    return prefix, suffix


def _alone(tensors: list[Any]) -> Any:
    """A single tensor without its list: Keras wants to be called as it was built."""
    return tensors[0] if len(tensors) == 1 else tensors


def _last_map(walk: list[Step]) -> int:
    """Position of the last step that is no part of a head and makes a feature map, else -1."""
    maps = [i for i, step in enumerate(walk)
            if len(step.outputs[0].shape) == 4 and not step.name.startswith(HEAD_PREFIX)]
    return maps[-1] if maps else -1


def head_layers(model: keras.Model) -> list[str]:
    """Names of the layers of the head, bottom to top.

    The layers named head_*; where there are none, all after the last feature map (4-D tensor).

    Raises:
        ModelError: When the graph cannot be read.
    """
    walk = steps(model)
    named = [step.name for step in walk if step.name.startswith(HEAD_PREFIX)]
    return list(dict.fromkeys(named or [step.name for step in walk[_last_map(walk) + 1:]]))


def _has_weights(part: list[Step]) -> bool:
    return any(getattr(step.operation, "weights", []) for step in part)


def _parts(model: keras.Model) -> list[tuple[list[Step], int]]:
    """Steps of the base between cut points, with the resolution in pixels that each leaves."""
    head = set(head_layers(model))
    walk = steps(model)
    parts, start = [], 0
    for cut in cut_points(model):
        part = walk[start:cut.position + 1]
        start = cut.position + 1
        if part and part[-1].name not in head:
            parts.append((part, _resolution(cut)))
    return parts


def _resolution(cut: CutPoint) -> int:
    sides = cut.shape[1:3] if len(cut.shape) == 4 else ()
    return min((side for side in sides if side is not None), default=0)


def _grouped(model: keras.Model) -> list[list[Step]]:
    """A drop made by weights (a strided convolution) opens a block, a pooling closes one."""
    groups: list[list[Step]] = [[]]
    before = 0
    for part, resolution in _parts(model):
        drops = 4 * resolution <= 3 * before
        opens = drops and _has_weights(part) and _has_weights(groups[-1])
        if opens:
            groups.append([])
        groups[-1].extend(part)
        if drops and not _has_weights(part) and _has_weights(groups[-1]):
            groups.append([])
        before = resolution
    return groups


def blocks(model: keras.Model) -> list[list[str]]:
    """Names of the base's layers in blocks, bottom to top.

    Borders lie where the spatial resolution drops (by a quarter or more: an unpadded
    convolution takes less) at a cut point: a drop made by layers with
    weights (a strided convolution) opens a block, one made by layers without weights
    (pooling) closes it. Blocks without weights join their lower neighbour. For VGG16 this
    gives block1 to block5. The input and the scaling behind it belong to no block.

    Raises:
        ModelError: When the graph cannot be read.
    """
    found: list[list[str]] = []
    for group in _grouped(model):
        names = [step.name for step in group
                 if type(step.operation).__name__ not in ("InputLayer", "Rescaling") or found]
        if found and not _has_weights(group):
            found[-1].extend(names)
        elif names:
            found.append(list(dict.fromkeys(names)))
    return found
