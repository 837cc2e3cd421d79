"""Convert a functional Keras model to an ONNX graph: the one door to tf2onnx."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError

if TYPE_CHECKING:
    import keras
    import onnx
    import tensorflow as tf

__all__ = ["OPSET", "PADDING", "drop_unused_opsets", "to_onnx"]

OPSET = 17
"""Known to ONNX Runtime since 1.12; nothing newer is needed by convolutional classifiers."""
PADDING = 1e-7
"""As good as zero beside float32 values of order one, and not zero in float16 either."""
_CATCH = "TF2ONNX_CATCH_ERRORS"


def to_onnx(
    model: keras.Model,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Convert a model with its weights in float32, for batches of any size.

    Args:
        model: functional; run in inference mode.
        input_names: one for each input, in the model's order; those of its input layers by
            default.
        output_names: one for each output, in the model's order; tf2onnx' own by default.

    Returns:
        A graph with one input for each of the model's, of the same type, whose first axis is
        open, and its outputs in float32, in the model's order.

    Raises:
        ModelError: if a constant of the model stays an open input.
        Exception: what tf2onnx raises about operations that it does not know.
    """
    import tensorflow as tf
    import tf2onnx

    _know_erfc()
    names = list(input_names or (one.name for one in model.inputs))
    spec = [
        tf.TensorSpec((None, *one.shape[1:]), one.dtype, name=name)
        for one, name in zip(model.inputs, names, strict=True)
    ]
    serve = tf.function(_serving(model, output_names), input_signature=spec)
    options = {"input_signature": spec, "opset": OPSET}
    try:
        with _without_copies():
            proto, _ = tf2onnx.convert.from_function(serve, **options)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        # With copies tf2onnx goes on without a pass of its optimizer that fails.
        proto, _ = tf2onnx.convert.from_function(serve, **options)
    _fill_captured(proto.graph, serve.get_concrete_function(), names)
    _keep_zero_padding(proto.graph)
    drop_unused_opsets(proto)
    return proto


def drop_unused_opsets(proto: onnx.ModelProto) -> None:
    """Take out of a graph's imports the sets of operators that none of its nodes is from."""
    used = {node.domain for node in proto.graph.node}
    for opset in list(proto.opset_import):
        if opset.domain not in used:
            proto.opset_import.remove(opset)


def _serving(model: keras.Model, output_names: Sequence[str] | None) -> Any:
    import keras
    import tensorflow as tf

    def serve(*tensors: tf.Tensor) -> Any:
        answers = model(keras.tree.pack_sequence_as(model.input, tensors), training=False)
        answers = [tf.cast(one, tf.float32) for one in keras.tree.flatten(answers)]
        if output_names is None:
            return answers
        return {
            name: tf.identity(one, name=name)
            for name, one in zip(output_names, answers, strict=True)
        }

    return serve


def _fill_captured(graph: onnx.GraphProto, function: Any, names: Sequence[str]) -> None:
    """Give constants that a model holds, which tf2onnx leaves open as inputs, their values."""
    from onnx import numpy_helper

    held = {
        inner.name: outer
        for outer, inner in zip(function.captured_inputs, function.inputs[len(names) :])
    }
    for tensor in list(graph.input):
        if tensor.name in held:
            value = np.asarray(held[tensor.name])
            graph.initializer.append(numpy_helper.from_array(value, tensor.name))
            graph.input.remove(tensor)
    if [tensor.name for tensor in graph.input] != list(names):
        found = ", ".join(tensor.name for tensor in graph.input)
        raise ModelError(
            f"the ONNX graph takes {found}; expected {', '.join(names)} alone: the model holds a "
            "constant that cannot be written into the file; put a stock layer in its place"
        )


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
