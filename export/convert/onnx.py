"""Convert a Keras model to an ONNX file in float32."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from export.source import INPUT, OUTPUT, signature
from tl_keras.errors import ExportError
from tl_keras.models.onnx_graph import to_onnx
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras
    import onnx

__all__ = ["convert"]


def convert(model: keras.Model, class_names: Sequence[str] = ()) -> bytes:
    """Convert a model with its weights in float32, for batches of any size.

    The input is called `image`, the output `probabilities`. The file's metadata say what goes
    in (`input`) and name the outputs in their order (`class_names`, a JSON list).

    Args:
        model: takes float32 (n, height, width, 3), RGB 0..255; gives (n, outputs).
        class_names: one name per output, to be written into the file.

    Returns:
        The contents of the .onnx file.

    Raises:
        ExportError: if the model's shapes are not fixed, or it has an operation that ONNX
            does not know.
    """
    shape = signature(model).shape
    start_tensorflow()
    try:
        with silenced() as said:
            proto = to_onnx(model, [INPUT], [OUTPUT])
            _describe(proto, shape, class_names)
            return _checked(proto)
    except Exception as error:
        raise ExportError(
            f"{model.name} cannot be converted to ONNX: {error}\n{said.last_lines()}"
        ) from error


def _describe(proto: onnx.ModelProto, shape: tuple[int, ...], class_names: Sequence[str]) -> None:
    height, width, channels = shape
    words = f"float32 (batch, {height}, {width}, {channels}), RGB, values 0..255, no scaling"
    names = json.dumps(list(class_names), ensure_ascii=False)
    # What is no UTF-8 in a folder's name stays within JSON as an escape of its own.
    facts = {"input": words, "class_names": names.encode("utf-8", "backslashreplace").decode()}
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name = "tl_keras"
    proto.doc_string = f"{INPUT}: {words}"
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"


def _checked(proto: onnx.ModelProto) -> bytes:
    import onnx

    contents = proto.SerializeToString()
    onnx.checker.check_model(contents)
    return contents
