"""Round weights so that layers keep their outputs, each weight making up for those before it.

After Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323, and for the biases Nagel et al. 2019, arXiv 1906.04721, section
4.2. It works on the Keras graph: what it leaves lies on the very grid that the quantizers of files
choose, so that they round nothing any more, in any format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from export.convert.layer_matrix import LayerMatrix
from tl_keras.features.backends import prefix_function
from tl_keras.models.graph import steps

if TYPE_CHECKING:
    import keras

__all__ = ["list_rounded", "round_weights"]

_KINDS = ("Conv2D", "DepthwiseConv2D", "Dense")
_BATCH = 4
_ROWS = 128  # places of each sample
_DAMPING = 0.01
_WIDEST = 4608  # inputs of an output, 3 x 3 x 512 in VGG: second moments have the square
_BLOCK = 64
_SHRINKS = np.linspace(1.0, 0.5, 11)
_TINY = 1e-12


@dataclass(eq=False)
class _Moments:
    """Of a layer's input rows: means (groups, width), second moments (groups, width, width)."""

    first: np.ndarray
    second: np.ndarray


def list_rounded(model: keras.Model) -> list[str]:
    """Names of the layers whose weights can be rounded: called once, with a bias.

    Args:
        model: folded, see `export.convert.graph.fold_batch_normalization`.
    """
    calls = Counter(step.name for step in steps(model))
    return [
        layer.name
        for layer in model.layers
        if type(layer).__name__ in _KINDS
        and calls[layer.name] == 1
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and len(layer.get_weights()) == 2
    ]


def round_weights(
    model: keras.Model, inputs: Mapping[str, np.ndarray], bits: Mapping[str, int]
) -> None:
    """Round kernels to whole numbers times a scale for each output channel, in place.

    Scales are the largest weight's by 8 bits, and shrunken for the least error by fewer. The mean
    error that is left is taken from the bias.

    Args:
        model: folded, see `export.convert.graph.fold_batch_normalization`.
        inputs: samples by the input's name.
        bits: of each layer that is rounded, by its name, see `list_rounded`.
    """
    layers = [LayerMatrix(model.get_layer(name)) for name in bits]
    seen = _measure(model, layers, inputs) if layers else []
    for one, moments, count in zip(layers, seen, bits.values(), strict=True):
        weights, bias = one.get()
        made = _round(weights, moments.second, count)
        one.set(made, bias - np.einsum("gi,gio->go", moments.first, made - weights))


def _measure(
    model: keras.Model, layers: Sequence[LayerMatrix], inputs: Mapping[str, np.ndarray]
) -> list[_Moments]:
    import keras

    run = prefix_function(
        keras.Model(model.inputs, [one.layer.input for one in layers]), "float32"
    )
    kinds, generator = [tensor.dtype for tensor in model.inputs], np.random.default_rng(0)
    sums = [_Moments(np.zeros(1), np.zeros(1)) for _ in layers]
    counts = [0] * len(layers)
    for start in range(0, len(next(iter(inputs.values()))), _BATCH):
        batch = [array[start : start + _BATCH] for array in inputs.values()]
        given = run([one.astype(kind) for one, kind in zip(batch, kinds, strict=True)])
        for place, (one, maps) in enumerate(zip(layers, given, strict=True)):
            total = int(np.prod(one.layer.output.shape[1:-1], dtype=np.int64))
            chosen = generator.random((len(maps), min(_ROWS, total)))
            rows = one.rows(np.asarray(maps), chosen)
            turned = rows.transpose(0, 2, 1)
            sums[place].first = sums[place].first + rows.sum(axis=1)
            wide = one.width > _WIDEST
            products = np.square(rows).sum(axis=1) if wide else np.matmul(turned, rows)
            sums[place].second = sums[place].second + products
            counts[place] += rows.shape[1]
    return [
        _Moments(one.first / count, one.second / count)
        for one, count in zip(sums, counts, strict=True)
    ]


def _round(weights: np.ndarray, second: np.ndarray, bits: int) -> np.ndarray:
    """Round (groups, width, outputs), one input after the other.

    Where the second moments are (groups, width), the inputs are taken for independent.
    """
    largest = 2 ** (bits - 1) - 1
    power = second if second.ndim == 2 else np.einsum("gii->gi", second)
    scale = _choose_scales(weights, power, largest)
    if second.ndim == 2:
        return np.clip(np.rint(weights / scale), -largest, largest) * scale
    left, factor, whole = weights.copy(), _factorize(second), np.zeros_like(weights)
    for start in range(0, weights.shape[1], _BLOCK):
        end = min(start + _BLOCK, weights.shape[1])
        errors = np.zeros_like(weights[:, start:end])
        for index in range(start, end):
            whole[:, index] = np.clip(np.rint(left[:, index] / scale[:, 0]), -largest, largest)
            error = left[:, index] - whole[:, index] * scale[:, 0]
            errors[:, index - start] = error / factor[:, index, index, None]
            known = factor[:, index, index + 1 : end, None]
            left[:, index + 1 : end] -= known * errors[:, index - start, None]
        left[:, end:] -= np.matmul(factor[:, start:end, end:].transpose(0, 2, 1), errors)
    _reach_end(whole, weights, largest)
    return whole * scale


def _choose_scales(weights: np.ndarray, power: np.ndarray, largest: int) -> np.ndarray:
    """(groups, 1, outputs): the largest weight's; with few steps one that clips may err less."""
    widest = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / largest, _TINY)
    if largest >= 127:
        return widest
    best, least = widest, np.full(widest.shape, np.inf)
    for shrink in _SHRINKS:
        scale = widest * shrink
        error = np.clip(np.rint(weights / scale), -largest, largest) * scale - weights
        loss = (power[..., None] * np.square(error)).sum(axis=1, keepdims=True)
        best, least = np.where(loss < least, scale, best), np.minimum(loss, least)
    return best


def _factorize(second: np.ndarray) -> np.ndarray:
    """Upper Cholesky factor of the inverse of the damped second moments, group by group."""
    level = np.einsum("gii->g", second) / second.shape[-1]
    damped = second + (_DAMPING * level + _TINY)[:, None, None] * np.eye(second.shape[-1])
    return np.linalg.cholesky(np.linalg.inv(damped.astype(np.float64))).transpose(0, 2, 1)


def _reach_end(whole: np.ndarray, weights: np.ndarray, largest: int) -> None:
    """Let each channel reach the end of its scale: by that quantizers find the scale."""
    group, output = np.nonzero(np.abs(whole).max(axis=1) < largest)
    place = np.abs(weights).argmax(axis=1)[group, output]
    signs = np.sign(weights[group, place, output])
    whole[group, place, output] = largest * signs
