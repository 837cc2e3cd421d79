"""A frozen TensorFlow graph as one Keras layer, for bases that cannot be rewritten.

The layer has no weights to train and nothing to cut in it. Its graph travels inside the .keras
file, which loads in safe mode where tl_keras is installed: the one layer of this project's own
that a saved model may hold.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.models.backbones.frozen_graph import FrozenGraph

if TYPE_CHECKING:
    import keras

__all__ = ["opaque_layer", "register"]

# Graphs by their digest, as bytes: a layer's configuration names its graph, copies share it.
_GRAPHS: dict[str, bytes] = {}


def opaque_layer(graph: FrozenGraph, name: str) -> keras.layers.Layer:
    """Make a layer of a graph.

    Args:
        graph: From float32 images (None, size, size, 3) to features.
        name: Of the layer.
    """
    content = graph.to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    _GRAPHS[digest] = content
    return register()(digest, graph.entry.name, graph.exit.name,
                      list(graph.exit.shape)[1:], name=name)


@functools.cache
def register() -> Any:
    """Return the layer's class, known to Keras from then on."""
    import keras

    @keras.saving.register_keras_serializable("tl_keras")
    class OpaqueGraph(keras.layers.Layer):
        """Runs a frozen graph of TensorFlow."""

        worth_a_cache = True

        def __init__(self, digest: str, entry: str, output: str, shape: list[int | None],
                     **options: Any) -> None:
            options = {**options, "trainable": False}
            super().__init__(**options)
            self.digest, self.entry, self.output_name = digest, entry, output
            self.shape = list(shape)
            # A base is found by its weights, which stand in the graph here.
            self.add_weight(name="frozen", shape=(), initializer="ones", trainable=False)

        def call(self, images: Any) -> Any:
            return _function(self.digest, self.entry, self.output_name)(images)

        def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
            return (input_shape[0], *self.shape)

        def compute_output_spec(self, images: Any, **_: Any) -> Any:
            return keras.KerasTensor((images.shape[0], *self.shape), "float32")

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "digest": self.digest, "entry": self.entry,
                    "output": self.output_name, "shape": self.shape}

        def save_own_variables(self, store: Any) -> None:
            store["graph"] = np.frombuffer(_GRAPHS[self.digest], np.uint8)

        def load_own_variables(self, store: Any) -> None:
            _take(np.asarray(store["graph"], np.uint8).tobytes(), self.digest, self.name)

    return OpaqueGraph


@functools.lru_cache(4)
def _function(digest: str, entry: str, output: str) -> Any:
    import tensorflow as tf

    if digest not in _GRAPHS:
        raise ModelError("an opaque base has no graph here; load its model whole")
    definition = tf.compat.v1.GraphDef.FromString(_GRAPHS[digest])

    def run(images: Any) -> Any:
        return tf.graph_util.import_graph_def(definition, {entry: images}, [output], name="")[0]

    return tf.compat.v1.wrap_function(run, [tf.TensorSpec(None, tf.float32)])


def _take(content: bytes, digest: str, name: str) -> None:
    """Keep the graph that a file holds, if it is the right one and only computes."""
    import tensorflow as tf

    from tl_keras.models.backbones.saved_model_folder import forbidden

    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(f"the graph of layer '{name}' was changed")
    if bad := forbidden(tf.compat.v1.GraphDef.FromString(content)):
        raise ModelError(f"the graph of layer '{name}' is refused: it reads or writes files or "
                         f"calls Python ({', '.join(bad)})")
    _GRAPHS[digest] = content
