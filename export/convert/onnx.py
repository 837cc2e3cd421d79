"""Convert a Keras model to an ONNX file in float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from export.source import Signature, read_signature
from tl_keras.errors import ExportError
from tl_keras.models.onnx_graph import to_onnx
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras
    import onnx

__all__ = ["convert"]


def convert(
    model: keras.Model, class_names: Sequence[str] = (), signature: Signature | None = None
) -> bytes:
    """Convert a model with its weights in float32, for batches of any size.

    The file's metadata say what goes in (`input`) and name the outputs in their order
    (`class_names`, a JSON list).

    Args:
        model: functional, with one output (n, outputs).
        class_names: one name per output, to be written into the file.
        signature: what goes in and comes out; read from the model by default.

    Returns:
        The contents of the .onnx file.

    Raises:
        ExportError: if the model's shapes are not fixed, or it has an operation that ONNX
            does not know.
    """
    signature = signature or read_signature(model)
    start_tensorflow()
    try:
        with silenced() as said:
            proto = to_onnx(model, list(signature.inputs), [signature.output])
            _describe(proto, model, signature, class_names)
            return _check(proto)
    except Exception as error:
        raise ExportError(
            f"{model.name} cannot be converted to ONNX: {error}\n{said.last_lines()}"
        ) from error


def _describe(
    proto: onnx.ModelProto, model: keras.Model, signature: Signature, class_names: Sequence[str]
) -> None:
    words = [
        f"{name}: {tensor.dtype} ({', '.join(map(str, ('batch', *spec.shape)))}), {spec.values}"
        for tensor, (name, spec) in zip(model.inputs, signature.inputs.items(), strict=True)
    ]
    names = json.dumps(list(class_names), ensure_ascii=False)
    # What is no UTF-8 in a folder's name stays within JSON as an escape of its own.
    named = names.encode("utf-8", "backslashreplace").decode()
    for key, value in {"input": "; ".join(words), "class_names": named}.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "tl_keras"
    proto.doc_string = "; ".join(words)
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"


def _check(proto: onnx.ModelProto) -> bytes:
    import onnx

    contents = proto.SerializeToString()
    onnx.checker.check_model(contents)
    return contents
