"""Put the resize into an ONNX file, equal to the training's to the bit, for images of any size.

ONNX Runtime's own Resize with antialias=1 gives other pixels than Pillow (1.31, photos' sizes to
224: up to 16 of 255, at the borders most), and TensorFlow Lite's RESIZE_BILINEAR has no antialias
at all. So the graph does what Pillow's Resample.c does: a triangle's weights in float64 from the
image's own size, rounded to 22 bits behind the point, the sum of whole numbers, rounded to 8 bits
after the horizontal and after the vertical pass. All sums are whole numbers below 2^53, exact in
float64 in whatever order they are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ExportError

if TYPE_CHECKING:
    import onnx

__all__ = ["RESIZED", "check_formats", "put_resize_before"]

RESIZED = "resized_to"
"""In the file's metadata: height and width that an image of any size is resized to."""
_BITS = 22


def check_formats(formats: tuple[str, ...]) -> None:
    """Refuse formats whose runtime cannot resize to the same bits.

    Raises:
        ExportError: if one of them is TensorFlow Lite.
    """
    if "tflite" in formats:
        raise ExportError(
            "--resize-in-graph is for --to onnx alone: TensorFlow Lite resizes without antialias, "
            "and to other pixels than the training; leave tflite out, or resize before the model."
        )


def put_resize_before(contents: bytes) -> bytes:
    """Let an ONNX file of one image take images of any size in whole numbers.

    Args:
        contents: of a file whose only input is (batch, height, width, channels) of a fixed size,
            values 0..255, of any type.

    Returns:
        The contents of a file whose input has the same name, type uint8, and open sides; all
        images of a batch have one size.

    Raises:
        ExportError: if the input is another.
    """
    import onnx

    proto = onnx.load_from_string(contents)
    graph = proto.graph
    sides = [one.dim_value for one in graph.input[0].type.tensor_type.shape.dim[1:]]
    if len(graph.input) != 1 or len(sides) != 3 or not all(sides):
        raise ExportError(
            f"The ONNX file takes {len(graph.input)} input(s) of {sides}; expected one image of a "
            "fixed size for a resize in front of it."
        )
    given = graph.input[0]
    name, kind = given.name, given.type.tensor_type.elem_type
    inner = f"{name}_resized"
    for node in graph.node:
        node.input[:] = [inner if one == name else one for one in node.input]
    made = _Builder(graph)
    made.resize(name, inner, sides[0], sides[1], kind)
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made.nodes, *old])
    dims = ["batch", "height", "width", sides[2]]
    graph.input[0].CopyFrom(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, dims)
    )
    words = f"{name}: uint8 (batch, height, width, {sides[2]}), any height and width, RGB, 0..255"
    proto.doc_string = words
    kept = [one for one in proto.metadata_props if one.key not in ("input", RESIZED)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    for key, value in {"input": words, RESIZED: f"{sides[0]},{sides[1]}"}.items():
        proto.metadata_props.add(key=key, value=value)
    done = proto.SerializeToString()
    onnx.checker.check_model(done)
    return done


class _Builder:
    """Collects nodes and constants, all under names of their own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.nodes = graph, []  # type: ignore[var-annotated]
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"tl_keras_resize_{self._count}"

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        import onnx

        name = output or self._name()
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, kind: Any = np.float64) -> str:
        import onnx

        name = self._name()
        self.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def resize(self, name: str, output: str, height: int, width: int, kind: int) -> None:
        import onnx

        double = onnx.TensorProto.DOUBLE
        # (batch, channels, height, width), so that both passes are products of matrices.
        image = self.add("Transpose", self.add("Cast", name, to=double), perm=[0, 3, 1, 2])
        across = self.add("Transpose", self._weights(name, 2, width), perm=[1, 0])
        image = self._to_bytes(self.add("MatMul", image, across))
        image = self._to_bytes(self.add("MatMul", self._weights(name, 1, height), image))
        image = self.add("Transpose", image, perm=[0, 2, 3, 1])
        self.add("Cast", image, to=kind, output=output)

    def _weights(self, name: str, axis: int, new: int) -> str:
        """Whole numbers (new, old) in float64: row i is what makes pixel i of the new side."""
        import onnx

        size = self.add("Gather", self.add("Shape", name), self.constant(axis, np.int64))
        old = self.add("Cast", size, to=onnx.TensorProto.DOUBLE)
        scale = self.add("Div", old, self.constant(new))
        reach = self.add("Max", scale, self.constant(1.0))
        centers = self.add("Mul", self.constant(np.arange(new)[:, None] + 0.5), scale)
        zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
        places = self.add("Cast", self.add("Range", zero, size, one), to=onnx.TensorProto.DOUBLE)
        half = self.constant(0.5)
        # In the order of Resample.c: (x - center + 0.5) * (1 / filterscale).
        apart = self.add("Add", self.add("Sub", places, centers), half)
        apart = self.add("Abs", self.add("Mul", apart, self.add("Div", self.constant(1.0), reach)))
        heights = self.add("Max", self.add("Sub", self.constant(1.0), apart), self.constant(0.0))
        total = self.add("ReduceSum", heights, self.constant([1], np.int64), keepdims=1)
        shares = self.add("Div", heights, total)
        scaled = self.add("Mul", shares, self.constant(2.0**_BITS))
        return self.add("Floor", self.add("Add", scaled, half))

    def _to_bytes(self, sums: str) -> str:
        """Round as (sum + half) >> 22 does, and keep within 0..255."""
        sums = self.add("Add", sums, self.constant(2.0 ** (_BITS - 1)))
        whole = self.add("Floor", self.add("Mul", sums, self.constant(2.0**-_BITS)))
        return self.add("Clip", whole, self.constant(0.0), self.constant(255.0))
