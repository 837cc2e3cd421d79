"""How files that torch wrote name the tensors of the bases that are built here.

A table says, for each layer of the Keras graph, what the same layer is called there: the first
rule whose pattern matches the layer's whole name gives the prefix of its tensors. In it a group
of the pattern stands by its name: `{stage}`. A number or a letter counts from 1, or, as
`{stage0}`, from 0; `{flat}` is the number of the block `stage`, `block` in the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ORIGINS", "TorchNames"]

_BATCH_COUNTS = r".*\.num_batches_tracked"


@dataclass(frozen=True)
class TorchNames:
    """The names of one program for one family.

    Attributes:
        origin: The program, for messages.
        module: The `module` of the family's bases in the registry.
        sign: A tensor by which its files are told from those of other programs.
        rules: (pattern of a Keras layer's name, prefix of its tensors).
        left_out: Patterns of the tensors that a base does not have: the classifier.
    """

    origin: str
    module: str
    sign: str
    rules: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]

    def ignores(self) -> tuple[str, ...]:
        """Patterns of all tensors that are left out."""
        return (*self.left_out, _BATCH_COUNTS)


_LITE = "tl_keras.models.backbones.efficientnet_lite"
_BLOCK = r"block(?P<stage>\d)(?P<block>[a-z])_"

ORIGINS: tuple[TorchNames, ...] = (
    TorchNames(
        "EfficientNet-PyTorch", _LITE, "_conv_stem.weight",
        (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"),
         (_BLOCK + "expand_conv", "_blocks.{flat}._expand_conv"),
         (_BLOCK + "expand_bn", "_blocks.{flat}._bn0"),
         (_BLOCK + "dwconv", "_blocks.{flat}._depthwise_conv"),
         (_BLOCK + "bn", "_blocks.{flat}._bn1"),
         (_BLOCK + "project_conv", "_blocks.{flat}._project_conv"),
         (_BLOCK + "project_bn", "_blocks.{flat}._bn2"),
         ("top_conv", "_conv_head"), ("top_bn", "_bn1")),
        (r"_fc\..*",)),
)  # fmt: skip
