"""EfficientNet-Lite 0 to 4: EfficientNets that quantize well and run everywhere.

The published changes to EfficientNet (Tan and Le 2019, arXiv 1905.11946) are: no squeeze and
excitation, ReLU6 for swish, and a stem, a head, a first and a last stage that do not grow with
the rest ('EfficientNet-lite' in the models/official/efficientnet/lite folder of Google's
repository tensorflow/tpu). Stochastic depth, which is of training from scratch, is left out.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["VARIANTS", "efficientnet_lite", "efficientnet_lite0", "efficientnet_lite1",
           "efficientnet_lite2", "efficientnet_lite3", "efficientnet_lite4"]

VARIANTS = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))
"""Width factor, depth factor and side of the images in pixels, of Lite0 to Lite4."""

# (kernel, blocks, width, expansion, strides) of each stage before it is scaled
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2),
           (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))
_STEM, _HEAD, _DIVISOR, _SMALLEST = 32, 1280, 8, 32


def efficientnet_lite(variant: int, size: int | None = None) -> keras.Model:
    """Build an EfficientNet-Lite, without weights and without a head.

    Stock layers in one flat graph, named like those of Keras' EfficientNet
    (``block2a_expand_conv``, ``block2a_expand_bn``, ...); the first of them scales raw pixels by
    (x - 127) / 128.

    Args:
        variant: 0 to 4.
        size: Side of the square image, pixels, at least 32; None is the variant's own.

    Returns:
        A model from float32 (n, size, size, 3), RGB 0..255, to the map ``top_activation``,
        float32 (n, ceil(size / 32), ceil(size / 32), 1280), values 0 to 6.

    Raises:
        ModelError: There is no such variant, or `size` is smaller than 32.
    """
    import keras

    if variant not in range(len(VARIANTS)):
        raise ModelError(f"got EfficientNet-Lite{variant}; expected 0 to {len(VARIANTS) - 1}")
    width, depth, own = VARIANTS[variant]
    size = own if size is None else size
    if size < _SMALLEST:
        raise ModelError(f"efficientnet_lite{variant} at {size} pixels: it needs {_SMALLEST}")
    images = keras.Input((size, size, 3), name="images")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(images)
    x = _convolve(x, _STEM, "stem", kernel=3, strides=2)
    for number, (kernel, blocks, filters, expansion, strides) in enumerate(_STAGES, 1):
        fixed = number in (1, len(_STAGES))
        for block in range(blocks if fixed else math.ceil(depth * blocks)):
            x = _block(x, f"block{number}{chr(ord('a') + block)}", kernel,
                       _rounded(width * filters), expansion, 1 if block else strides)
    x = _convolve(x, _HEAD, "top")
    return keras.Model(images, x, name=f"efficientnet_lite{variant}")


efficientnet_lite0 = functools.partial(efficientnet_lite, 0)
efficientnet_lite1 = functools.partial(efficientnet_lite, 1)
efficientnet_lite2 = functools.partial(efficientnet_lite, 2)
efficientnet_lite3 = functools.partial(efficientnet_lite, 3)
efficientnet_lite4 = functools.partial(efficientnet_lite, 4)


def _rounded(filters: float) -> int:
    """Return the nearest multiple of 8, that is no more than a tenth below."""
    nearest = max(_DIVISOR, int(filters + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * filters else nearest


def _block(
    x: keras.KerasTensor, name: str, kernel: int, filters: int, expansion: int, strides: int
) -> keras.KerasTensor:
    """An inverted residual block: wider, filtered depth by depth, narrower, and added."""
    import keras

    entry, way = x, x
    if expansion > 1:
        way = _convolve(way, expansion * x.shape[-1], f"{name}_expand")
    way = keras.layers.DepthwiseConv2D(
        kernel, strides=strides, padding="same", use_bias=False,
        depthwise_initializer=_initializer(), name=f"{name}_dwconv")(way)  # fmt: skip
    way = _activate(_normalize(way, f"{name}_bn"), f"{name}_activation")
    way = _convolve(way, filters, f"{name}_project", activate=False)
    if strides > 1 or entry.shape[-1] != filters:
        return way
    return keras.layers.Add(name=f"{name}_add")([entry, way])


def _convolve(
    x: keras.KerasTensor, filters: int, name: str, *, kernel: int = 1, strides: int = 1,
    activate: bool = True,
) -> keras.KerasTensor:  # fmt: skip
    """Convolution without bias, BatchNorm, and ReLU6 where asked for."""
    import keras

    x = keras.layers.Conv2D(
        filters, kernel, strides=strides, padding="same", use_bias=False,
        kernel_initializer=_initializer(), name=f"{name}_conv")(x)  # fmt: skip
    x = _normalize(x, f"{name}_bn")
    return _activate(x, f"{name}_activation") if activate else x


def _initializer() -> keras.initializers.Initializer:
    import keras

    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def _normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    import keras

    return keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    import keras

    return keras.layers.ReLU(6.0, name=name)(x)
