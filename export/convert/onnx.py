"""A Keras model as an ONNX file in float32."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.signature import INPUT, OUTPUT, signature
from tl_keras.errors import ExportError
from tl_keras.utils.quiet import silenced, start_tensorflow

if TYPE_CHECKING:
    import keras
    import onnx

__all__ = ["OPSET", "convert"]

OPSET = 17
"""Known to ONNX Runtime since 1.12; nothing newer is needed by convolutional classifiers."""
_CATCH = "TF2ONNX_CATCH_ERRORS"
PADDING = 1e-7
"""As good as zero beside float32 values of order one, and not zero in float16 either."""


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
            proto = _converted(model, shape)
            _describe(proto, shape, class_names)
            return _checked(proto)
    except Exception as error:
        raise ExportError(
            f"{model.name} cannot be converted to ONNX: {error}\n{said.last_lines()}"
        ) from error


def _converted(model: keras.Model, shape: tuple[int, ...]) -> onnx.ModelProto:
    import tensorflow as tf
    import tf2onnx

    _know_erfc()
    spec = [tf.TensorSpec((None, *shape), tf.float32, name=INPUT)]

    @tf.function(input_signature=spec)
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = tf.cast(model(image, training=False), tf.float32)
        return {OUTPUT: tf.identity(answer, name=OUTPUT)}

    options = {"input_signature": spec, "opset": OPSET}
    try:
        with _without_copies():
            proto, _ = tf2onnx.convert.from_function(serve, **options)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # With copies tf2onnx goes on without a pass of its optimizer that fails.
        proto, _ = tf2onnx.convert.from_function(serve, **options)
    _keep_zero_padding(proto.graph)
    return proto


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Spare tf2onnx the copies of all weights that it makes around each pass of its optimizer.

    It copies the graph before a pass, to go back if the pass fails (its own variable switches that
    off; a pass that fails then is an error), and each constant's value after it, which nothing
    frees until the end. A constant's value is made once and read from where it was made.
    `benchmarks/onnx_memory.py` has the figures.
    """
    from tf2onnx.graph import Node

    plain, said = Node.update_proto, os.environ.get(_CATCH)

    def update_proto(node: Any, external_tensor_storage: Any = None) -> None:
        if external_tensor_storage is not None or not node.is_const():
            plain(node, external_tensor_storage)

    Node.update_proto, os.environ[_CATCH] = update_proto, "FALSE"
    try:
        yield
    finally:
        Node.update_proto = plain
        os.environ.pop(_CATCH)
        os.environ.update({} if said is None else {_CATCH: said})


@functools.lru_cache(maxsize=1)
def _know_erfc() -> None:
    """Teach tf2onnx the complementary error function, which TensorFlow's GELU is made of."""
    from tf2onnx.handler import tf_op
    from tf2onnx.utils import make_name

    @tf_op("Erfc")
    class _Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            kinds = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
            given, outputs = node.input[0], list(node.output)
            ctx.remove_node(node.name)
            one = ctx.make_const(make_name("one"), np.ones((), np.float32)).output[0]
            erf = ctx.make_node("Erf", [given], **kinds).output[0]
            ctx.make_node("Sub", [one, erf], name=node.name, outputs=outputs, **kinds)


def _keep_zero_padding(graph: onnx.GraphProto) -> None:
    """Keep zeros that are put around values which may be negative before their maximum is taken.

    ONNX Runtime makes one node of Pad and MaxPool, which pads with what no maximum ever is (its
    optimizer `Pad_Fusion`, seen in 1.31 on ResNet50V2: 0.02 off in a probability). It leaves a
    padding alone that is not zero, so this one becomes `PADDING`.
    """
    from onnx import helper, numpy_helper

    made_by = {name: node for node in graph.node for name in node.output}
    pads = [made_by.get(node.input[0]) for node in graph.node if node.op_type == "MaxPool"]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for pad in pads:
        if pad is None or pad.op_type != "Pad" or _is_relu(made_by.get(pad.input[0])):
            continue
        named = pad.input[2] if len(pad.input) > 2 else ""
        if named and (named not in constants or numpy_helper.to_array(constants[named]).any()):
            continue
        name = f"{pad.name}_value"
        graph.initializer.append(helper.make_tensor(name, 1, (), [PADDING]))
        pad.input[2:3] = [name]


def _is_relu(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "Relu"


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
