"""How files that torch wrote name the tensors of the bases that are built here.

And what else of these networks is not as in Keras: the padding, the normalizations' epsilon, the
scaling of images.

A table says, for each layer of the Keras graph, what the same layer is called there: the first
rule whose pattern matches the layer's whole name gives the prefix of its tensors. In it a group of
the pattern stands by its name: `{stage}`. A number or a letter counts from 1 or, as `{stage0}`,
from 0. `{flat}` is the number of the block in the whole network, from 0, `{flat1}` from 1, and
`{s}.{b}` its stage and its place in it, both from 0; `{vgg}` is the place of a VGG's convolution.
Of several prefixes with "|" between the first that the file has is taken; "[1]" behind a prefix is
the second of three equal parts of a tensor, as one layer for query, key and value has them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["ORIGINS", "TorchNames", "origins_of"]

_BATCH_COUNTS = r".*\.num_batches_tracked"


@dataclass(frozen=True)
class TorchNames:
    """The names of one program for one family.

    Attributes:
        origin: The program, for messages.
        bases: Pattern of the names of the bases, the width left out.
        sign: A tensor by which its files are told from those of other programs.
        rules: (pattern of a Keras layer's name, prefix of its tensors).
        left_out: Patterns of the tensors that a base does not have: the classifier.
        inside: What may stand in front of all names of a file.
        stages: Number of blocks in each stage, for `{s}` and `{b}`.
        embedding: What a vision transformer's file calls the parts of its first layer, see
            `tl_keras.models.backbones.vit.embedding`.
        scaling: What the weights expect, see `BackboneInfo.scaling`, where no file says it;
            "included" is what the graph's own layers do.
        epsilon: Of the batch normalizations.
        symmetric: Whether strided convolutions pad both sides alike, as torch does it. (Keras
            and TensorFlow pad the far side by one more.)
        strides: (pattern of a Keras layer's name, its strides there).
        architecture: Pattern of the names that timm gives these networks. Where it is set,
            config.json beside the file must name one of them: `tf_` in front stands for the
            padding and the epsilon of TensorFlow, which no tensor tells.
    """

    origin: str
    bases: str
    sign: str
    rules: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]
    inside: str = ""
    stages: tuple[int, ...] = ()
    embedding: dict[str, str] = field(default_factory=dict)
    scaling: str = "torch"
    epsilon: float = 1e-5
    symmetric: bool = True
    strides: tuple[tuple[str, int], ...] = ()
    architecture: str = ""

    def ignores(self) -> tuple[str, ...]:
        """Patterns of all tensors that are left out."""
        return (*self.left_out, _BATCH_COUNTS)


_HEAD = (r"(fc|classifier|head|head_dist|pre_logits)\..*",)

# EfficientNet, with and without squeeze and excitation, as Keras and this project name it.
_BLOCK = r"block(?P<stage>\d)(?P<block>[a-z])_"
_FIRST = r"block1(?P<block>[a-z])_"
_EFFICIENT = r"efficientnet_(b\d|lite\d)"
_EFFICIENT_TIMM = (
    ("stem_conv", "conv_stem"), ("stem_bn", "bn1"), ("top_conv", "conv_head"), ("top_bn", "bn2"),
    (_FIRST + "dwconv", "blocks.0.{block0}.conv_dw"), (_FIRST + "bn", "blocks.0.{block0}.bn1"),
    (_FIRST + "project_conv", "blocks.0.{block0}.conv_pw"),
    (_FIRST + "project_bn", "blocks.0.{block0}.bn2"),
    (_BLOCK + "expand_conv", "blocks.{stage0}.{block0}.conv_pw"),
    (_BLOCK + "expand_bn", "blocks.{stage0}.{block0}.bn1"),
    (_BLOCK + "dwconv", "blocks.{stage0}.{block0}.conv_dw"),
    (_BLOCK + "bn", "blocks.{stage0}.{block0}.bn2"),
    (_BLOCK + "se_reduce", "blocks.{stage0}.{block0}.se.conv_reduce"),
    (_BLOCK + "se_expand", "blocks.{stage0}.{block0}.se.conv_expand"),
    (_BLOCK + "project_conv", "blocks.{stage0}.{block0}.conv_pwl"),
    (_BLOCK + "project_bn", "blocks.{stage0}.{block0}.bn3"),
)  # fmt: skip
_EFFICIENT_TORCHVISION = (
    ("stem_conv", "features.0.0"), ("stem_bn", "features.0.1"),
    ("top_conv", "features.8.0"), ("top_bn", "features.8.1"),
    (_FIRST + "dwconv", "features.1.{block0}.block.0.0"),
    (_FIRST + "bn", "features.1.{block0}.block.0.1"),
    (_FIRST + "se_reduce", "features.1.{block0}.block.1.fc1"),
    (_FIRST + "se_expand", "features.1.{block0}.block.1.fc2"),
    (_FIRST + "project_conv", "features.1.{block0}.block.2.0"),
    (_FIRST + "project_bn", "features.1.{block0}.block.2.1"),
    (_BLOCK + "expand_conv", "features.{stage}.{block0}.block.0.0"),
    (_BLOCK + "expand_bn", "features.{stage}.{block0}.block.0.1"),
    (_BLOCK + "dwconv", "features.{stage}.{block0}.block.1.0"),
    (_BLOCK + "bn", "features.{stage}.{block0}.block.1.1"),
    (_BLOCK + "se_reduce", "features.{stage}.{block0}.block.2.fc1"),
    (_BLOCK + "se_expand", "features.{stage}.{block0}.block.2.fc2"),
    (_BLOCK + "project_conv", "features.{stage}.{block0}.block.3.0"),
    (_BLOCK + "project_bn", "features.{stage}.{block0}.block.3.1"),
)  # fmt: skip
_EFFICIENT_HUGGING_FACE = (
    ("stem_conv", "embeddings.convolution"), ("stem_bn", "embeddings.batchnorm"),
    ("top_conv", "encoder.top_conv"), ("top_bn", "encoder.top_bn"),
    (_BLOCK + "expand_conv", "encoder.blocks.{flat}.expansion.expand_conv"),
    (_BLOCK + "expand_bn", "encoder.blocks.{flat}.expansion.expand_bn"),
    (_BLOCK + "dwconv", "encoder.blocks.{flat}.depthwise_conv.depthwise_conv"),
    (_BLOCK + "bn", "encoder.blocks.{flat}.depthwise_conv.depthwise_norm"),
    (_BLOCK + "se_reduce", "encoder.blocks.{flat}.squeeze_excite.reduce"),
    (_BLOCK + "se_expand", "encoder.blocks.{flat}.squeeze_excite.expand"),
    (_BLOCK + "project_conv", "encoder.blocks.{flat}.projection.project_conv"),
    (_BLOCK + "project_bn", "encoder.blocks.{flat}.projection.project_bn"),
)
_EFFICIENT_PYTORCH = (
    ("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"),
    ("top_conv", "_conv_head"), ("top_bn", "_bn1"),
    (_BLOCK + "expand_conv", "_blocks.{flat}._expand_conv"),
    (_BLOCK + "expand_bn", "_blocks.{flat}._bn0"),
    (_BLOCK + "dwconv", "_blocks.{flat}._depthwise_conv"),
    (_BLOCK + "bn", "_blocks.{flat}._bn1"),
    (_BLOCK + "project_conv", "_blocks.{flat}._project_conv"),
    (_BLOCK + "project_bn", "_blocks.{flat}._bn2"),
)  # fmt: skip

_V2_FIRST, _V2 = "expanded_conv_", r"block_(?P<flat>\d+)_"
_MOBILE_V2_TIMM = (
    ("Conv1", "conv_stem"), ("bn_Conv1", "bn1"), ("Conv_1", "conv_head"), ("Conv_1_bn", "bn2"),
    (_V2_FIRST + "depthwise", "blocks.0.0.conv_dw"), (_V2_FIRST + "depthwise_BN", "blocks.0.0.bn1"),
    (_V2_FIRST + "project", "blocks.0.0.conv_pw"), (_V2_FIRST + "project_BN", "blocks.0.0.bn2"),
    (_V2 + "expand", "blocks.{s}.{b}.conv_pw"), (_V2 + "expand_BN", "blocks.{s}.{b}.bn1"),
    (_V2 + "depthwise", "blocks.{s}.{b}.conv_dw"), (_V2 + "depthwise_BN", "blocks.{s}.{b}.bn2"),
    (_V2 + "project", "blocks.{s}.{b}.conv_pwl"), (_V2 + "project_BN", "blocks.{s}.{b}.bn3"),
)  # fmt: skip
_MOBILE_V2_TORCHVISION = (
    ("Conv1", "features.0.0"), ("bn_Conv1", "features.0.1"),
    ("Conv_1", "features.18.0"), ("Conv_1_bn", "features.18.1"),
    (_V2_FIRST + "depthwise", "features.1.conv.0.0"),
    (_V2_FIRST + "depthwise_BN", "features.1.conv.0.1"),
    (_V2_FIRST + "project", "features.1.conv.1"), (_V2_FIRST + "project_BN", "features.1.conv.2"),
    (_V2 + "expand", "features.{flat1}.conv.0.0"), (_V2 + "expand_BN", "features.{flat1}.conv.0.1"),
    (_V2 + "depthwise", "features.{flat1}.conv.1.0"),
    (_V2 + "depthwise_BN", "features.{flat1}.conv.1.1"),
    (_V2 + "project", "features.{flat1}.conv.2"), (_V2 + "project_BN", "features.{flat1}.conv.3"),
)  # fmt: skip
_MOBILE_V2_HUGGING_FACE = (
    ("Conv1", "conv_stem.first_conv.convolution"),
    ("bn_Conv1", "conv_stem.first_conv.normalization"),
    ("Conv_1", "conv_1x1.convolution"), ("Conv_1_bn", "conv_1x1.normalization"),
    (_V2_FIRST + "depthwise", "conv_stem.conv_3x3.convolution"),
    (_V2_FIRST + "depthwise_BN", "conv_stem.conv_3x3.normalization"),
    (_V2_FIRST + "project", "conv_stem.reduce_1x1.convolution"),
    (_V2_FIRST + "project_BN", "conv_stem.reduce_1x1.normalization"),
    (_V2 + "expand", "layer.{flat0}.expand_1x1.convolution"),
    (_V2 + "expand_BN", "layer.{flat0}.expand_1x1.normalization"),
    (_V2 + "depthwise", "layer.{flat0}.conv_3x3.convolution"),
    (_V2 + "depthwise_BN", "layer.{flat0}.conv_3x3.normalization"),
    (_V2 + "project", "layer.{flat0}.reduce_1x1.convolution"),
    (_V2 + "project_BN", "layer.{flat0}.reduce_1x1.normalization"),
)  # fmt: skip

_V3_FIRST, _V3 = "expanded_conv_", r"expanded_conv_(?P<flat>\d+)_"
_MOBILE_V3_TIMM = (
    ("conv", "conv_stem"), ("conv_bn", "bn1"),
    ("conv_1", "blocks.6.0.conv|blocks.5.0.conv"), ("conv_1_bn", "blocks.6.0.bn1|blocks.5.0.bn1"),
    (_V3_FIRST + "depthwise", "blocks.0.0.conv_dw"), (_V3_FIRST + "depthwise_bn", "blocks.0.0.bn1"),
    (_V3_FIRST + "squeeze_excite_conv", "blocks.0.0.se.conv_reduce"),
    (_V3_FIRST + "squeeze_excite_conv_1", "blocks.0.0.se.conv_expand"),
    (_V3_FIRST + "project", "blocks.0.0.conv_pw"), (_V3_FIRST + "project_bn", "blocks.0.0.bn2"),
    (_V3 + "expand", "blocks.{s}.{b}.conv_pw"), (_V3 + "expand_bn", "blocks.{s}.{b}.bn1"),
    (_V3 + "depthwise", "blocks.{s}.{b}.conv_dw"), (_V3 + "depthwise_bn", "blocks.{s}.{b}.bn2"),
    (_V3 + "squeeze_excite_conv", "blocks.{s}.{b}.se.conv_reduce"),
    (_V3 + "squeeze_excite_conv_1", "blocks.{s}.{b}.se.conv_expand"),
    (_V3 + "project", "blocks.{s}.{b}.conv_pwl"), (_V3 + "project_bn", "blocks.{s}.{b}.bn3"),
)  # fmt: skip
_PLACE = "features.{flat1}.block."
_MOBILE_V3_TORCHVISION = (
    ("conv", "features.0.0"), ("conv_bn", "features.0.1"),
    ("conv_1", "features.16.0|features.12.0"), ("conv_1_bn", "features.16.1|features.12.1"),
    (_V3_FIRST + "depthwise", "features.1.block.0.0"),
    (_V3_FIRST + "depthwise_bn", "features.1.block.0.1"),
    (_V3_FIRST + "squeeze_excite_conv", "features.1.block.1.fc1"),
    (_V3_FIRST + "squeeze_excite_conv_1", "features.1.block.1.fc2"),
    (_V3_FIRST + "project", "features.1.block.2.0|features.1.block.1.0"),
    (_V3_FIRST + "project_bn", "features.1.block.2.1|features.1.block.1.1"),
    (_V3 + "expand", _PLACE + "0.0"), (_V3 + "expand_bn", _PLACE + "0.1"),
    (_V3 + "depthwise", _PLACE + "1.0"), (_V3 + "depthwise_bn", _PLACE + "1.1"),
    (_V3 + "squeeze_excite_conv", _PLACE + "2.fc1"),
    (_V3 + "squeeze_excite_conv_1", _PLACE + "2.fc2"),
    (_V3 + "project", f"{_PLACE}3.0|{_PLACE}2.0"), (_V3 + "project_bn", f"{_PLACE}3.1|{_PLACE}2.1"),
)  # fmt: skip

_RES = r"conv(?P<stage>\d)_block(?P<block>\d+)_"
_RESNET_TIMM = (
    ("conv1_conv", "conv1"), ("conv1_bn", "bn1"),
    (_RES + "0_conv", "layer{stage0}.{block0}.downsample.0"),
    (_RES + "0_bn", "layer{stage0}.{block0}.downsample.1"),
    (_RES + r"(?P<part>\d)_conv", "layer{stage0}.{block0}.conv{part}"),
    (_RES + r"(?P<part>\d)_bn", "layer{stage0}.{block0}.bn{part}"),
)  # fmt: skip
# Its second form, 1.5, which all of these are: Keras strides in the convolution before.
_RESNET_STRIDES = ((r"conv[345]_block1_1_conv", 1), (r"conv[345]_block1_2_conv", 2))
_LAYER = "encoder.stages.{stage00}.layers.{block0}."
_RESNET_HUGGING_FACE = (
    ("conv1_conv", "embedder.embedder.convolution"),
    ("conv1_bn", "embedder.embedder.normalization"),
    (_RES + "0_conv", _LAYER + "shortcut.convolution"),
    (_RES + "0_bn", _LAYER + "shortcut.normalization"),
    (_RES + r"(?P<part>\d)_conv", _LAYER + "layer.{part0}.convolution"),
    (_RES + r"(?P<part>\d)_bn", _LAYER + "layer.{part0}.normalization"),
)  # fmt: skip

_NEXT = r"convnext_[a-z]+_stage_(?P<stage>\d)_block_(?P<block>\d+)_"
_CONVNEXT_TIMM = (
    ("convnext_[a-z]+_stem_conv", "stem.0"), ("convnext_[a-z]+_stem_layernorm", "stem.1"),
    (r"convnext_[a-z]+_downsampling_layernorm_(?P<stage>\d)", "stages.{stage1}.downsample.0"),
    (r"convnext_[a-z]+_downsampling_conv_(?P<stage>\d)", "stages.{stage1}.downsample.1"),
    (_NEXT + "depthwise_conv", "stages.{stage}.blocks.{block}.conv_dw"),
    (_NEXT + "layernorm", "stages.{stage}.blocks.{block}.norm"),
    (_NEXT + "pointwise_conv_1", "stages.{stage}.blocks.{block}.mlp.fc1"),
    (_NEXT + "pointwise_conv_2", "stages.{stage}.blocks.{block}.mlp.fc2"),
    (_NEXT + "layer_scale", "stages.{stage}.blocks.{block}.gamma"),
    ("layer_normalization", "head.norm"),
)  # fmt: skip
_CONVNEXT_HUGGING_FACE = (
    ("convnext_[a-z]+_stem_conv", "embeddings.patch_embeddings"),
    ("convnext_[a-z]+_stem_layernorm", "embeddings.layernorm"),
    (r"convnext_[a-z]+_downsampling_layernorm_(?P<stage>\d)",
     "encoder.stages.{stage1}.downsampling_layer.0"),
    (r"convnext_[a-z]+_downsampling_conv_(?P<stage>\d)",
     "encoder.stages.{stage1}.downsampling_layer.1"),
    (_NEXT + "depthwise_conv", "encoder.stages.{stage}.layers.{block}.dwconv"),
    (_NEXT + "layernorm", "encoder.stages.{stage}.layers.{block}.layernorm"),
    (_NEXT + "pointwise_conv_1", "encoder.stages.{stage}.layers.{block}.pwconv1"),
    (_NEXT + "pointwise_conv_2", "encoder.stages.{stage}.layers.{block}.pwconv2"),
    (_NEXT + "layer_scale", "encoder.stages.{stage}.layers.{block}.layer_scale_parameter"),
    ("layer_normalization", "layernorm"),
)

_VIT = r"block(?P<block>\d+)_"
_VIT_TIMM = (
    (_VIT + "attention_norm", "blocks.{block}.norm1"), (_VIT + "norm", "blocks.{block}.norm2"),
    (_VIT + "query", "blocks.{block}.attn.qkv[0]"), (_VIT + "key", "blocks.{block}.attn.qkv[1]"),
    (_VIT + "value", "blocks.{block}.attn.qkv[2]"),
    (_VIT + "project", "blocks.{block}.attn.proj"),
    (_VIT + "up", "blocks.{block}.mlp.fc1"), (_VIT + "down", "blocks.{block}.mlp.fc2"),
    ("norm", "norm"),
)  # fmt: skip
_OLD, _NEW = "encoder.layer.{block}.", "layers.{block}."
_VIT_HUGGING_FACE = (
    (_VIT + "attention_norm", f"{_OLD}layernorm_before|{_NEW}layernorm_before"),
    (_VIT + "norm", f"{_OLD}layernorm_after|{_NEW}layernorm_after"),
    (_VIT + "query", f"{_OLD}attention.attention.query|{_NEW}attention.q_proj"),
    (_VIT + "key", f"{_OLD}attention.attention.key|{_NEW}attention.k_proj"),
    (_VIT + "value", f"{_OLD}attention.attention.value|{_NEW}attention.v_proj"),
    (_VIT + "project", f"{_OLD}attention.output.dense|{_NEW}attention.o_proj"),
    (_VIT + "up", f"{_OLD}intermediate.dense|{_NEW}mlp.fc1"),
    (_VIT + "down", f"{_OLD}output.dense|{_NEW}mlp.fc2"),
    ("norm", "layernorm"),
)
_TIMM_PARTS = {"kernel": "patch_embed.proj.weight", "bias": "patch_embed.proj.bias",
               "positions": "pos_embed", "class": "cls_token", "distilled": "dist_token"}
_HUGGING_FACE_PARTS = {
    "kernel": "embeddings.patch_embeddings.projection.weight",
    "bias": "embeddings.patch_embeddings.projection.bias",
    "positions": "embeddings.position_embeddings", "class": "embeddings.cls_token",
    "distilled": "embeddings.distillation_token",
}  # fmt: skip
_VIT_HEAD = (*_HEAD, r"(pooler|cls_classifier|distillation_classifier)\..*",
             "embeddings.mask_token")

ORIGINS: tuple[TorchNames, ...] = (
    TorchNames("EfficientNet-PyTorch", r"efficientnet_lite\d", "_conv_stem.weight",
               _EFFICIENT_PYTORCH, (r"_fc\..*",), scaling="included", epsilon=1e-3,
               symmetric=False),
    TorchNames("timm", _EFFICIENT, "conv_stem.weight", _EFFICIENT_TIMM, _HEAD,
               architecture=r"(tf_)?efficientnet_(b\d|lite\d)"),
    TorchNames("torchvision", r"efficientnet_b[0-4]", "features.0.0.weight",
               _EFFICIENT_TORCHVISION, _HEAD),
    TorchNames("torchvision", r"efficientnet_b[5-7]", "features.0.0.weight",
               _EFFICIENT_TORCHVISION, _HEAD, epsilon=1e-3),
    TorchNames("transformers", r"efficientnet_b\d", "embeddings.convolution.weight",
               _EFFICIENT_HUGGING_FACE, _HEAD, "efficientnet.", epsilon=1e-3, symmetric=False),
    TorchNames("timm", "mobilenet_v2", "conv_stem.weight", _MOBILE_V2_TIMM, _HEAD,
               stages=(1, 2, 3, 4, 3, 3, 1), architecture=r"mobilenetv2_\d+"),
    TorchNames("torchvision", "mobilenet_v2", "features.0.0.weight", _MOBILE_V2_TORCHVISION, _HEAD),
    TorchNames("transformers", "mobilenet_v2", "conv_stem.first_conv.convolution.weight",
               _MOBILE_V2_HUGGING_FACE, _HEAD, "mobilenet_v2.", scaling="tf", epsilon=1e-3,
               symmetric=False),
    TorchNames("timm", "mobilenet_v3_large", "conv_stem.weight", _MOBILE_V3_TIMM,
               (*_HEAD, r"conv_head\..*"), stages=(1, 2, 3, 4, 2, 3),
               architecture=r"(tf_)?mobilenetv3_large_\d+"),
    TorchNames("timm", "mobilenet_v3_small", "conv_stem.weight", _MOBILE_V3_TIMM,
               (*_HEAD, r"conv_head\..*"), stages=(1, 2, 3, 2, 3),
               architecture=r"(tf_)?mobilenetv3_small_\d+"),
    TorchNames("torchvision", r"mobilenet_v3_(large|small)", "features.0.0.weight",
               _MOBILE_V3_TORCHVISION, _HEAD, epsilon=1e-3),
    TorchNames("timm or torchvision", r"resnet\d+", "layer1.0.conv1.weight", _RESNET_TIMM, _HEAD,
               strides=_RESNET_STRIDES),
    TorchNames("transformers", r"resnet\d+", "embedder.embedder.convolution.weight",
               _RESNET_HUGGING_FACE, _HEAD, "resnet.", strides=_RESNET_STRIDES),
    TorchNames("timm", r"convnext_\w+", "stem.0.weight", _CONVNEXT_TIMM, (r"head\.fc\..*",)),
    TorchNames("transformers", r"convnext_\w+", "embeddings.patch_embeddings.weight",
               _CONVNEXT_HUGGING_FACE, _HEAD, "convnext."),
    TorchNames("timm or torchvision", r"vgg\d\d", "features.0.weight",
               ((r"block(?P<stage>\d)_conv(?P<block>\d)", "features.{vgg}"),), _HEAD),
    TorchNames("timm", r"vit_\w+", "patch_embed.proj.weight", _VIT_TIMM, _VIT_HEAD,
               embedding=_TIMM_PARTS, scaling="tf"),
    TorchNames("timm", r"deit_\w+", "patch_embed.proj.weight", _VIT_TIMM, _VIT_HEAD,
               embedding=_TIMM_PARTS),
    TorchNames("transformers", r"vit_\w+", _HUGGING_FACE_PARTS["kernel"], _VIT_HUGGING_FACE,
               _VIT_HEAD, r"vit.", embedding=_HUGGING_FACE_PARTS, scaling="tf"),
    TorchNames("transformers", r"deit_\w+", _HUGGING_FACE_PARTS["kernel"], _VIT_HUGGING_FACE,
               _VIT_HEAD, r"(vit|deit).", embedding=_HUGGING_FACE_PARTS),
)  # fmt: skip


def origins_of(name: str) -> list[TorchNames]:
    """The tables for a base by its name."""
    stem = name.partition("@")[0]
    return [names for names in ORIGINS if re.fullmatch(names.bases, stem)]
