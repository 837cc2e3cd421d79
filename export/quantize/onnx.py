"""Quantize an .onnx file by ONNX Runtime's own tools.

Integers are written as QDQ: a pair of QuantizeLinear and DequantizeLinear around what is rounded,
which the runtime fuses. Activations are uint8 and weights int8 with a scale for each channel, the
pair that its kernels for x86 and ARM are made for; benchmarks/quantizers.py compares others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.quantize.calibration import Observed, Ranges, collect
from export.quantize.recipes import Recipe
from export.runtime.runtimes import ONNX_TYPES
from tl_keras.errors import ExportError
from tl_keras.models.onnx_graph import drop_unused_opsets
from tl_keras.utils.quiet import silenced

if TYPE_CHECKING:
    import onnx

__all__ = ["list_layers", "observe", "quantize"]

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BATCH = 8
# What is not among them is left in float: it gains nothing there, or has no integer kernel.
_ROUNDED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "ReduceMean", "Relu", "Reshape", "Sigmoid",
    "Squeeze", "Transpose",
)  # fmt: skip


def prepare(contents: bytes) -> onnx.ModelProto:
    """Fold constants and batch normalisation, infer shapes: what a quantizer should see.

    Raises:
        ExportError: if the file cannot be read.
    """
    import onnx
    from onnxruntime.quantization import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="tl_keras-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(contents)
        try:
            with silenced():
                quant_pre_process(str(before), str(after), skip_symbolic_shape=True)
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"The .onnx file cannot be prepared: {error}") from error
        return onnx.load(after)


def observe(contents: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, Observed]:
    """Run a float file and watch every tensor that depends on the input.

    Args:
        contents: of the .onnx file.
        inputs: by name, (n, ...).

    Raises:
        ExportError: if a tensor holds NaN or infinity.
    """
    return collect(_run_all(prepare(contents), inputs))


def _run_all(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    import onnxruntime

    names = _watch(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Fused, some tensors would never exist.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = {one.name: ONNX_TYPES[one.type] for one in session.get_inputs()}
    for start in range(0, len(next(iter(inputs.values()))), _BATCH):
        batch: dict[str, np.ndarray] = {
            name: array[start : start + _BATCH].astype(kinds[name])
            for name, array in inputs.items()
        }
        values = session.run(list(names), batch)
        floats = {name: array for name, array in batch.items() if array.dtype.kind == "f"}
        yield {**floats, **dict(zip(names, values, strict=True))}
        del values


def _watch(model: onnx.ModelProto) -> list[str]:
    """Make every float tensor an output, and name them all, the input first."""
    import onnx

    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    floats = [
        name
        for name, info in known.items()
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(known[name] for name in floats if name not in present)
    return floats


def list_layers(contents: bytes) -> list[str]:
    """Names of the nodes with weights, from input to output."""
    return [node.name for node in prepare(contents).graph.node if node.op_type in _WEIGHTED]


def quantize(
    contents: bytes,
    recipe: Recipe,
    ranges: Ranges | None = None,
    keep: Sequence[str] = (),
    only: str | None = None,
    in_bytes: Collection[str] = ("image",),
) -> bytes:
    """Quantize a float file.

    Args:
        contents: of the float32 .onnx file.
        recipe: one for "onnx".
        ranges: for a recipe that is calibrated, the range of each tensor.
        keep: names of nodes that stay in float.
        only: name of the one node that is rounded to integers; all by default.
        in_bytes: names of the inputs whose values are whole numbers 0..255.

    Returns:
        The contents of the new file; it takes and gives float32.

    Raises:
        ExportError: if the quantizer cannot quantize the model.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    try:
        with silenced() as said:
            if recipe.calibrated:
                whole = dict.fromkeys(in_bytes, (0.0, 255.0))
                made = _round(prepare(contents), {**(ranges or {}), **whole}, keep, only)
            else:
                made = _halve(onnx.load_from_string(contents), keep)
            ONNXModel(made).topological_sort()
            _clear_traces(made)
            onnx.checker.check_model(made)
    except (ValueError, RuntimeError, KeyError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"The model cannot be quantized as {recipe.name}: {error}\n{said.last_lines()}"
        ) from error
    return made.SerializeToString()


def _clear_traces(model: onnx.ModelProto) -> None:
    """Take out what the tools write about themselves, and operators that the file has none of."""
    model.producer_name, model.producer_version = "tl_keras", ""
    for entry in list(model.metadata_props):
        if entry.key.startswith("onnx."):
            model.metadata_props.remove(entry)
    drop_unused_opsets(model)


def _halve(model: onnx.ModelProto, keep: Sequence[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True, node_block_list=list(keep) or None)


def _round(
    model: onnx.ModelProto, ranges: Ranges, keep: Sequence[str], only: str | None
) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=_as_data(ranges),
        nodes_to_quantize=[only] if only else [],
        nodes_to_exclude=list(keep),
        op_types_to_quantize=list(_ROUNDED),
        extra_options={},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _as_data(ranges: Mapping[str, tuple[float, float]]) -> object:
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData

    made = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, made)
