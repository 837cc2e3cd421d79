"""The project's own small base: a residual network for images of 16 pixels and more.

Its shipped weights were learned by `scripts/pretrain_small_resnet.py` on letters that
`tl_keras.data.builtin.glyphs` renders.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["SMALL_RESNET_WEIGHTS", "small_resnet"]

SMALL_RESNET_WEIGHTS = os.path.join(
    os.path.dirname(__file__), "pretrained", "small_resnet_glyphs.weights.h5"
)
"""Where the shipped weights of `small_resnet` lie: ``.weights.h5``, float32."""

_WIDTHS = (24, 40, 64)
_BLOCKS = 2
_SMALLEST = 16


def small_resnet(size: int = 32) -> keras.Model:
    """Build the small residual network, without weights and without a head.

    A convolution that halves the image, then three stages of two residual blocks each at a
    half, a quarter and an eighth of the image's side: He et al., 'Deep residual learning for
    image recognition' (CVPR 2016), with projections where the shape changes. Stock layers in
    one flat graph, named like ``stage1_block1_conv1``; the first of them scales raw pixels.

    Args:
        size: Side of the square image, pixels, at least 16.

    Returns:
        A model from float32 (n, size, size, 3), RGB 0..255, to the last feature map,
        float32 (n, ceil(size / 8), ceil(size / 8), 64), values at least 0.

    Raises:
        ModelError: If `size` is smaller than 16.
    """
    import keras

    if size < _SMALLEST:
        raise ModelError(f"small_resnet at {size} pixels: it needs at least {_SMALLEST}")
    images = keras.Input((size, size, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(images)
    x = _activate(_convolve(x, _WIDTHS[0], "stem", strides=2), "stem")
    for stage, width in enumerate(_WIDTHS, 1):
        for block in range(1, _BLOCKS + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, width, f"stage{stage}_block{block}", strides)
    return keras.Model(images, x, name="small_resnet")


def _block(x: keras.KerasTensor, width: int, name: str, strides: int) -> keras.KerasTensor:
    """Two 3 x 3 convolutions beside the identity (or a 1 x 1 projection), added."""
    import keras

    way = _activate(_convolve(x, width, f"{name}_conv1", strides=strides), f"{name}_conv1")
    way = _convolve(way, width, f"{name}_conv2")
    if strides > 1 or x.shape[-1] != width:
        x = _convolve(x, width, f"{name}_skip", strides=strides, kernel=1)
    return _activate(keras.layers.Add(name=f"{name}_add")([x, way]), name)


def _convolve(
    x: keras.KerasTensor, width: int, name: str, *, strides: int = 1, kernel: int = 3
) -> keras.KerasTensor:
    """Convolution without bias (the normalisation that follows has one), then BatchNorm."""
    import keras

    x = keras.layers.Conv2D(
        width, kernel, strides=strides, padding="same", use_bias=False,
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def _activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    import keras

    return keras.layers.ReLU(name=f"{name}_relu")(x)
