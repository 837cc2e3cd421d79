"""Bottleneck adapters: small trainable branches between the layers of a frozen base.

An adapter narrows its input by a 1 x 1 convolution, looks around by a depthwise one, applies
ReLU, and widens again by a 1 x 1 convolution that is zero at the start. *Serial*, it corrects
what a layer gives, y + adapter(y) (Houlsby et al., arXiv 1902.00751); *parallel*, it runs
beside the layer, y + adapter(x), with the layer's own window and strides (Conv-Adapter,
Chen et al., arXiv 2208.07463). For dense layers both dense. Not being linear, an adapter
cannot be folded into a kernel: it stays in the model, as stock layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tl_keras.errors import PlanError
from tl_keras.models import graph
from tl_keras.peft import branches as graphs
from tl_keras.peft.lora import apply_lora, default_lora_layers

if TYPE_CHECKING:
    import keras

__all__ = ["apply_adapters", "check_adaptation", "default_adapter_layers", "insert_adapters",
           "put_adapters"]

# Of a layer's own weights: an adapter that takes more is no small addition to it.
_OF_ITS_LAYER = 0.1
_LEAST = 4
_ADAPTED = ("lora", "adapters")  # the plans that put branches on a model
_REDUCTION = 8


def insert_adapters(
    model: keras.Model,
    patterns: Sequence[str] | str,
    reduction: int = 4,
    kind: str = "serial",
) -> keras.Model:
    """Return a copy of a model with adapters on the layers that patterns name.

    The copy computes what the model does until it is trained. Only its adapters and its head
    are trainable. The layers of an adapter are named after their layer
    ("conv_serial_adapter_down"), to be selected by "*_adapter_*".

    Args:
        model: A flat functional model, such as `tl_keras.build_model` makes; left as it is.
        patterns: Names, shell patterns ("block_*_project_BN") or selectors ("blocks:2") of
            `tl_keras.training.freezing.select`. "serial" takes any layer that gives a feature
            map or a vector and is called on one tensor, "parallel" convolutions (depthwise
            ones too) and dense layers.
        reduction: Channels of the layer's output to one of the bottleneck, 1 or more; the
            bottleneck has at least 4 channels.
        kind: "serial" or "parallel".

    Raises:
        PlanError: A pattern matches nothing, or nothing that can get an adapter; a value is out
            of its range.
    """
    if kind not in ("serial", "parallel"):
        raise PlanError(f"unknown kind of adapter {kind!r}, expected 'serial' or 'parallel'")
    _check_reduction(reduction)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    fits = _unfit_serial if kind == "serial" else _unfit_parallel
    layers = graphs.choose(model, patterns, fits, f"a {kind} adapter")
    return put_adapters(model, {layer.name: _width(layer, reduction) for layer in layers}, kind)


def put_adapters(model: keras.Model, widths: dict[str, int], kind: str) -> keras.Model:
    """Return a copy of a model with adapters of given widths.

    Args:
        model: A flat functional model.
        widths: Layer name to the channels of its bottleneck.
        kind: "serial" or "parallel".
    """
    put = {name: _adapter(width, kind) for name, width in widths.items()}
    return graphs.freeze_base(graphs.add_branches(model, put))


def _check_reduction(reduction: int) -> None:
    if isinstance(reduction, bool) or not isinstance(reduction, int) or reduction < 1:
        raise PlanError(f"the reduction is {reduction!r}, expected a whole number of at least 1")


def _width(layer: Any, reduction: int) -> int:
    return max(_LEAST, layer.output.shape[-1] // reduction)


def _unfit_serial(layer: Any) -> str | None:
    import keras

    if isinstance(layer, keras.layers.InputLayer | keras.layers.Rescaling):
        return "has no weights of the base before it"
    if layer.name.startswith("head_") and not layer.weights:
        return "is a layer of the head without weights"
    one = len(layer._inbound_nodes) == 1 and len(layer._inbound_nodes[0].input_tensors) >= 1
    shapes = len(layer.output.shape) if one and not isinstance(layer.output, list) else 0
    return None if shapes in (2, 3, 4) else "gives no single feature map, sequence or vector"


def _unfit_parallel(layer: Any) -> str | None:
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    return None if type(layer) in kinds else f"is a {type(layer).__name__}, no convolution"


def _adapter(width: int, kind: str) -> Callable[[Any], Callable[[Any], Any]]:
    return lambda layer: _serial(layer, width) if kind == "serial" else _parallel(layer, width)


def _serial(layer: Any, width: int) -> Callable[..., Any]:
    from keras import layers

    name = f"{layer.name}_serial_adapter"
    window = {"kernel_size": 3, "padding": "same"}
    made: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        tensor = layer(*args, **kwargs)
        if not made:
            mix = window if len(tensor.shape) == 4 else None
            made.append(_bottleneck(name, width, tensor.shape[-1], mix))
        return layers.Add(name=f"{name}_add")([tensor, made[0](tensor)])

    return call


def _parallel(layer: Any, width: int) -> Callable[[Any], Any]:
    from keras import activations, layers

    name, config = f"{layer.name}_parallel_adapter", layer.get_config()
    keys = ("kernel_size", "strides", "padding", "dilation_rate", "data_format")
    mix = {key: config[key] for key in keys if key in config}
    last = None
    if layer.activation is not activations.linear:
        last = layers.Activation(layer.activation, name=f"{name}_activation")
        layer.activation = activations.linear

    def call(tensor: Any) -> Any:
        plain = layer(tensor)
        beside = _bottleneck(name, width, plain.shape[-1], mix)(tensor)
        total = layers.Add(name=f"{name}_add")([plain, beside])
        return last(total) if last else total

    return call


def _bottleneck(
    name: str, width: int, outputs: int, mix: dict[str, Any] | None
) -> Callable[[Any], Any]:
    """Narrow, look around in a window (none for vectors), ReLU, widen from zero."""
    from keras import layers

    zeros = {"kernel_initializer": "zeros", "name": f"{name}_up"}
    if not mix:
        first = layers.Dense(width, activation="relu", name=f"{name}_down")
        second = layers.Dense(outputs, **zeros)
        return lambda tensor: second(first(tensor))
    down = layers.Conv2D(width, 1, name=f"{name}_down")
    middle = layers.DepthwiseConv2D(**mix, activation="relu", name=f"{name}_mix")
    up = layers.Conv2D(outputs, 1, **zeros)
    return lambda tensor: up(middle(down(tensor)))


def default_adapter_layers(
    model: keras.Model, reduction: int = 8, share: float = graphs.SHARE
) -> list[str]:
    """Return the layers that get serial adapters when none are named.

    The narrow convolutions of the base, those whose adapter takes at most a tenth of their own
    weights: the projections of an inverted residual, the 3 x 3 convolutions of a bottleneck.
    The adapter stands behind the BatchNorm that follows, if one does. From the top down through
    the upper half of the blocks, while the adapters take at most a share of the base's weights.

    Raises:
        PlanError: None fits, or the reduction is out of its range.
    """
    import keras

    _check_reduction(reduction)
    upper, after = set(graphs.upper_half(model)), _batchnorm_after(model)
    costs = {}
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D and layer.name in upper:
            width, channels = _width(layer, reduction), layer.filters
            cost = width * (2 * channels + 11) + channels
            if cost <= _OF_ITS_LAYER * layer.count_params():
                costs[after.get(layer.name, layer.name)] = cost
    return graphs.affordable(model, costs, share)


def _batchnorm_after(model: keras.Model) -> dict[str, str]:
    """Name of a layer to that of the BatchNorm that alone reads it."""
    import keras

    readers: dict[int, list[Any]] = {}
    walk = graph.steps(model)
    for step in walk:
        for tensor in step.inputs:
            readers.setdefault(id(tensor), []).append(step.operation)
    found = {}
    for step in walk:
        after = readers.get(id(step.outputs[0]), [])
        if len(after) == 1 and isinstance(after[0], keras.layers.BatchNormalization):
            found[step.name] = after[0].name
    return found


def check_adaptation(plan: str, patterns: Sequence[str], rank: int) -> None:
    """Check what can be known before there is a model.

    Raises:
        PlanError: Layers are named for a plan that adapts none, or the rank is below 1.
    """
    if patterns and plan not in _ADAPTED:
        raise PlanError(
            f"layers to adapt ({', '.join(patterns)}) with plan '{plan}', which adapts none; "
            f"expected plan {' or '.join(_ADAPTED)}"
        )
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise PlanError(f"the rank is {rank!r}, expected a whole number of at least 1")


def apply_adapters(
    model: keras.Model, plan: str, patterns: Sequence[str], rank: int
) -> keras.Model:
    """Put the branches on a model that a plan trains: of LoRA, or bottleneck adapters.

    Args:
        model: A flat functional model.
        plan: A plan's name; for others than those two the model comes back as it is.
        patterns: Layers to adapt; empty chooses, within 2.4 % of the base's weights.
        rank: Of LoRA. Adapters are serial, with an eighth of the channels.

    Raises:
        PlanError: See `apply_lora` and `insert_adapters`.
    """
    if plan == "lora":
        return apply_lora(model, patterns or default_lora_layers(model, rank), rank)
    if plan == "adapters":
        chosen = patterns or default_adapter_layers(model, _REDUCTION)
        return insert_adapters(model, chosen, _REDUCTION)
    return model
