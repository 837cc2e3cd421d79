"""List the ways to write a model in smaller numbers, by names that tell all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_keras.errors import ExportError
from tl_keras.utils.suggest import did_you_mean

__all__ = ["FLOAT", "RECIPES", "Recipe", "choose_recipes", "find_recipe"]

FLOAT = "fp32"
_AI_EDGE, _ONNXRUNTIME = "ai-edge-quantizer", "onnxruntime"


@dataclass(frozen=True)
class Recipe:
    """How a float32 file becomes a smaller one.

    Attributes:
        name: what a user asks for.
        format: "tflite" or "onnx".
        weights: number type of the weights: "int8" or "int4" (symmetric, a scale for each
            channel) or "float16". Of "int4", those that no runtime has a kernel for (depthwise
            convolutions) are int8.
        activations: number type of what layers hand on; "float32" for recipes whose layers take
            and give floats.
        tool: the package that writes the file.
        input_dtype: "float32", "uint8" or "int8"; RGB 0..255 in the first two, 128 less in int8.
        output_dtype: "float32", "uint8" or "int8".
        block: how many weights in a row along the input share a scale; 0: all of a channel.
        method: how weights are rounded: "nearest"; "octav", with the clipping of least error
            (Sakr et al. 2022, arXiv 2206.06501); "gptq", each making up for those before it
            (Frantar et al. 2023, arXiv 2210.17323); "hadamard", rotated so that outliers spread.
        widened: whether weights become floats on loading, and all is computed in float: small to
            ship, no faster, and no rounding but the weights'.
        symmetric: whether zero is the middle of the activations' range, as TensorRT has it.
    """

    name: str
    format: str
    weights: str
    activations: str
    tool: str
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    block: int = 0
    method: str = "nearest"
    widened: bool = False
    symmetric: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether the ranges of activations must be known."""
        return self.activations in ("int8", "int16", "uint8")

    @property
    def fallback(self) -> str:
        """What the layers are written in that lose most: one size larger."""
        return "int8" if self.weights == "int4" else "float"

    @property
    def bits(self) -> int:
        """Bits of the whole numbers that activations are rounded to."""
        return 16 if self.activations == "int16" else 8

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"model-{self.name}.{self.format}"


RECIPES = (
    Recipe("fp16", "tflite", "float16", "float32", _AI_EDGE),
    Recipe("weight_int8", "tflite", "int8", "float32", _AI_EDGE, widened=True),
    Recipe("dynamic_int8", "tflite", "int8", "float32", _AI_EDGE),
    Recipe("int8", "tflite", "int8", "int8", _AI_EDGE, "uint8"),
    Recipe("int8_uint8_out", "tflite", "int8", "int8", _AI_EDGE, "uint8", "uint8"),
    Recipe("int8_in_out", "tflite", "int8", "int8", _AI_EDGE, "int8", "int8"),
    Recipe("int8_int16_activations", "tflite", "int8", "int16", _AI_EDGE),
    Recipe("int4", "tflite", "int4", "int8", _AI_EDGE, "uint8"),
    Recipe("int4_octav", "tflite", "int4", "int8", _AI_EDGE, "uint8", method="octav"),
    Recipe("int4_gptq", "tflite", "int4", "int8", _AI_EDGE, "uint8", method="gptq"),
    Recipe("dynamic_int4", "tflite", "int4", "float32", _AI_EDGE),
    Recipe("dynamic_int4_block32", "tflite", "int4", "float32", _AI_EDGE, block=32),
    Recipe("dynamic_int4_hadamard", "tflite", "int4", "float32", _AI_EDGE, method="hadamard"),
    Recipe("fp16", "onnx", "float16", "float16", _ONNXRUNTIME),
    Recipe("dynamic_int8", "onnx", "int8", "float32", _ONNXRUNTIME),
    Recipe("int8", "onnx", "int8", "uint8", _ONNXRUNTIME),
    Recipe("int8_uint8_in", "onnx", "int8", "uint8", _ONNXRUNTIME, "uint8"),
    Recipe("int8_symmetric", "onnx", "int8", "int8", _ONNXRUNTIME, symmetric=True),
    Recipe("weight_int8", "onnx", "int8", "float32", _ONNXRUNTIME, widened=True),
    Recipe("weight_int4_block32", "onnx", "int4", "float32", _ONNXRUNTIME, block=32, widened=True),
)


def find_recipe(name: str, format_: str) -> Recipe | None:
    """Find a recipe; None where the format has none of this name."""
    found = (one for one in RECIPES if (one.name, one.format) == (name, format_))
    return next(found, None)


def choose_recipes(names: Sequence[str], formats: Sequence[str]) -> tuple[list[Recipe], list[str]]:
    """Find the recipes of several formats.

    Args:
        names: what a user asked for; "fp32" is always made and may be among them.
        formats: the formats that are to be written.

    Returns:
        The recipes, format by format, and a note for each that one of the formats lacks.

    Raises:
        ExportError: if no format of those chosen has a recipe of a name.
    """
    wanted = [name for name in dict.fromkeys(names) if name != FLOAT]
    known = list(dict.fromkeys(one.name for one in RECIPES if one.format in formats))
    for name in wanted:
        if name not in known:
            raise ExportError(_unknown(name, known, formats))
    pairs = [(format_, name, find_recipe(name, format_)) for format_ in formats for name in wanted]
    notes = [f"{format_} has no recipe {name}: skipped." for format_, name, one in pairs if not one]
    return [one for _, _, one in pairs if one], notes


def _unknown(name: str, known: Sequence[str], formats: Sequence[str]) -> str:
    elsewhere = sorted({one.format for one in RECIPES if one.name == name})
    also = f" There is one for {', '.join(elsewhere)}." if elsewhere else ""
    return (
        f"Unknown recipe {name!r} for {', '.join(formats)}; expected some of: "
        f"{', '.join((FLOAT, *known))}.{did_you_mean(name, known, 2)}{also}"
    )
