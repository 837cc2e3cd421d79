"""Rewrite how a .tflite file looks up rows of a table, so that the table can be int8.

The converter writes an embedding as GATHER, whose table AI Edge Quantizer leaves in float: half
and more of a text encoder. EMBEDDING_LOOKUP has a kernel that reads rows of int8 with a scale each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.convert.tflite import find_code

__all__ = ["read_rows_by_lookup"]


def read_rows_by_lookup(contents: bytes) -> bytes:
    """Write each GATHER of a constant table's rows as EMBEDDING_LOOKUP, which gives the same.

    Args:
        contents: of a float32 .tflite file.

    Returns:
        The contents of the new file; the same ones where there is no such operator. What NAME was
        is reshaped from NAME_rows.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(contents))
    graph = model.subgraphs[0]
    gather = schema.BuiltinOperator.GATHER
    found = [
        operator for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == gather
        and _reads_rows(model, graph, operator)
    ]  # fmt: skip
    if not found:
        return contents
    lookup = find_code(model, schema.BuiltinOperator.EMBEDDING_LOOKUP)
    for operator in found:
        table, ids = operator.inputs[0], operator.inputs[1]
        rows = operator.outputs[0]
        count, width = int(np.prod(graph.tensors[ids].shape)), graph.tensors[table].shape[1]
        flat = _add_tensor(graph, b"_flat", graph.tensors[ids], [count])
        taken = _add_tensor(graph, b"_rows", graph.tensors[rows], [count, width])
        place = graph.operators.index(operator)
        shape = list(graph.tensors[rows].shape)
        before = _reshape(model, graph, ids, flat, [count])
        after = _reshape(model, graph, taken, rows, shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = lookup, [flat, table], [taken]
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        graph.operators[place : place + 1] = [before, operator, after]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _reads_rows(model: Any, graph: Any, operator: Any) -> bool:
    from ai_edge_litert.schema_py_generated import TensorType

    table, ids = (graph.tensors[place] for place in operator.inputs[:2])
    constant = model.buffers[table.buffer].data is not None
    options = operator.builtinOptions
    plain = options.axis == 0 and not options.batchDims
    kinds = (table.type, ids.type) == (TensorType.FLOAT32, TensorType.INT32)
    return constant and plain and kinds and len(table.shape) == 2 and min(ids.shape) > 0


def _add_tensor(graph: Any, ending: bytes, like: Any, shape: list[int]) -> int:
    from ai_edge_litert import schema_py_generated as schema

    made = schema.TensorT()
    name = like.name if isinstance(like.name, bytes) else like.name.encode()
    made.name, made.shape, made.type, made.buffer = name + ending, shape, like.type, 0
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _reshape(model: Any, graph: Any, source: int, target: int, shape: list[int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    wanted = schema.TensorT()
    wanted.name, wanted.shape = b"shape_of_" + graph.tensors[target].name, [len(shape)]
    wanted.type, wanted.buffer = schema.TensorType.INT32, len(model.buffers)
    held = schema.BufferT()
    held.data = np.frombuffer(np.array(shape, np.int32).tobytes(), np.uint8)
    model.buffers.append(held)
    graph.tensors.append(wanted)
    made, options = schema.OperatorT(), schema.ReshapeOptionsT()
    made.opcodeIndex = find_code(model, schema.BuiltinOperator.RESHAPE)
    made.inputs, made.outputs = [source, len(graph.tensors) - 1], [target]
    options.newShape = shape
    made.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    made.builtinOptions = options
    return made
