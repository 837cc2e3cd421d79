"""What goes into a model and what comes out: the shapes that every format needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_keras.errors import ExportError

if TYPE_CHECKING:
    import keras

__all__ = ["INPUT", "OUTPUT", "Signature", "signature"]

INPUT = "image"
OUTPUT = "probabilities"


@dataclass(frozen=True)
class Signature:
    """One input, one output.

    Attributes:
        shape: of one picture, (height, width, 3); float32, RGB, values 0..255.
        outputs: numbers that come out for one picture.
    """

    shape: tuple[int, ...]
    outputs: int

    @property
    def size(self) -> int:
        """Side of the square picture in pixels.

        Raises:
            ExportError: if the input is no square picture.
        """
        if len(self.shape) != 3 or self.shape[0] != self.shape[1]:
            raise ExportError(f"The model takes {self.shape}; expected a square, (size, size, 3).")
        return self.shape[0]


def signature(model: keras.Model) -> Signature:
    """Read the shapes of a model.

    Raises:
        ExportError: if it has several inputs or outputs, an open dimension besides the batch,
            or an output that is not one row of numbers a picture.
    """
    inputs, outputs = model.inputs, model.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(
            f"The model has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each."
        )
    taken, given = tuple(inputs[0].shape[1:]), tuple(outputs[0].shape[1:])
    if None in taken or None in given:
        raise ExportError(
            f"The model takes {taken} and gives {given}, open sizes included; "
            "build it for one size, such as 224, to export it."
        )
    if len(given) != 1:
        raise ExportError(f"The model gives {given} for one picture; expected one row of numbers.")
    return Signature(taken, int(given[0]))
