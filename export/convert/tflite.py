"""Convert a Keras model to a TensorFlow Lite file in float32, and retype the ends of such files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from export.source import Signature, read_signature
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["ENDPOINT", "add_unread_inputs", "convert", "convert_ends", "find_code", "name_inputs",
           "set_end_types"]

ENDPOINT = "serving_default"
_SHIFT = 128  # from int8 to uint8


def convert(
    model: keras.Model,
    signature: Signature | None = None,
    configure: Callable[[Any], None] | None = None,
) -> bytes:
    """Convert a model with its weights in float32.

    The way is over a SavedModel with one signature for batches of one sample, inputs and output
    by their names: constants are folded and batch normalisation is merged into the convolutions,
    and a device may address all tensors by name.

    Args:
        model: functional, with one output (n, outputs). A model of tf_keras serves as well.
        signature: what goes in and comes out; read from the model by default.
        configure: sets options of the `tf.lite.TFLiteConverter` before it converts.

    Returns:
        The contents of the .tflite file.

    Raises:
        ExportError: if the model's shapes are not fixed, or it has an operation that
            TensorFlow Lite does not know.
    """
    signature = signature or read_signature(model)
    return convert_ends(model, list(signature.inputs), [signature.output], configure)


def convert_ends(
    model: keras.Model,
    inputs: Sequence[str],
    outputs: Sequence[str],
    configure: Callable[[Any], None] | None = None,
) -> bytes:
    """Convert a model with its weights in float32, of any number of outputs.

    Args:
        model: functional. A model of tf_keras serves as well.
        inputs: names by which the inputs are addressed, in the model's order.
        outputs: the same of the outputs.
        configure: sets options of the `tf.lite.TFLiteConverter` before it converts.

    Raises:
        ExportError: as `convert` does.
    """
    start_tensorflow()
    with tempfile.TemporaryDirectory(prefix="tl_keras-") as folder:
        try:
            with silenced() as said:
                _save(model, inputs, outputs, folder)
                return _convert_saved(folder, configure)
        except Exception as error:
            raise ExportError(
                f"{model.name} cannot be converted to TensorFlow Lite: {error}\n{said.last_lines()}"
            ) from error


def _save(
    model: keras.Model, inputs: Sequence[str], outputs: Sequence[str], folder: str
) -> None:
    """Write a SavedModel of the function and its variables alone: half the time of Keras' own."""
    import keras
    import tensorflow as tf

    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, inputs, strict=True)
    ]

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        given = keras.tree.pack_sequence_as(model.input, tensors)
        made = keras.tree.flatten(model(given, training=False))
        return {name: tf.cast(one, tf.float32) for name, one in zip(outputs, made, strict=True)}

    holder = tf.Module()
    # A variable of Keras 3 holds one of TensorFlow, a variable of Keras 2 is one.
    holder.kept = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    serving = tf.function(serve, input_signature=specs)
    tf.saved_model.save(holder, folder, signatures={ENDPOINT: serving})


def _convert_saved(folder: str, configure: Callable[[Any], None] | None) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        os.fspath(folder), signature_keys=[ENDPOINT]
    )
    if configure is not None:
        configure(converter)
    return converter.convert()


def set_end_types(contents: bytes, taken: Mapping[str, str], output_dtype: str) -> bytes:
    """Let a quantized file take bytes as they are or give bytes, and add int16 by any scale.

    Args:
        contents: of a .tflite file whose ends are in float32.
        taken: for each input that becomes bytes: "uint8", values 0..255, or "int8", 128 less;
            the scale is 1.
        output_dtype: "float32", or "uint8" or "int8" with the scale of the last int8 tensor.

    Raises:
        ExportError: if bytes shall come out of a model whose last layer is in float.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(contents))
    for name, tensor in name_inputs(model).items():
        if name in taken:
            _take_bytes(model, tensor, taken[name])
    if output_dtype != "float32":
        _give_bytes(model, output_dtype)
    for operator in model.subgraphs[0].operators:
        # Sums of int16 are refused otherwise, unless every scale is a power of two.
        if hasattr(operator.builtinOptions, "potScaleInt16"):
            operator.builtinOptions.potScaleInt16 = False
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def add_unread_inputs(contents: bytes, names: Sequence[str]) -> bytes:
    """Give a file more inputs like its first, which it does not read.

    Some readers insist on more than a model needs. The signature stays: who calls a file by it
    sees nothing of them.

    Args:
        contents: of a .tflite file.
        names: of the tensors that are added behind the inputs that are there.
    """
    import copy

    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(contents))
    graph = model.subgraphs[0]
    for name in names:
        made = copy.copy(graph.tensors[graph.inputs[0]])
        made.name = name.encode()
        graph.tensors.append(made)
        graph.inputs = [*graph.inputs, len(graph.tensors) - 1]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def name_inputs(model: Any) -> dict[str, int]:
    """Return by an input's name which tensor it is.

    Args:
        model: a FlatBuffer as an object, with one signature.
    """
    pairs = model.signatureDefs[0].inputs
    return {_decode(pair.name): int(pair.tensorIndex) for pair in pairs}


def _decode(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _take_bytes(model: Any, source: int, kind: str) -> None:
    """Retype an input; what rounded floats to int8 then only shifts. Else insert what widens."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    tensor, readers = graph.tensors[source], _readers(graph, source)
    quantizer = find_code(model, schema.BuiltinOperator.QUANTIZE)
    if not all(operator.opcodeIndex == quantizer for operator in readers):
        _insert_widening(model, source, readers)
    tensor.type = getattr(schema.TensorType, kind.upper())
    tensor.quantization = _parameters(1.0, 0 if kind == "uint8" else -_SHIFT)


def _readers(graph: Any, tensor: int) -> list[Any]:
    return [operator for operator in graph.operators if tensor in list(operator.inputs)]


def _insert_widening(model: Any, source: int, readers: list[Any]) -> None:
    import copy

    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    widened = copy.copy(graph.tensors[source])
    widened.name = _decode(widened.name).encode() + b"_as_float"
    graph.tensors.append(widened)
    place = len(graph.tensors) - 1
    for operator in readers:
        operator.inputs = [place if one == source else one for one in operator.inputs]
    widening = schema.OperatorT()
    widening.opcodeIndex = find_code(model, schema.BuiltinOperator.DEQUANTIZE)
    widening.inputs, widening.outputs = [source], [place]
    graph.operators.insert(0, widening)


def _give_bytes(model: Any, kind: str) -> None:
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    target = graph.outputs[0]
    last = next(one for one in graph.operators if target in list(one.outputs))
    if last.opcodeIndex != find_code(model, schema.BuiltinOperator.DEQUANTIZE):
        raise ExportError("The last layer is in float; expected int8 for an output in bytes.")
    given = graph.tensors[last.inputs[0]].quantization
    last.opcodeIndex = find_code(model, schema.BuiltinOperator.QUANTIZE)
    last.builtinOptions, last.builtinOptionsType = None, 0
    graph.tensors[target].type = getattr(schema.TensorType, kind.upper())
    scale, zero = float(given.scale[0]), int(given.zeroPoint[0])
    shift = _SHIFT if kind == "uint8" else 0
    graph.tensors[target].quantization = _parameters(scale, zero + shift)


def _parameters(scale: float, zero: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = [scale], [zero]
    return made


def find_code(model: Any, operator: int) -> int:
    """Return the index of an operator's code, added to the model's codes if it is not there.

    Args:
        model: a FlatBuffer as an object.
        operator: of the schema's `BuiltinOperator`.
    """
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == operator:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, operator, 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
