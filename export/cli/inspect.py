"""The command inspect: what is in a .tflite or .onnx file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tl_keras.cli import options as opt
from tl_keras.cli.console import error_boundary, percent, show, show_json, table

if TYPE_CHECKING:
    from export.runtime.inspect import Inspected, Tensor

__all__ = ["inspect"]

_MOST = 12


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite or .onnx file.")],
    as_json: opt.AsJson = False,
    debug: opt.Debug = False,
) -> None:
    """Show what is in a .tflite or .onnx file.

    What it takes and gives, its operators, how much of it is quantized, its metadata and its
    labels. Nothing is run.

    Example:  tl-export inspect model.tflite
    """
    with error_boundary(debug):
        from export.runtime.inspect import inspect_model
        from tl_keras.reports.filters import size

        found = inspect_model(file)
        if as_json:
            show_json(dataclasses.asdict(found))
            return
        made = table(f"{file.name}: {found.format}, {size(found.bytes)}", "", "")
        made.columns[1].justify = "left"
        for side, tensors in (("input", found.inputs), ("output", found.outputs)):
            for tensor in tensors:
                made.add_row(side, _tensor(tensor))
        for row in _rows(found):
            made.add_row(*row)
        show(made)


def _tensor(tensor: Tensor) -> str:
    shape = " × ".join(str(side) for side in tensor.shape)
    scale = "" if tensor.scale is None else f", scale {tensor.scale:.6g}, zero {tensor.zero_point}"
    return f"{tensor.name}: {tensor.dtype} {shape}{scale}"


def _rows(found: Inspected) -> list[tuple[str, str]]:
    common = sorted(found.operators.items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{count} {name}" for name, count in common[:_MOST])
    more = f", {len(common) - _MOST} more kinds" if len(common) > _MOST else ""
    labels = ", ".join(found.labels[:_MOST]) or "none"
    others = len(found.labels) - _MOST
    return [
        ("operators", f"{sum(found.operators.values())}: {listed}{more}"),
        ("computed in whole numbers", f"{percent(found.quantized_operators)} of the operators"),
        ("weights", ", ".join(f"{count:,} {kind}" for kind, count in found.weights.items())),
        ("in 8 bits or less", f"{percent(found.quantized_weights)} of the weights"),
        *(("metadata", f"{key} {value}".strip()) for key, value in found.metadata.items()),
        ("labels", f"{labels}, {others} more" if others > 0 else labels),
    ]
