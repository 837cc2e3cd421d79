"""From a float32 file to a smaller one, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.quantize import onnx as onnx_quantize
from export.quantize import tflite as tflite_quantize
from export.quantize.ranges import Ranges, Seen
from export.quantize.recipes import Recipe

__all__ = ["TOOLS", "Tool", "quantize"]


@dataclass(frozen=True)
class Tool:
    """What quantizes the files of one format.

    Attributes:
        seen: (contents, pictures) → what each tensor held.
        layers: contents → names of the layers with weights, from input to output.
        quantize: (contents, recipe, ranges, keep=names of layers to keep in float, only=name of
            the one layer to quantize) → contents.
    """

    seen: Callable[[bytes, np.ndarray], dict[str, Seen]]
    layers: Callable[[bytes], list[str]]
    quantize: Callable[..., bytes]


TOOLS: Mapping[str, Tool] = {
    "tflite": Tool(tflite_quantize.seen, tflite_quantize.layers, tflite_quantize.quantize),
    "onnx": Tool(onnx_quantize.seen, onnx_quantize.layers, onnx_quantize.quantize),
}


def quantize(
    contents: bytes, recipe: Recipe, ranges: Ranges | None = None, keep: Sequence[str] = ()
) -> bytes:
    """Quantize a float32 file.

    Args:
        contents: of the file, in the recipe's format.
        recipe: what to make of it.
        ranges: for a recipe that is calibrated, the range of each tensor.
        keep: names of layers that stay in float.

    Returns:
        The contents of the new file.

    Raises:
        ExportError: if the format's tool cannot quantize the model.
    """
    return TOOLS[recipe.format].quantize(contents, recipe, ranges, keep)
