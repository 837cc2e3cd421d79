"""The inference graph of a TensorFlow function: one flat graph, its variables constants.

What depends on the image is *live*; all else has a value, computed once by TensorFlow itself. The
graph keeps which constants were variables, so that a layer's own parameters are known from
numbers that stood in the program.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["FrozenGraph", "freeze", "scope_of"]

# Ops that give what they take; IdentityN is what functions with a gradient of their own end in.
_CARRIERS = ("Cast", "CheckNumerics", "Identity", "IdentityN", "PreventGradient", "StopGradient")
# Scopes that TensorFlow and Keras open within a layer, and around calls.
_WITHIN = ("Gelu", "batchnorm", "moments", "separable_conv2d", "Tensordot", "tensordot")
_AROUND = re.compile(r"(Func|(Stateful)?PartitionedCall(_\d+)?|)")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def freeze(function: Callable[[Any], Any], shape: tuple[int | None, ...]) -> FrozenGraph:
    """Trace a function of one image tensor and make a frozen graph of it.

    Args:
        function: From float32 (None, *shape) to one tensor, in inference mode.
        shape: Shape of one image.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((None, *shape), tf.float32, name="pixels")
    traced = tf.function(function, autograph=False).get_concrete_function(spec)
    frozen = _with_constants(traced)
    if any(op.type in _CALLS for op in frozen.graph.get_operations()):
        frozen = _with_constants(_without_xla(frozen))
    names = {placeholder.op.name: resource for resource, placeholder in traced.graph.captures}
    return FrozenGraph(frozen, names)


def _with_constants(function: Any) -> Any:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _without_xla(frozen: Any) -> Any:
    """The same function, without the marks that keep calls of compiled functions from inlining.

    Keras 3 and tf_keras compile a convolution in groups, which a CPU cannot run otherwise.
    """
    import tensorflow as tf

    graph = frozen.graph.as_graph_def()
    for function in graph.library.function:  # TensorFlow knows one function by a name
        function.signature.name += "_plain"
        _unmark(function.attr)
    nodes = [graph.node, *(function.node_def for function in graph.library.function)]
    for node in (node for part in nodes for node in part):
        _unmark(node.attr)
        for value in node.attr.values():
            if value.HasField("func"):
                value.func.name += "_plain"
    entry, output = frozen.inputs[0], frozen.outputs[0]

    def run(pixels: Any) -> Any:
        return tf.graph_util.import_graph_def(
            graph, input_map={entry.name: pixels}, return_elements=[output.name], name="")[0]

    return tf.compat.v1.wrap_function(run, [tf.TensorSpec(entry.shape, entry.dtype, "image")])


def _unmark(attributes: Any) -> None:
    for mark in ("_XlaMustCompile", "_noinline"):
        attributes.pop(mark, None)


class FrozenGraph:
    """A graph from one image tensor to one output, and what is known of its tensors.

    Attributes:
        entry: The tensor of images.
        exit: The output.
        variables: Name of a constant -> resource of the variable that it was.
    """

    def __init__(self, frozen: Any, variables: dict[str, Any]) -> None:
        """Read a function whose variables are constants.

        Args:
            frozen: What `convert_variables_to_constants_v2` gave.
            variables: Name of a constant -> resource of the variable that it was.
        """
        self.variables = variables
        self._graph = frozen.graph
        self.entry: tf.Tensor = frozen.inputs[0]
        self.exit: tf.Tensor = self.source(frozen.outputs[0])
        self._live = {self.entry.op.name}
        for op in self.operations:
            if any(tensor.op.name in self._live for tensor in op.inputs):
                self._live.add(op.name)
        self._uses = self._count_uses()

    @functools.cached_property
    def operations(self) -> list[tf.Operation]:
        """All operations, each after those it needs."""
        return list(self._graph.get_operations())

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """Name of an operation -> its place in :attr:`operations`."""
        return {op.name: position for position, op in enumerate(self.operations)}

    def source(self, tensor: tf.Tensor) -> tf.Tensor:
        """Return the tensor that a tensor only carries on; itself if it is made there."""
        while tensor.op.type in _CARRIERS and tensor.op.inputs:
            before = tensor.op.inputs[tensor.value_index]
            if tensor.op.type == "Cast" and not before.dtype.is_floating:
                break
            tensor = before
        return tensor

    def _count_uses(self) -> Counter[str]:
        """How many operations behind the output take each tensor, but for its shape."""
        needed = {self.exit.op.name}
        uses = Counter([self.exit.name])
        for op in reversed(self.operations):
            if op.name in needed:
                needed.update(tensor.op.name for tensor in op.inputs)
                if op.type not in ("Shape", *_CARRIERS):
                    uses.update({self.source(tensor).name for tensor in op.inputs})
        return uses

    def is_live(self, tensor: tf.Tensor) -> bool:
        """Whether a tensor depends on the images."""
        return tensor.op.name in self._live

    def uses(self, tensor: tf.Tensor) -> int:
        """Return how many operations take a tensor."""
        return self._uses[self.source(tensor).name]

    def value(self, tensor: tf.Tensor) -> np.ndarray:
        """Return the value of a tensor that is not live."""
        return self._values[self.source(tensor).name]

    @functools.cached_property
    def _values(self) -> dict[str, np.ndarray]:
        taken = [
            tensor for op in self.operations for tensor in op.outputs
            if op.name not in self._live and op.type not in ("Placeholder", *_CARRIERS)
            and (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)]
        return dict(zip([tensor.name for tensor in taken], self.compute(taken), strict=True))

    def compute(self, tensors: Iterable[tf.Tensor], images: np.ndarray | None = None) -> list:
        """Run the graph and return the values of some of its tensors."""
        import tensorflow as tf

        if images is None:  # what has a value without them may still wait for them
            images = np.zeros([side or 1 for side in self.entry.shape], np.float32)
        with tf.compat.v1.Session(graph=self._graph) as session:
            return session.run(list(tensors), {self.entry.name: images})

    def to_bytes(self) -> bytes:
        """Return the graph as TensorFlow writes it, with the values of its variables."""
        return bytes(self._graph.as_graph_def().SerializeToString())

    def variable(self, tensor: tf.Tensor) -> Any:
        """Return the resource of the variable that a constant was, perhaps reshaped; else None."""
        tensor = self.source(tensor)
        while tensor.op.type in ("ExpandDims", "Reshape", "Squeeze"):
            tensor = self.source(tensor.op.inputs[0])
        return self.variables.get(tensor.op.name)


def scope_of(name: str) -> list[str]:
    """Return the scopes that the program named around a tensor, without its operation."""
    parts = name.split(":")[0].split("/")[:-1]
    parts = [part for part in parts if not _AROUND.fullmatch(part)]
    while parts and parts[-1] in _WITHIN:
        parts.pop()
    return parts
