"""The graph of a functional model: its steps, its cut points, its halves, its blocks.

A *cut point* is a tensor that alone crosses the graph: everything before it reaches the
output through it. Keras keeps the graph as nodes behind each tensor; this file is the only
one that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["CutPoint", "Step", "alone", "blocks", "cut_points", "feature_point", "has_weights",
           "head_layers", "is_functional", "split", "steps"]

HEAD_PREFIX = "head_"
# What makes a vector of a feature map or a sequence, besides Keras' Global* layers.
_POOLINGS = ("Flatten", "GetItem", "Max", "Mean", "Reshape", "Squeeze", "Take")
# What may stand between vectors in a head, besides Dense.
_PLAIN = ("Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average",
          "BatchNormalization", "Concatenate", "Dropout", "ELU", "GaussianDropout",
          "GaussianNoise", "GroupNormalization", "Identity", "LayerNormalization", "LeakyReLU",
          "Maximum", "Multiply", "PReLU", "RMSNormalization", "ReLU", "Rescaling", "Softmax",
          "UnitNormalization")


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
            "a built sequential keras.Model; build it with keras.Model(inputs, outputs), or put "
            "a keras.Input first in a Sequential"
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
    return _cuts(steps(model), model.inputs, model.outputs)


def _cuts(walk: list[Step], starts: Sequence[Any], ends: Sequence[Any]) -> list[CutPoint]:
    """The cut points of a part of a graph that leads from some tensors to others."""
    uses = {id(tensor): i for i, step in enumerate(walk) for tensor in step.inputs}
    uses.update({id(tensor): len(walk) for tensor in ends})
    pending = {id(tensor) for tensor in starts}
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
    prefix = keras.Model(alone(model.inputs), cut.tensor, name="prefix")
    suffix = keras.Model(cut.tensor, alone(model.outputs), name="suffix")
    return prefix, suffix


def alone(tensors: list[Any]) -> Any:
    """Return a single tensor without its list: Keras wants to be called as it was built."""
    return tensors[0] if len(tensors) == 1 else tensors


def _kind(step: Step) -> str:
    return type(step.operation).__name__


def _vectors(walk: list[Step]) -> set[int]:
    """Ids of the tensors without positions: of rank 2, or 1 x 1 maps behind a global pooling."""
    found: set[int] = set()
    for step in walk:
        carried = _kind(step) in ("Conv2D", *_PLAIN) and bool(step.inputs) and all(
            id(tensor) in found for tensor in step.inputs)
        pooled = _kind(step).startswith("Global")
        found |= {id(x) for x in step.outputs if len(x.shape) == 2 or carried or pooled}
    return found


def _is_of_a_head(step: Step, vectors: set[int]) -> bool:
    """Whether a step is what classifiers end in: pooling, or stock layers on vectors."""
    import keras

    if not step.inputs or not all(id(tensor) in vectors for tensor in step.outputs):
        return False
    if not all(id(tensor) in vectors for tensor in step.inputs):
        return _kind(step) in _POOLINGS or _kind(step).startswith("Global")
    plain = not isinstance(step.operation, keras.Layer)
    return plain or _kind(step) in ("Dense", "Conv2D", *_PLAIN, *_POOLINGS)


def _head_positions(model: keras.Model, walk: list[Step]) -> set[int]:
    """Positions of the head's steps, in whichever order the walk takes branches."""
    named = {i for i, step in enumerate(walk) if step.name.startswith(HEAD_PREFIX)}
    vectors = _vectors(walk)
    head: set[int] = set()
    if named:
        behind: set[int] = set()
        for i, step in enumerate(walk):
            if i in named or any(id(tensor) in behind for tensor in step.inputs):
                head.add(i)
                behind |= {id(tensor) for tensor in step.outputs}
        return head
    needed: set[int] = set()  # tensors that the base itself reads
    for i in reversed(range(len(walk))):
        ends_here = not any(id(tensor) in needed for tensor in walk[i].outputs)
        if ends_here and _is_of_a_head(walk[i], vectors):
            head.add(i)
        else:
            needed |= {id(tensor) for tensor in walk[i].inputs}
    learned = [i for i in sorted(head) if has_weights([walk[i]])]
    if learned and not has_weights([step for i, step in enumerate(walk) if i not in head]):
        # A model of vectors through and through: only its last layer is the head.
        head = {i for i in head if i >= learned[-1]}
    return head


def head_layers(model: keras.Model) -> list[str]:
    """Names of the layers of the head, bottom to top.

    The layers named head_* and what follows them. Where there are none: the pooling (or
    flattening, or choice of the first token) and all behind it, as far as these are stock
    layers on vectors. Of a model with several inputs, dense layers on another input that meet
    the pooled features belong to the head.

    Raises:
        ModelError: When the graph cannot be read.
    """
    walk = steps(model)
    head = _head_positions(model, walk)
    return list(dict.fromkeys(step.name for i, step in enumerate(walk) if i in head))


def feature_point(model: keras.Model) -> CutPoint:
    """Where the features of a model end and its head begins; the output if it has no head.

    Raises:
        ModelError: When the graph cannot be read, or no tensor alone leads into the head.
    """
    walk = steps(model)
    head = _head_positions(model, walk)
    for cut in cut_points(model):
        if all(i in head for i in range(cut.position + 1, len(walk))):
            return cut
    raise ModelError(
        f"no tensor of '{model.name}' alone leads to its {len(model.outputs)} outputs; expected "
        "one place where its features end")


def has_weights(part: Sequence[Step]) -> bool:
    """Whether some steps hold weights, other than what scales the input."""
    return any(getattr(step.operation, "weights", []) for step in part
               if _kind(step) != "Normalization")


def _parts(model: keras.Model) -> list[tuple[list[Step], int, bool]]:
    """Steps of the base between cut points, with the resolution that each leaves.

    The resolution is the least side of a feature map, or the length of a sequence. The last
    value tells whether the part attends to other positions of a sequence.
    """
    walk = steps(model)
    head = _head_positions(model, walk)
    base = [step for i, step in enumerate(walk) if i not in head]
    read = {id(tensor) for step in base for tensor in step.inputs}
    base = [step for step in base if step.inputs or id(step.outputs[0]) in read]
    starts = [tensor for tensor in model.inputs if id(tensor) in read]
    # What leads to no more weights, such as a pooling halfway, is on nobody's way.
    way, rest = _divided(base)
    inner = {id(tensor) for step in way for tensor in step.inputs}
    ends = [one for step in way for one in step.outputs if id(one) not in inner]
    parts, start = [], 0
    for cut in _cuts(way, starts, ends):
        part = way[start : cut.position + 1]
        sides = [side for side in cut.shape[1:-1] if side is not None]
        attends = len(cut.shape) == 3 and any(map(_attends, part))
        parts.append((part, min(sides, default=0), attends))
        start = cut.position + 1
    parts += [(rest, parts[-1][1], False)] if parts and rest else []
    return parts


def _divided(walk: list[Step]) -> tuple[list[Step], list[Step]]:
    """Return the steps that lead to weights, or hold them, and the others."""
    needed: set[int] = set()
    leads = []
    for step in reversed(walk):
        lead = has_weights([step]) or any(id(tensor) in needed for tensor in step.outputs)
        needed |= {id(tensor) for tensor in step.inputs} if lead else set()
        leads.append(lead)
    pairs = list(zip(walk, reversed(leads), strict=True))
    return [step for step, lead in pairs if lead], [step for step, lead in pairs if not lead]


def _attends(step: Step) -> bool:
    return _kind(step).endswith(("Attention", "Softmax")) or (
        getattr(getattr(step.operation, "activation", None), "__name__", "") == "softmax")


def _grouped(model: keras.Model) -> list[list[Step]]:
    """A drop made by weights (a strided convolution) opens a block, a pooling closes one."""
    groups: list[list[Step]] = [[]]
    before = 0
    for part, resolution, attends in _parts(model):
        drops = 4 * resolution <= 3 * before
        opens = (drops or attends) and has_weights(part) and has_weights(groups[-1])
        if opens:
            groups.append([])
        groups[-1].extend(part)
        if drops and not has_weights(part) and has_weights(groups[-1]):
            groups.append([])
        before = resolution
    return groups


def blocks(model: keras.Model) -> list[list[str]]:
    """Names of the base's layers in blocks, bottom to top.

    Borders lie where the spatial resolution drops (by a quarter or more: an unpadded
    convolution takes less) at a cut point: a drop made by layers with
    weights (a strided convolution) opens a block, one made by layers without weights
    (pooling) closes it. In a sequence each attention opens one: the blocks of a transformer.
    Blocks without weights join their lower neighbour. For VGG16 this
    gives block1 to block5. The input and the scaling behind it belong to no block.

    Raises:
        ModelError: When the graph cannot be read.
    """
    found: list[list[str]] = []
    for group in _grouped(model):
        names = [step.name for step in group
                 if type(step.operation).__name__ not in ("InputLayer", "Rescaling") or found]
        if found and not has_weights(group):
            found[-1].extend(names)
        elif names:
            found.append(list(dict.fromkeys(names)))
    return found
