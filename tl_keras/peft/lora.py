"""LoRA: a low-rank branch beside a frozen layer, which can be folded into its kernel.

A layer y = W x + b becomes y = W x + b + (alpha / rank) B A x (Hu et al., arXiv 2106.09685).
For a convolution A is one with the layer's own window, strides and padding and `rank` filters,
and B one of 1 x 1; both linear and without bias, B zero at the start. Their product has the
shape of the kernel, so that merging is exact up to rounding.

The branch is made of stock layers in the flat graph, not of `layer.enable_lora`: that keeps
the branch inside the layer, where no selector sees it, no cut lies before it, and there is
neither a merge nor a way to turn it off. As layers of their own the branches are trained,
cached, resumed, saved and exported by what does so for every other layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import PlanError
from tl_keras.peft import branches as graphs

if TYPE_CHECKING:
    import keras

__all__ = ["apply_lora", "default_lora_layers", "merge_lora"]

_WINDOW = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups")


def apply_lora(
    model: keras.Model,
    patterns: Sequence[str] | str,
    rank: int = 4,
    alpha: float | None = None,
) -> keras.Model:
    """Return a copy of a model with LoRA on the layers that patterns name.

    The copy computes what the model does until it is trained. Only its branches and its head
    are trainable. The layers of a branch are named after their layer: "conv_lora_down",
    "conv_lora_up" and "conv_lora_add", to be selected by "*_lora_*".

    Args:
        model: A flat functional model, such as `tl_keras.build_model` makes; left as it is.
        patterns: Names, shell patterns ("block*_expand") or selectors ("head", "blocks:2") of
            `tl_keras.training.freezing.select`. Of the layers they match, dense layers and
            convolutions get a branch. Depthwise, separable and grouped convolutions do not:
            a depthwise kernel is one small window a channel, of which a low-rank branch
            would not be smaller.
        rank: Of the branch, from 1 to the lesser of the kernel's inputs (window included) and
            outputs.
        alpha: The branch is scaled by alpha / rank; None is `rank`, a scale of 1.

    Raises:
        PlanError: A pattern matches nothing, or nothing that can be adapted; the rank is larger
            than a layer allows; a number is out of its range.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    _check_numbers(rank, alpha)
    layers = graphs.choose(model, patterns, _unfit, "LoRA")
    for layer in layers:
        _check_rank(layer, rank)
    scale = 1.0 if alpha is None else alpha / rank
    put = {layer.name: _branch(rank, scale) for layer in layers}
    return graphs.freeze_base(graphs.add_branches(model, put))


def _check_numbers(rank: int, alpha: float | None) -> None:
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise PlanError(f"the rank is {rank!r}, expected a whole number of at least 1")
    if alpha is not None and not 0 < alpha < float("inf"):
        raise PlanError(f"alpha is {alpha!r}, expected a number above 0")


def _unfit(layer: Any) -> str | None:
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    if type(layer) in kinds:
        groups = getattr(layer, "groups", 1)
        return None if groups == 1 else f"has {groups} groups"
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return "is a depthwise convolution, whose kernel is small already"
    return f"is a {type(layer).__name__}; expected Conv2D or Dense"


def _sides(layer: Any) -> tuple[int, int]:
    shape = layer.kernel.shape
    return int(np.prod(shape[:-1])), int(shape[-1])


def _check_rank(layer: Any, rank: int) -> None:
    inputs, outputs = _sides(layer)
    if rank > min(inputs, outputs):
        raise PlanError(
            f"rank {rank} is larger than layer {layer.name} allows: its kernel maps {inputs} "
            f"values to {outputs}, expected at most {min(inputs, outputs)}; choose a lower rank "
            "or leave the layer out"
        )


def _branch(rank: int, scale: float) -> Callable[[Any], Callable[[Any], Any]]:
    return lambda layer: _beside(layer, rank, scale)


def _beside(layer: Any, rank: int, scale: float) -> Callable[[Any], Any]:
    """The layer and its branch as one function from tensor to tensor."""
    from keras import activations, layers

    name = f"{layer.name}_lora"
    down, up = _pair(layer, rank, name)
    factor = layers.Rescaling(scale, name=f"{name}_scale") if scale != 1 else None
    add, last = layers.Add(name=f"{name}_add"), None
    if layer.activation is not activations.linear:
        last = layers.Activation(layer.activation, name=f"{name}_activation")
        layer.activation = activations.linear

    def call(tensor: Any) -> Any:
        beside = up(down(tensor))
        total = add([layer(tensor), factor(beside) if factor else beside])
        return last(total) if last else total

    return call


def _pair(layer: Any, rank: int, name: str) -> tuple[Any, Any]:
    from keras import layers

    names = {"down": f"{name}_down", "up": f"{name}_up"}
    zeros = {"use_bias": False, "kernel_initializer": "zeros", "name": names["up"]}
    if isinstance(layer, layers.Dense):
        down = layers.Dense(rank, use_bias=False, name=names["down"])
        return down, layers.Dense(layer.units, **zeros)
    window = {key: value for key, value in layer.get_config().items() if key in _WINDOW}
    down = layers.Conv2D(rank, **window, use_bias=False, name=names["down"])
    return down, layers.Conv2D(layer.filters, 1, **zeros)


def merge_lora(model: keras.Model) -> keras.Model:
    """Return the plain model: every LoRA branch folded into its layer's kernel.

    It has the layers, names and weights' order of the model before :func:`apply_lora`, and the
    outputs of the adapted one up to rounding; all its layers are trainable. Bottleneck
    adapters stay. Kernels are rounded to float32 once, which costs 2e-7 of the largest output
    of a MobileNetV2 calculated in float64; in float32 the sums of any such model are
    themselves good to some 1e-6, and two models of equal function differ by as much.

    Args:
        model: A model with LoRA, trained or not, perhaps loaded from a file; left as it is.

    Raises:
        PlanError: The model has no LoRA.
    """
    found = graphs.branches(model).get("lora")
    if not found:
        raise PlanError(f"'{model.name}' has no LoRA to merge; expected a model of apply_lora")
    fold = {name: _fold_of(roles) for name, roles in found.items()}
    plain = graphs.remove_branches(model, ["lora"], fold)
    for layer in plain.layers:
        layer.trainable = True
    return plain


def _fold_of(roles: dict[str, Any]) -> Callable[[list], list]:
    # In float64, so that merging rounds once.
    down, up = (np.asarray(roles[role].kernel, np.float64) for role in ("down", "up"))
    scale = roles["scale"].scale if "scale" in roles else 1.0
    change = scale * (down @ up.reshape(up.shape[-2:]))

    def fold(weights: list) -> list:
        return [(weights[0] + change).astype(weights[0].dtype), *weights[1:]]

    return fold


_ATTENTION = ("_query", "_value")
"""What the layers of a transformer end with that get LoRA."""


def default_lora_layers(
    model: keras.Model, rank: int = 4, share: float = graphs.SHARE
) -> list[str]:
    """Return the base's layers that get LoRA when none are named.

    Of a transformer the queries and values of all blocks, as Hu et al. (2021, arXiv 2106.09685)
    do. Else all convolutions and dense layers that allow the rank, from the top down through the
    upper half of the blocks, while their branches take at most a share of the base's weights
    (the default leaves room for a head within 3 %).

    Raises:
        PlanError: None fits, or the rank is out of its range.
    """
    _check_numbers(rank, None)
    attention = [
        layer.name for layer in model.layers
        if layer.name.endswith(_ATTENTION) and _unfit(layer) is None and rank <= min(_sides(layer))
    ]  # fmt: skip
    if attention:
        return attention
    upper = set(graphs.upper_half(model))
    layers = [layer for layer in model.layers if layer.name in upper and _unfit(layer) is None]
    costs = {
        layer.name: rank * sum(_sides(layer)) for layer in layers if rank <= min(_sides(layer))
    }
    return graphs.affordable(model, costs, share)
