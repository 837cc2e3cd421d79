"""The registry of bases: every classifier of `keras.applications`, and the project's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "MODEL_FILES", "BackboneInfo", "construct", "is_model_file", "is_own"]

MODEL_FILES = (".keras", ".h5")
"""Endings of files that hold a whole model."""

OWN = "tl_keras.models.backbones."
"""What the modules of this project's own bases begin with."""


@dataclass(frozen=True)
class BackboneInfo:
    """What is known about a base.

    Attributes:
        name: Name in this project, with "@alpha" when a width other than 1 was asked for.
        constructor: Name of the function that builds it.
        module: Module of `keras.applications` it lies in, or this project's own module.
        features: The layer whose output is the features that a head is put on.
        scaling: What its weights expect, from RGB 0..255: "caffe" (BGR, ImageNet mean taken
            off), "tf" (-1..1), "torch" (0..1, ImageNet mean taken off, divided by the
            deviation) or "included" (its own layers do it).
        default_size: Side of the images it was trained on, in pixels.
        minimum_size: Smallest side it accepts, in pixels.
        licence: Licence of the published weights, as their authors state it.
        publication: Authors, year and arXiv number.
        alpha: Width factor; None where the base has none.
        default_weights: "imagenet", or the name of weights shipped with the project.
        maximum_size: Largest size it accepts; None for any.
        unit: What sizes are counted in, "px" or "tokens".
        modality: What it is shown, see `tl_keras.modalities`.
    """

    name: str
    constructor: str
    module: str
    features: str
    scaling: str
    default_size: int
    minimum_size: int
    licence: str
    publication: str
    alpha: float | None = None
    default_weights: str = "imagenet"
    maximum_size: int | None = None
    unit: str = "px"
    modality: str = "image"


_VGG = ("vgg", "block5_pool", "caffe", "CC-BY-4.0", "Simonyan and Zisserman 2014, arXiv 1409.1556")
_RESNET = ("resnet", "conv5_block3_out", "caffe", "MIT", "He et al. 2015, arXiv 1512.03385")
_RESNET_V2 = ("resnet_v2", "post_relu", "tf", "BSD", "He et al. 2016, arXiv 1603.05027")
_MOBILENET = ("mobilenet", "conv_pw_13_relu", "tf", "Apache-2.0",
              "Howard et al. 2017, arXiv 1704.04861")
_MOBILENET_V2 = ("mobilenet_v2", "out_relu", "tf", "Apache-2.0",
                 "Sandler et al. 2018, arXiv 1801.04381")
_MOBILENET_V3 = ("mobilenet_v3", "activation_17", "included", "Apache-2.0",
                 "Howard et al. 2019, arXiv 1905.02244")
_MOBILENET_V3_LARGE = ("mobilenet_v3", "activation_19", *_MOBILENET_V3[2:])
_EFFICIENT = ("efficientnet", "top_activation", "included", "Apache-2.0",
              "Tan and Le 2019, arXiv 1905.11946")
_EFFICIENT_V2 = ("efficientnet_v2", "top_activation", "included", "Apache-2.0",
                 "Tan and Le 2021, arXiv 2104.00298")
_EFFICIENT_LITE = (f"{OWN}efficientnet_lite", "top_activation", "included", "Apache-2.0",
                   "Tan and Le 2019, arXiv 1905.11946; Lite: Google 2020, tensorflow/tpu")
_DENSENET = ("densenet", "relu", "torch", "BSD-3-Clause", "Huang et al. 2016, arXiv 1608.06993")
_INCEPTION = ("inception_v3", "mixed10", "tf", "Apache-2.0",
              "Szegedy et al. 2015, arXiv 1512.00567")
_INCEPTION_RESNET = ("inception_resnet_v2", "conv_7b_ac", "tf", "Apache-2.0",
                     "Szegedy et al. 2016, arXiv 1602.07261")
_XCEPTION = ("xception", "block14_sepconv2_act", "tf", "MIT", "Chollet 2016, arXiv 1610.02357")
_NASNET = ("nasnet", "activation_187", "tf", "Apache-2.0", "Zoph et al. 2017, arXiv 1707.07012")
_NASNET_LARGE = ("nasnet", "activation_259", *_NASNET[2:])
_CONVNEXT = ("convnext", "layer_normalization", "included", "MIT",
             "Liu et al. 2022, arXiv 2201.03545")

_VIT = (f"{OWN}vit", "norm", "tf", "Apache-2.0",
        "Dosovitskiy et al. 2020, arXiv 2010.11929; Steiner et al. 2021, arXiv 2106.10270")
_DEIT = (f"{OWN}vit", "norm", "torch", "Apache-2.0", "Touvron et al. 2020, arXiv 2012.12877")

# module, features, scaling, license and publication are those of the family
# name, constructor, family, default size, minimum size
_ROWS: tuple[tuple[str, str, tuple[str, str, str, str, str], int, int], ...] = (
    ("vgg16", "VGG16", _VGG, 224, 32),
    ("vgg19", "VGG19", _VGG, 224, 32),
    ("resnet50", "ResNet50", _RESNET, 224, 32),
    ("resnet101", "ResNet101", _RESNET, 224, 32),
    ("resnet152", "ResNet152", _RESNET, 224, 32),
    ("resnet50_v2", "ResNet50V2", _RESNET_V2, 224, 32),
    ("resnet101_v2", "ResNet101V2", _RESNET_V2, 224, 32),
    ("resnet152_v2", "ResNet152V2", _RESNET_V2, 224, 32),
    ("mobilenet", "MobileNet", _MOBILENET, 224, 32),
    ("mobilenet_v2", "MobileNetV2", _MOBILENET_V2, 224, 32),
    ("mobilenet_v3_small", "MobileNetV3Small", _MOBILENET_V3, 224, 32),
    ("mobilenet_v3_large", "MobileNetV3Large", _MOBILENET_V3_LARGE, 224, 32),
    ("efficientnet_b0", "EfficientNetB0", _EFFICIENT, 224, 32),
    ("efficientnet_b1", "EfficientNetB1", _EFFICIENT, 240, 32),
    ("efficientnet_b2", "EfficientNetB2", _EFFICIENT, 260, 32),
    ("efficientnet_b3", "EfficientNetB3", _EFFICIENT, 300, 32),
    ("efficientnet_b4", "EfficientNetB4", _EFFICIENT, 380, 32),
    ("efficientnet_b5", "EfficientNetB5", _EFFICIENT, 456, 32),
    ("efficientnet_b6", "EfficientNetB6", _EFFICIENT, 528, 32),
    ("efficientnet_b7", "EfficientNetB7", _EFFICIENT, 600, 32),
    ("efficientnet_v2_b0", "EfficientNetV2B0", _EFFICIENT_V2, 224, 32),
    ("efficientnet_v2_b1", "EfficientNetV2B1", _EFFICIENT_V2, 240, 32),
    ("efficientnet_v2_b2", "EfficientNetV2B2", _EFFICIENT_V2, 260, 32),
    ("efficientnet_v2_b3", "EfficientNetV2B3", _EFFICIENT_V2, 300, 32),
    ("efficientnet_v2_s", "EfficientNetV2S", _EFFICIENT_V2, 384, 32),
    ("efficientnet_v2_m", "EfficientNetV2M", _EFFICIENT_V2, 480, 32),
    ("efficientnet_v2_l", "EfficientNetV2L", _EFFICIENT_V2, 480, 32),
    ("densenet121", "DenseNet121", _DENSENET, 224, 32),
    ("densenet169", "DenseNet169", _DENSENET, 224, 32),
    ("densenet201", "DenseNet201", _DENSENET, 224, 32),
    ("inception_v3", "InceptionV3", _INCEPTION, 299, 75),
    ("inception_resnet_v2", "InceptionResNetV2", _INCEPTION_RESNET, 299, 75),
    ("xception", "Xception", _XCEPTION, 299, 71),
    ("nasnet_mobile", "NASNetMobile", _NASNET, 224, 32),
    ("nasnet_large", "NASNetLarge", _NASNET_LARGE, 331, 32),
    ("convnext_tiny", "ConvNeXtTiny", _CONVNEXT, 224, 32),
    ("convnext_small", "ConvNeXtSmall", _CONVNEXT, 224, 32),
    ("convnext_base", "ConvNeXtBase", _CONVNEXT, 224, 32),
    ("convnext_large", "ConvNeXtLarge", _CONVNEXT, 224, 32),
    ("convnext_xlarge", "ConvNeXtXLarge", _CONVNEXT, 224, 32),
    ("efficientnet_lite0", "efficientnet_lite0", _EFFICIENT_LITE, 224, 32),
    ("efficientnet_lite1", "efficientnet_lite1", _EFFICIENT_LITE, 240, 32),
    ("efficientnet_lite2", "efficientnet_lite2", _EFFICIENT_LITE, 260, 32),
    ("efficientnet_lite3", "efficientnet_lite3", _EFFICIENT_LITE, 280, 32),
    ("efficientnet_lite4", "efficientnet_lite4", _EFFICIENT_LITE, 300, 32),
    ("vit_tiny16", "vit_tiny16", _VIT, 224, 16),
    ("vit_small16", "vit_small16", _VIT, 224, 16),
    ("deit_tiny16", "vit_tiny16", _DEIT, 224, 16),
    ("deit_small16", "vit_small16", _DEIT, 224, 16),
    ("deit_tiny16_distilled", "distilled_vit_tiny16", _DEIT, 224, 16),
    ("deit_small16_distilled", "distilled_vit_small16", _DEIT, 224, 16),
)


def _registry() -> dict[str, BackboneInfo]:
    found = {}
    for name, constructor, (module, end, scaling, licence, paper), size, least in _ROWS:
        module = name if module == "vgg" else module
        alpha = 1.0 if name.startswith("mobilenet") else None
        found[name] = BackboneInfo(
            name, constructor, module, end, scaling, size, least, licence, paper, alpha)
    found["small_resnet"] = BackboneInfo(
        "small_resnet", "small_resnet", f"{OWN}small_resnet", "stage3_block2_relu", "included",
        32, 16, "Apache-2.0",
        "this project; residual after He et al. 2015, arXiv 1512.03385",
        default_weights="glyphs")
    return found


BACKBONES: dict[str, BackboneInfo] = _registry()


def construct(info: BackboneInfo, size: int, weights: str | None = None) -> keras.Model:
    """The base as its own constructor builds it, without top or flattening.

    Args:
        info: Its entry.
        size: Side of the input in pixels.
        weights: "imagenet" or None; the project's own bases know None only.

    Returns:
        A functional model that takes what `info.scaling` says.
    """
    import importlib

    import keras

    if is_own(info):
        return getattr(importlib.import_module(info.module), info.constructor)(size)
    options: dict[str, Any] = {"alpha": info.alpha} if info.alpha is not None else {}
    return getattr(keras.applications, info.constructor)(
        include_top=False, weights=weights, input_shape=(size, size, 3), **options)


def is_own(info: BackboneInfo) -> bool:
    """Whether this project builds a base itself, so that Keras fetches no weights for it."""
    return info.module.startswith(OWN)


def is_model_file(name: str) -> bool:
    """Whether a backbone is asked for by a file with a model, not by its name."""
    return name.endswith(MODEL_FILES)
