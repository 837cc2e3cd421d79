"""What a base costs: its parameters, and the multiplications of one image.

The table was made by `count_costs` from the bases as they are built here; tests count some anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_keras.models.graph import Step, steps

if TYPE_CHECKING:
    import keras

__all__ = ["COSTS", "Costs", "count_costs"]


@dataclass(frozen=True)
class Costs:
    """What a base costs at its own size, without a head.

    Attributes:
        parameters: Numbers that its layers hold.
        multiply_adds: Multiplications with additions for one image.
    """

    parameters: int
    multiply_adds: int

    @property
    def megabytes(self) -> float:
        """Size of its weights as float32, in millions of bytes."""
        return self.parameters * 4 / 1e6


def count_costs(model: keras.Model) -> Costs:
    """Count a model's parameters and multiplications.

    Counted are convolutions, dense layers and products of two tensors, as papers do it; not
    normalizations, activations and sums.

    Args:
        model: A flat functional model of fixed input size.
    """
    return Costs(model.count_params(), sum(map(_products, steps(model))))


def _products(step: Step) -> int:
    """Multiplications of one call: for each output value, the inputs that it is a sum of."""
    layer: Any = step.operation
    kind = type(layer).__name__
    if kind == "Matmul":
        return math.prod(_shape(step.outputs[0])) * step.inputs[0].shape[-1]
    if kind in ("Conv1D", "Conv2D", "DepthwiseConv2D", "Dense", "EinsumDense"):
        outputs, kernel = _shape(step.outputs[0]), layer.weights[0].shape
        summed = math.prod(kernel[:2] if kind == "DepthwiseConv2D" else kernel[:-1])
        return math.prod(outputs) * summed
    if kind == "SeparableConv2D":
        depthwise, pointwise = (weight.shape for weight in layer.weights[:2])
        positions = math.prod(_shape(step.outputs[0])[:-1])
        return positions * (math.prod(depthwise) + math.prod(pointwise))
    return 0


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape)[1:]


COSTS: dict[str, tuple[int, int]] = {
    "vgg16": (14_714_688, 15_346_630_656),
    "vgg19": (20_024_384, 19_508_428_800),
    "resnet50": (23_587_712, 3_855_925_248),
    "resnet101": (42_658_176, 7_568_146_432),
    "resnet152": (58_370_944, 11_280_367_616),
    "resnet50_v2": (23_564_800, 3_480_207_360),
    "resnet101_v2": (42_626_560, 7_192_428_544),
    "resnet152_v2": (58_331_648, 10_904_649_728),
    "mobilenet": (3_228_864, 567_716_352),
    "mobilenet_v2": (2_257_984, 299_494_272),
    "mobilenet_v3_small": (939_120, 54_896_576),
    "mobilenet_v3_large": (2_996_352, 214_080_960),
    "efficientnet_b0": (4_049_571, 384_534_752),
    "efficientnet_b1": (6_575_239, 685_522_832),
    "efficientnet_b2": (7_768_569, 992_153_872),
    "efficientnet_b3": (10_783_535, 1_825_605_392),
    "efficientnet_b4": (17_673_823, 4_391_979_024),
    "efficientnet_b5": (28_513_527, 10_264_336_752),
    "efficientnet_b6": (40_960_143, 19_065_289_536),
    "efficientnet_b7": (64_097_687, 37_743_324_192),
    "efficientnet_v2_b0": (5_919_312, 716_806_176),
    "efficientnet_v2_b1": (6_931_124, 1_195_539_360),
    "efficientnet_v2_b2": (8_769_374, 1_696_134_832),
    "efficientnet_v2_b3": (12_930_622, 3_009_922_816),
    "efficientnet_v2_s": (20_331_360, 8_364_337_152),
    "efficientnet_v2_m": (53_150_388, 24_581_180_384),
    "efficientnet_v2_l": (117_746_848, 56_078_419_008),
    "densenet121": (7_037_504, 2_833_137_664),
    "densenet169": (12_642_880, 3_358_179_328),
    "densenet201": (18_321_984, 4_289_445_888),
    "inception_v3": (21_802_784, 5_711_168_096),
    "inception_resnet_v2": (54_336_736, 13_154_258_016),
    "xception": (20_861_480, 8_355_355_496),
    "nasnet_mobile": (4_269_716, 562_582_816),
    "nasnet_large": (84_916_818, 23_779_382_658),
    "convnext_tiny": (27_820_128, 4_456_908_288),
    "convnext_small": (49_454_688, 8_686_444_032),
    "convnext_base": (87_566_464, 15_358_371_840),
    "convnext_large": (196_230_336, 34_366_897_152),
    "convnext_xlarge": (348_147_968, 60_928_315_392),
    "efficientnet_lite0": (3_413_024, 383_907_552),
    "efficientnet_lite1": (4_189_344, 598_905_232),
    "efficientnet_lite2": (4_869_168, 858_456_272),
    "efficientnet_lite3": (6_992_768, 1_382_041_872),
    "efficientnet_lite4": (11_837_936, 2_551_754_336),
    "vit_tiny16": (5_524_032, 1_253_638_656),
    "vit_small16": (21_664_896, 4_598_793_216),
    "deit_tiny16": (5_524_032, 1_253_638_656),
    "deit_small16": (21_664_896, 4_598_793_216),
    "deit_tiny16_distilled": (5_524_224, 1_260_914_688),
    "deit_small16_distilled": (21_665_280, 4_623_962_112),
    "small_resnet": (212_936, 11_032_576),
    "minilm": (22_466_304, 3_019_898_880),
}
"""Name of a base to its parameters and multiplications; the MiniLM's for 256 tokens."""
