"""Quantize an .onnx file by ONNX Runtime's own tools.

Integers are written as QDQ: a pair of QuantizeLinear and DequantizeLinear around what is rounded,
which the runtime fuses. Activations are uint8 and weights int8 with a scale for each channel, the
pair that its kernels for x86 and ARM are made for; benchmarks/quantizers.py compares others.
Weights of 4 bits stand before a DequantizeLinear of their own: smaller files, computed in float.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
_INT4_OPSET = 21  # the first whose DequantizeLinear knows int4 and blocks
_TINY = 1e-12
_STEP, _LEAST = "tl_keras_step", "tl_keras_least"
_ROW_NUMBERS = {_STEP: np.float32(1 / 255), _LEAST: np.float32(_TINY)}
_SMALL_TABLE = 4096  # numbers: fewer are not worth two more operators
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
        keep: names of nodes that stay in float; in int8, where the recipe's weights are int4.
        only: name of the one node that is rounded to integers; all by default.
        in_bytes: names of the inputs whose values are whole numbers 0..255.

    Returns:
        The contents of the new file; it gives float32.

    Raises:
        ExportError: if the quantizer cannot quantize the model.
    """
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.onnx_model import ONNXModel

    try:
        with silenced() as said:
            if recipe.calibrated:
                whole = dict.fromkeys(in_bytes, (0.0, 255.0))
                made = _round(prepare(contents), recipe, {**(ranges or {}), **whole}, keep, only)
            elif recipe.weights == "float16":
                made = _halve(onnx.load_from_string(contents), keep)
            else:
                made = prepare(contents)
                if recipe.weights == "int4":
                    made = version_converter.convert_version(made, _INT4_OPSET)
                bits = _choose_bits(made, recipe, keep, only)
                _narrow_tables(made)
                if not recipe.widened:
                    _multiply_in_int8(made, bits)
                _narrow(made, bits, recipe.block)
            if recipe.input_dtype == "uint8":
                _take_uint8(made, in_bytes)
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

    made = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(keep) or None)
    # A constant that several operators take which stay in float is cast for each, by one name.
    known: set[str] = set()
    for node in list(made.graph.node):
        if node.op_type == "Cast" and node.output[0] in known:
            made.graph.node.remove(node)
        known.update(node.output)
    return made


def _round(
    model: onnx.ModelProto,
    recipe: Recipe,
    ranges: Ranges,
    keep: Sequence[str],
    only: str | None,
) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
        tensors_range=_as_data(ranges),
        nodes_to_quantize=[only] if only else [],
        nodes_to_exclude=list(keep),
        op_types_to_quantize=list(_ROUNDED),
        # TensorRT wants zero in the middle, and refuses biases in int32.
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False}
        if recipe.symmetric
        else {},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _multiply_in_int8(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Round what goes into products as it comes, and their weights beforehand.

    Each row (a token) has a scale of its own, as each output channel of the weights has.
    DynamicQuantizeLinear knows one for a whole batch: an answer would depend on what else is in it.
    Convolutions are left to be stored in int8 and computed in float.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    rounded: set[str] = set()
    for place, node in reversed(list(enumerate(graph.node))):
        weights = constants.get(node.input[1]) if _is_plain_product(node, names) else None
        if weights is None or len(weights.dims) != 2:
            continue
        taken, given = _find_axes(node, 2)
        values = numpy_helper.to_array(weights)
        whole, scale = _round_blocks(values, taken, given, 0, 8)
        name, x, bias = node.name, node.input[0], list(node.input[2:])
        whole = whole if taken == 0 else whole.T
        graph.initializer.extend([
            numpy_helper.from_array(np.ascontiguousarray(whole), f"{name}_whole"),
            numpy_helper.from_array(scale, f"{name}_scale"),
            numpy_helper.from_array(np.float32(whole.sum(axis=0) * scale), f"{name}_total"),
        ])  # fmt: skip
        product = f"{name}_product" if bias else node.output[0]
        made: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("MatMulInteger", [f"{x}_whole", f"{name}_whole"], f"{name}_sums", {}),
            ("Cast", [f"{name}_sums"], f"{name}_float", {"to": 1}),
            ("Mul", [f"{name}_float", f"{x}_scale"], f"{name}_rows", {}),
            ("Mul", [f"{name}_rows", f"{name}_scale"], f"{name}_above", {}),
            ("Mul", [f"{x}_low", f"{name}_total"], f"{name}_below", {}),
            ("Add", [f"{name}_above", f"{name}_below"], product, {}),
        ]
        if bias:
            made.append(("Add", [product, *bias], node.output[0], {}))
        if x not in rounded:
            rounded.add(x)
            made = [*_round_rows(x), *made]
        graph.node.remove(node)
        for kind, inputs, output, options in reversed(made):
            graph.node.insert(
                place, helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **options))
    if rounded:
        for name, value in _ROW_NUMBERS.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        read = {name for node in graph.node for name in node.input}
        for one in [one for one in graph.initializer if one.name not in read]:
            graph.initializer.remove(one)


def _is_plain_product(node: onnx.NodeProto, names: Collection[str]) -> bool:
    options = {one.name: one.f if one.type == 1 else one.i for one in node.attribute}
    plain = options.get("alpha", 1) == options.get("beta", 1) == 1 and not options.get("transA")
    return node.name in names and node.op_type in ("MatMul", "Gemm") and plain


def _round_rows(x: str) -> list[tuple[str, list[str], str, dict[str, Any]]]:
    """Return the operators that make uint8 of a tensor: low + scale * whole, row by row."""
    ends = {"axes": [-1], "keepdims": 1}
    return [
        ("ReduceMin", [x], f"{x}_low", ends),
        ("ReduceMax", [x], f"{x}_high", ends),
        ("Sub", [f"{x}_high", f"{x}_low"], f"{x}_range", {}),
        ("Mul", [f"{x}_range", _STEP], f"{x}_step", {}),
        ("Max", [f"{x}_step", _LEAST], f"{x}_scale", {}),
        ("Sub", [x, f"{x}_low"], f"{x}_above", {}),
        ("Div", [f"{x}_above", f"{x}_scale"], f"{x}_steps", {}),
        ("Round", [f"{x}_steps"], f"{x}_rounded", {}),
        ("Cast", [f"{x}_rounded"], f"{x}_whole", {"to": 2}),
    ]


def _narrow_tables(model: onnx.ModelProto) -> None:
    """Store tables of which rows are taken in int8, with a scale for each row.

    A row is widened after it was taken: Gather, Cast, Mul.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in list(graph.node):
        plain = node.op_type == "Gather" and not any(one.i for one in node.attribute)
        table = constants.get(node.input[0]) if plain else None
        if table is None or len(table.dims) != 2 or readers[table.name] > 1:
            continue
        values = numpy_helper.to_array(table)
        if values.dtype != np.float32 or values.size < _SMALL_TABLE:
            continue
        whole, scale = _round_blocks(values, 1, 0, 0, 8)
        name, rows = table.name, node.output[0]
        graph.initializer.remove(table)
        graph.initializer.extend([
            numpy_helper.from_array(whole, f"{name}_whole"),
            numpy_helper.from_array(scale[:, np.newaxis], f"{name}_scale"),
        ])  # fmt: skip
        node.input[0], node.output[0] = f"{name}_whole", f"{rows}_whole"
        scales = helper.make_node(
            "Gather", [f"{name}_scale", node.input[1]], [f"{rows}_scale"], name=f"{name}_scales")
        wide = helper.make_node(
            "Cast", [f"{rows}_whole"], [f"{rows}_wide"], name=f"{name}_cast", to=1)
        scaled = helper.make_node(
            "Mul", [f"{rows}_wide", f"{rows}_scale"], [rows], name=f"{name}_widened")
        graph.node.extend([scales, wide, scaled])


def _as_data(ranges: Mapping[str, tuple[float, float]]) -> object:
    from onnxruntime.quantization import CalibrationMethod, TensorData, TensorsData

    made = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, made)


def _choose_bits(
    model: onnx.ModelProto, recipe: Recipe, keep: Sequence[str], only: str | None
) -> dict[str, int]:
    """Bits of the weights of each node that has some; those to keep get one size more."""
    names = [node.name for node in model.graph.node if node.op_type in _WEIGHTED]
    names = [name for name in names if only in (None, name)]
    if recipe.weights == "int8":
        return dict.fromkeys((name for name in names if name not in keep), 8)
    return {name: 8 if name in keep else 4 for name in names}


def _narrow(model: onnx.ModelProto, bits: Mapping[str, int], block: int = 0) -> None:
    """Store the weights of nodes in few bits, before a DequantizeLinear of their own.

    Of 4 bits, a scale for each block along the input, where there is more than one; a depthwise
    convolution has one input a channel, and gets 8. What is shared by nodes stays.
    """
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    made = []
    for node in (one for one in graph.node if one.name in bits and len(one.input) > 1):
        name = node.input[1]
        if name not in constants or readers[name] > 1:
            continue
        weights = numpy_helper.to_array(constants[name])
        taken, given = _find_axes(node, weights.ndim)
        narrow = bits[node.name] == 4 and weights.shape[taken] > 1
        along = block if narrow and weights.shape[taken] > block else 0
        whole, scale = _round_blocks(weights, taken, given, along, 4 if narrow else 8)
        graph.initializer.remove(constants[name])
        graph.initializer.extend(_store(name, whole, scale, narrow))
        options = {"axis": taken, "block_size": along} if along else {"axis": given}
        inputs = [f"{name}_whole", f"{name}_scale"]
        made.append(onnx.helper.make_node(
            "DequantizeLinear", inputs, [name], name=f"{name}_widened", **options
        ))  # fmt: skip
    for node in reversed(made):
        graph.node.insert(0, node)


def _find_axes(node: onnx.NodeProto, rank: int) -> tuple[int, int]:
    """Axes of a node's weights that count what is taken in and what is given."""
    if node.op_type == "Conv":
        return 1, 0
    turned = any(one.name == "transB" and one.i for one in node.attribute)
    return (1, 0) if turned else (rank - 2, rank - 1)


def _round_blocks(
    weights: np.ndarray, taken: int, given: int, block: int, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Round to whole numbers: them, and the scales of each block or channel."""
    largest, size = 2 ** (bits - 1) - 1, np.abs(weights)
    if not block:
        others = tuple(axis for axis in range(weights.ndim) if axis != given)
        scale = np.maximum(size.max(axis=others) / largest, _TINY)
        shape = [-1 if axis == given else 1 for axis in range(weights.ndim)]
        spread = scale.reshape(shape)
    else:
        starts = np.arange(0, weights.shape[taken], block)
        scale = np.maximum(np.maximum.reduceat(size, starts, axis=taken) / largest, _TINY)
        spread = np.repeat(scale, block, axis=taken).take(
            np.arange(weights.shape[taken]), axis=taken
        )
    whole = np.clip(np.rint(weights / spread), -largest, largest)
    return whole.astype(np.int8), scale.astype(np.float32)


def _store(
    name: str, whole: np.ndarray, scale: np.ndarray, narrow: bool
) -> list[onnx.TensorProto]:
    import ml_dtypes
    from onnx import numpy_helper

    values = whole.astype(ml_dtypes.int4) if narrow else whole
    return [numpy_helper.from_array(values, f"{name}_whole"),
            numpy_helper.from_array(scale, f"{name}_scale")]  # fmt: skip


def _take_uint8(model: onnx.ModelProto, in_bytes: Collection[str]) -> None:
    """Let inputs be uint8: in place of what rounds them, whose scale is 1, or before a cast."""
    import onnx

    graph = model.graph
    for entry in (one for one in graph.input if one.name in in_bytes):
        entry.type.tensor_type.elem_type = onnx.TensorProto.UINT8
        readers = [node for node in graph.node if entry.name in node.input]
        cast = f"{entry.name}_as_float"
        for node in readers:
            if node.op_type == "QuantizeLinear":
                _replace_input(graph, node.output[0], entry.name)
                graph.node.remove(node)
            else:
                _replace_input(graph, entry.name, cast, node)
        if any(cast in node.input for node in graph.node):
            made = onnx.helper.make_node(
                "Cast", [entry.name], [cast], name=cast, to=onnx.TensorProto.FLOAT
            )
            graph.node.insert(0, made)


def _replace_input(
    graph: onnx.GraphProto, old: str, new: str, only: onnx.NodeProto | None = None
) -> None:
    for node in graph.node if only is None else [only]:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
