"""Quantize a .tflite file by AI Edge Quantizer.

It works on the file alone: no second conversion, the ranges may come from anywhere, and single
layers may stay in float. benchmarks/quantizers.py has its figures beside the converter's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.embedding import read_rows_by_lookup
from export.convert.tflite import find_code, name_inputs, set_end_types
from export.quantize.calibration import Observed, Ranges, collect
from export.quantize.recipes import Recipe
from export.runtime.runtimes import name_tensors
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer.quantizer import Quantizer

__all__ = ["list_layers", "observe", "quantize"]

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def observe(contents: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, Observed]:
    """Run a float file and watch every tensor that depends on the input.

    Args:
        contents: of the .tflite file.
        inputs: by name, (n, ...).

    Raises:
        ExportError: if a tensor holds NaN or infinity.
    """
    return collect(_run_all(contents, inputs))


def _run_all(
    contents: bytes, inputs: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    interpreter = _load(contents)
    taken = name_tensors(interpreter)
    watched = set(_list_changing(contents))
    details = [one for one in interpreter.get_tensor_details() if one["name"] in watched]
    details = [one for one in details if one["dtype"] == np.float32]
    for index in range(len(next(iter(inputs.values())))):
        for name, array in inputs.items():
            sample = array[index : index + 1].astype(taken[name]["dtype"])
            interpreter.set_tensor(taken[name]["index"], sample)
        interpreter.invoke()
        yield {one["name"]: interpreter.get_tensor(one["index"]) for one in details}


def _load(contents: bytes) -> Interpreter:
    import warnings

    from ai_edge_litert.interpreter import Interpreter

    with silenced(), warnings.catch_warnings():
        # That all tensors are kept costs memory, it says: they are what is wanted.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=contents, num_threads=2, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    return interpreter


def _read_graph(contents: bytes) -> tuple[Any, Any]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(contents))
    return model, model.subgraphs[0]


def _name(graph: Any, index: int) -> str:
    name = graph.tensors[index].name
    return name.decode() if isinstance(name, bytes) else name


def _list_changing(contents: bytes) -> list[str]:
    """Names of the tensors that are no constants."""
    _, graph = _read_graph(contents)
    made = [index for operator in graph.operators for index in operator.outputs]
    return [_name(graph, index) for index in (*graph.inputs, *made)]


def list_layers(contents: bytes) -> list[str]:
    """Names of the layers with weights, from input to output: those of their output tensors."""
    from ai_edge_litert.tools import flatbuffer_utils

    model, graph = _read_graph(contents)
    return [
        _name(graph, operator.outputs[0])
        for operator in graph.operators
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) in _WEIGHTED
    ]


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
        contents: of the float32 .tflite file.
        recipe: one for "tflite".
        ranges: for a recipe that is calibrated, the range of each changing tensor.
        keep: names of layers that stay in float; in int8, where the recipe's weights are int4.
        only: name of the one layer that is quantized; all by default.
        in_bytes: names of the inputs whose values are whole numbers 0..255.

    Returns:
        The contents of the new file. A uint8 input has scale 1 and zero point 0; a recipe that
        would take uint8 takes float32 where the values are no bytes.

    Raises:
        ExportError: if the quantizer cannot quantize the model.
    """
    shown = dict(ranges or {})
    if recipe.calibrated:
        model, graph = _read_graph(contents)
        places = name_inputs(model)
        shown |= {_name(graph, places[name]): (0.0, 255.0) for name in in_bytes if name in places}
    try:
        with silenced() as said:
            made = _apply(contents, recipe, shown, keep, only)
    # AI Edge Quantizer has no errors of its own: it raises these for what it cannot quantize, and
    # KeyError where it finds no range of a tensor.
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ExportError(
            f"The model cannot be quantized as {recipe.name}: {error}\n{said.last_lines()}"
        ) from error
    taken = {} if recipe.input_dtype == "float32" else dict.fromkeys(in_bytes, recipe.input_dtype)
    return set_end_types(made, taken, recipe.output_dtype)


def _apply(
    contents: bytes, recipe: Recipe, ranges: Ranges, keep: Sequence[str], only: str | None
) -> bytes:
    import warnings

    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    if recipe.block or recipe.method == "hadamard":
        contents = _write_pointwise_as_products(contents)
    if recipe.weights != "float16":
        contents = read_rows_by_lookup(contents)
    made = quantizer.Quantizer(contents)
    _choose(made, recipe, _match_scope(only) if only else ".*")
    for name in _list_blocked(contents, recipe.block) if recipe.block else ():
        if only in (None, name):
            _choose_blocks(made, recipe.block, _match_scope(name))
    for name in keep:
        if recipe.fallback == "int8":
            _choose(made, replace(recipe, weights="int8"), _match_scope(name))
        else:
            _keep(made, _match_scope(name), Operation.ALL_SUPPORTED)
    # What a lookup gives is what the operator gave that it stands for.
    ranges = {**ranges, **{f"{name}_rows": ends for name, ends in ranges.items()}}
    shown = {name: _as_seen(*ends) for name, ends in ranges.items()}
    with warnings.catch_warnings():
        # About an interpreter that keeps its tensors.
        warnings.simplefilter("ignore")
        result = made.quantize(shown or None, enable_progress_report=False)
    return bytes(result.quantized_model)


def _as_seen(low: float, high: float) -> dict[str, np.ndarray]:
    return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}


def _keep(made: Quantizer, where: str, operation: Any) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    made.update_quantization_recipe(where, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _match_scope(name: str) -> str:
    return f"^{re.escape(name)};"


def _choose(made: Quantizer, recipe: Recipe, scope: str) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    if recipe.weights == "float16" or recipe.widened:
        half, nearest = AlgorithmName.FLOAT_CASTING, AlgorithmName.MIN_MAX_UNIFORM_QUANT
        bits, method = (8, nearest) if recipe.widened else (16, half)
        for name in _WEIGHTED:
            made.add_weight_only_config(scope, Operation[name], bits, algorithm_key=method)
        if recipe.widened:
            made.add_dynamic_config(scope, Operation.EMBEDDING_LOOKUP, 8)
        return
    if recipe.calibrated:
        made.add_static_config(scope, Operation.ALL_SUPPORTED, recipe.bits, 8)
        if recipe.output_dtype == "float32":
            # Steps of 1/256 make ties of probabilities, and zeros of small ones.
            _keep(made, scope, Operation.SOFTMAX)
        for end in (Operation.INPUT, Operation.OUTPUT):
            _keep(made, ".*", end)
    else:
        made.add_dynamic_config(scope, Operation.ALL_SUPPORTED, 8)
    if recipe.weights == "int4":
        _choose_int4(made, recipe, scope)


def _choose_int4(made: Quantizer, recipe: Recipe, scope: str) -> None:
    """Take 4 bits where there are kernels for them; other operators keep 8."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    methods = {
        "octav": AlgorithmName.OCTAV, "hadamard": AlgorithmName.DECOMPOSED_HADAMARD_ROTATION,
    }  # fmt: skip
    method = methods.get(recipe.method, AlgorithmName.MIN_MAX_UNIFORM_QUANT)
    if recipe.calibrated:
        for name in (Operation.CONV_2D, Operation.FULLY_CONNECTED):
            made.add_static_config(scope, name, recipe.bits, 4, algorithm_key=method)
        return
    for name in (Operation.CONV_2D, Operation.FULLY_CONNECTED):
        # Rotations are known for products alone.
        plain = name is Operation.CONV_2D and recipe.method == "hadamard"
        chosen = AlgorithmName.MIN_MAX_UNIFORM_QUANT if plain else method
        made.add_dynamic_config(scope, name, 4, algorithm_key=chosen)


def _choose_blocks(made: Quantizer, block: int, scope: str) -> None:
    from ai_edge_quantizer.qtyping import QuantGranularity
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    grain = QuantGranularity[f"BLOCKWISE_{block}"]
    made.add_dynamic_config(scope, Operation.FULLY_CONNECTED, 4, grain)


def _list_blocked(contents: bytes, block: int) -> list[str]:
    """Names of the fully connected layers whose inputs are whole blocks."""
    from ai_edge_litert.tools import flatbuffer_utils

    model, graph = _read_graph(contents)
    return [
        _name(graph, operator.outputs[0])
        for operator in graph.operators
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) == "FULLY_CONNECTED"
        and graph.tensors[operator.inputs[1]].shape[-1] % block == 0
    ]


def _write_pointwise_as_products(contents: bytes) -> bytes:
    """Make fully connected layers of 1x1 convolutions, as which they give the same.

    Blocks and rotations are known for those alone.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model, graph = _read_graph(contents)
    product = find_code(model, schema.BuiltinOperator.FULLY_CONNECTED)
    for operator in graph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        if kind != "CONV_2D" or not _is_pointwise(graph, operator):
            continue
        kernel = graph.tensors[operator.inputs[1]]
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
        options.keepNumDims = True
        operator.opcodeIndex, operator.builtinOptions = product, options
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        kernel.shape = [kernel.shape[0], kernel.shape[3]]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _is_pointwise(graph: Any, operator: Any) -> bool:
    options, kernel = operator.builtinOptions, operator.inputs[1]
    steps = (options.strideH, options.strideW, *graph.tensors[kernel].shape[1:3])
    readers = [one for one in graph.operators if kernel in list(one.inputs)]
    return all(step == 1 for step in steps) and len(readers) == 1
