"""Write a model's function in numbers that round better: channels of equal range.

After Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv 1906.04721. It works on the Keras graph, so that every format gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.graph import find_foldable, fold_batch_normalization
from tl_keras import tasks
from tl_keras.features.backends import prefix_function
from tl_keras.features.extract import Arrays, collect
from tl_keras.models.graph import Step, steps
from tl_keras.tasks.base import Task

if TYPE_CHECKING:
    import keras

__all__ = ["Equalized", "equalize"]

_SWEEPS = 20
_CLOSE = 1e-3
_UNCLEAR = 1e-8
_SAME = 0.99
_BATCH = 16
# Layers that hand a channel's positive factor on to what follows.
_PASSING = (
    "Activation", "AveragePooling2D", "Dropout", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "MaxPooling2D", "ReLU", "LeakyReLU", "SpatialDropout2D", "ZeroPadding2D",
)  # fmt: skip


@dataclass(frozen=True)
class Equalized:
    """An equalized model.

    Attributes:
        model: gives the same answers; batch normalisation is folded.
        pairs: how many pairs of layers share their channels' ranges.
        unbounded: how many ReLU6 became ReLU.
    """

    model: keras.Model
    pairs: int
    unbounded: int


@dataclass(frozen=True)
class _Pair:
    first: str
    second: str
    bounded: tuple[str, ...]


def equalize(model: keras.Model, inputs: Mapping[str, np.ndarray], task: Task) -> Equalized:
    """Give each channel between two layers the same range in both (section 4.1).

    A channel's factor passes through what is linear for positive factors, so that dividing the
    first layer's channel and multiplying the second's changes nothing. ReLU6 is not linear; the
    paper takes ReLU in its place, and so does this where at least 99 % of the answers mean the
    same as before. Else, pairs across a ReLU6 stay as they are, and the function is unchanged.

    Args:
        model: flat, of stock layers; it is not changed.
        inputs: samples by the input's name, to see whether ReLU6 may go.
        task: says which answers mean the same.
    """
    pairs = _find_pairs(model)
    bounded = {name for pair in pairs for name in pair.bounded}
    plain = fold_batch_normalization(model, bounded)
    if bounded and _share_kept(model, plain, inputs, task) < _SAME:
        pairs, bounded = [pair for pair in pairs if not pair.bounded], set()
        plain = fold_batch_normalization(model)
    for _ in range(_SWEEPS):
        # A list: every pair is to be equalized, also after one that moved.
        if max([_equalize_pair(plain, pair) for pair in pairs], default=0.0) < _CLOSE:
            break
    return Equalized(plain, len(pairs), len(bounded))


def _share_kept(
    one: keras.Model, other: keras.Model, inputs: Mapping[str, np.ndarray], task: Task
) -> float:
    truth, given = (_predict(model, inputs)[0] for model in (one, other))
    # The largest of one output is always the first, whatever the model says.
    kind = tasks.get("tags") if task.single_label and truth.shape[1] == 1 else task
    return float(kind.agree(truth, given).mean())


def _predict(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return collect(prefix_function(model, "float32"), Arrays(inputs), batch_size=_BATCH)


def _kind(operation: Any) -> str:
    return type(operation).__name__


def _is_weighted(layer: Any) -> bool:
    """Whether a layer is a convolution or a matrix product whose channels are plain to see."""
    if _kind(layer) == "Conv2D":
        return layer.groups == 1 and layer.data_format == "channels_last"
    if _kind(layer) == "DepthwiseConv2D":
        return layer.depth_multiplier == 1 and layer.data_format == "channels_last"
    return _kind(layer) == "Dense"


def _axis(layer: Any, end: str) -> int:
    """Axis of a kernel that counts the channels that come "in" or go "out"."""
    if _kind(layer) == "DepthwiseConv2D":
        return 2
    return np.asarray(layer.kernel).ndim - (1 if end == "out" else 2)


def _along(kernel: np.ndarray, layer: Any, end: str, factors: np.ndarray) -> np.ndarray:
    shape = [1] * kernel.ndim
    shape[_axis(layer, end)] = -1
    return kernel * np.reshape(factors, shape)


def _ranges(layer: Any, end: str) -> np.ndarray:
    kernel = np.abs(np.asarray(layer.kernel))
    others = tuple(axis for axis in range(kernel.ndim) if axis != _axis(layer, end))
    return kernel.max(axis=others)


def _find_followers(model: keras.Model) -> dict[str, Step]:
    """For each layer that is called once and read once: who reads it."""
    walk = [step for step in steps(model) if step.outputs]
    ends = {id(tensor) for tensor in model.outputs}
    calls = [step.name for step in walk]
    readers: dict[int, list[Step]] = {}
    for step in walk:
        for tensor in step.inputs:
            readers.setdefault(id(tensor), []).append(step)
    found = {}
    for step in walk:
        read = [one for tensor in step.outputs for one in readers.get(id(tensor), [])]
        alone = calls.count(step.name) == 1 and not any(id(t) in ends for t in step.outputs)
        if len(read) == 1 and alone:
            found[step.name] = read[0]
    return found


def _act(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _find_pairs(model: keras.Model) -> list[_Pair]:
    followers = _find_followers(model)
    merged = {norm.name for norm in find_foldable(model).values()}
    found = []
    for layer in model.layers:
        if not _is_weighted(layer) or _act(layer) not in ("linear", "relu"):
            continue
        bounded, after = [], followers.get(layer.name)
        while after is not None and (after.name in merged or _passes(after.operation)):
            if getattr(after.operation, "max_value", None) is not None:
                bounded.append(after.name)
            after = followers.get(after.name)
        if after is not None and _is_weighted(after.operation):
            found.append(_Pair(layer.name, after.name, tuple(bounded)))
    return found


def _passes(layer: Any) -> bool:
    if _kind(layer) == "ReLU":
        return layer.threshold == 0
    return _kind(layer) in _PASSING and _act(layer) in ("linear", "relu", "leaky_relu")


def _equalize_pair(model: keras.Model, pair: _Pair) -> float:
    """Equalize one pair (equation 9); how far its factors were from 1."""
    first, second = model.get_layer(pair.first), model.get_layer(pair.second)
    before, after = _ranges(first, "out"), _ranges(second, "in")
    clear = (before > _UNCLEAR) & (after > _UNCLEAR)
    factors = np.where(clear, np.sqrt(before / np.where(clear, after, 1.0)), 1.0)
    factors = np.where(clear, factors, 1.0)
    kernel, bias = first.get_weights()
    first.set_weights([_along(kernel, first, "out", 1 / factors), bias / factors])
    kernel, bias = second.get_weights()
    second.set_weights([_along(kernel, second, "in", factors), bias])
    return float(np.abs(np.log(factors)).max(initial=0.0))
