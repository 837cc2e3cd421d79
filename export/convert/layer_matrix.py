"""See a layer's weights as a matrix, and its input as rows that the matrix is multiplied by."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LayerMatrix"]


class LayerMatrix:
    """A convolution or dense layer as a matrix for each group of channels.

    Attributes:
        places: of a kernel, 1 of a dense layer.
        inner: input channels that an output reads, along which two of four are counted.
        width: weights of an output.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        kind, self.kernel_shape = type(layer).__name__, layer.get_weights()[0].shape
        self.dense = kind == "Dense"
        self.places = 1 if self.dense else int(np.prod(self.kernel_shape[:2]))
        self.groups, self.inner = getattr(layer, "groups", 1), self.kernel_shape[-2]
        if kind == "DepthwiseConv2D":
            self.groups, self.inner = self.inner, 1
        self.width = self.places * self.inner

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (groups, width, outputs) and bias (groups, outputs), float64."""
        kernel, bias = (np.asarray(one, np.float64) for one in self.layer.get_weights())
        kernel = kernel.reshape(self.places, self.inner, self.groups, -1)
        kernel = kernel.transpose(2, 0, 1, 3).reshape(self.groups, self.width, -1)
        return kernel, bias.reshape(self.groups, -1)

    def set(self, weights: np.ndarray, bias: np.ndarray) -> None:
        """Take weights as `get` gives them."""
        kernel = weights.reshape(self.groups, self.places, self.inner, -1).transpose(1, 2, 0, 3)
        self.layer.set_weights([kernel.reshape(self.kernel_shape), bias.reshape(-1)])

    def rows(self, maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return what some of the outputs are computed from, float32 (groups, rows, width).

        Args:
            maps: the layer's inputs, (n, ..., channels).
            chosen: numbers in 0..1 that pick places of each sample, (n, m).
        """
        if self.dense:
            flat = maps.reshape(len(maps), -1, maps.shape[-1])
            at: np.ndarray = (chosen * flat.shape[1]).astype(np.int64)
            return np.take_along_axis(flat, at[..., None], 1).reshape(1, -1, self.width)
        found = self._patches(maps, chosen)
        found = found.reshape(-1, self.places, self.groups, self.inner)
        return found.transpose(2, 0, 1, 3).reshape(self.groups, -1, self.width)

    def pick(self, maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return maps of the layer's outputs at the same places, (groups, rows, outputs)."""
        flat = maps.reshape(len(maps), -1, self.groups, maps.shape[-1] // self.groups)
        at: np.ndarray = (chosen * flat.shape[1]).astype(np.int64)
        found = np.take_along_axis(flat, at[..., None, None], 1)
        return found.reshape(-1, *found.shape[2:]).transpose(1, 0, 2)

    def _patches(self, maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(n, m, places, channels): the patches below m outputs of each sample."""
        layer, sides = self.layer, self.layer.output.shape[1:3]
        at = (chosen * (sides[0] * sides[1])).astype(np.int64)
        pads, corners = [], []
        for axis, place in enumerate((at // sides[1], at % sides[1])):
            reach = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
            lack = (sides[axis] - 1) * layer.strides[axis] + reach - maps.shape[1 + axis]
            pad = max(lack, 0) if layer.padding == "same" else 0
            pads.append((pad // 2, pad - pad // 2))
            corners.append(place * layer.strides[axis])
        padded = np.pad(maps, ((0, 0), *pads, (0, 0)))
        sample = np.arange(len(maps))[:, None]
        return np.stack(
            [
                padded[sample, corners[0] + y * layer.dilation_rate[0],
                       corners[1] + x * layer.dilation_rate[1]]
                for y in range(layer.kernel_size[0])
                for x in range(layer.kernel_size[1])
            ],
            axis=2,
        )  # fmt: skip
