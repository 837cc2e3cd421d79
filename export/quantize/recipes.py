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
        weights: number type of the weights: "int8" (symmetric, a scale for each channel) or
            "float16".
        activations: number type of what layers hand on; "float32" for recipes that need no
            calibration.
        tool: the package that writes the file.
        input_dtype: "float32" or "uint8"; RGB 0..255 either way.
        output_dtype: "float32" or "uint8".
    """

    name: str
    format: str
    weights: str
    activations: str
    tool: str
    input_dtype: str = "float32"
    output_dtype: str = "float32"

    @property
    def calibrated(self) -> bool:
        """Whether the ranges of activations must be known."""
        return self.activations in ("int8", "int16", "uint8")

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
    Recipe("dynamic_int8", "tflite", "int8", "float32", _AI_EDGE),
    Recipe("int8", "tflite", "int8", "int8", _AI_EDGE, "uint8"),
    Recipe("int8_uint8_out", "tflite", "int8", "int8", _AI_EDGE, "uint8", "uint8"),
    Recipe("int8_int16_activations", "tflite", "int8", "int16", _AI_EDGE),
    Recipe("fp16", "onnx", "float16", "float16", _ONNXRUNTIME),
    Recipe("int8", "onnx", "int8", "uint8", _ONNXRUNTIME),
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
