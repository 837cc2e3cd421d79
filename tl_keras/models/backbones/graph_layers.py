"""Makes stock Keras layers of what was read from a graph, under the names that it gave them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tl_keras.errors import ModelError
from tl_keras.models.backbones.frozen_graph import FrozenGraph, scope_of
from tl_keras.models.backbones.graph_ops import Piece, read_pieces

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["Rewritten", "UnknownOperationsError", "rewrite_graph"]

class UnknownOperationsError(ModelError):
    """A graph holds operations that no stock layer stands for."""


class Rewritten:
    """A graph as a model of stock layers.

    Attributes:
        model: From the images that the graph takes to its output.
        variables: Name of a layer -> resource of the variable behind each of its weights.
    """

    def __init__(self, graph: FrozenGraph, pieces: dict[str, Piece]) -> None:
        """Make the layers and give them their weights."""
        import keras

        self._graph = graph
        self._names = _Names({name: scope_of(name) for name, piece in pieces.items()
                              if piece.kind})
        self._weights: list[tuple[Any, Piece]] = []
        self._made: dict[str, keras.KerasTensor] = {}
        self.variables: dict[str, tuple[Any, ...]] = {}
        entry = keras.Input(tuple(graph.entry.shape)[1:], name="pixels")
        self._made[graph.entry.name] = entry
        for name, piece in pieces.items():
            self._made[name] = self._call(name, piece)
        self.model = keras.Model(entry, self._made[graph.exit.name])
        for layer, piece in self._weights:
            layer.set_weights(piece.weights)
            self.variables[layer.name] = piece.variables

    def _call(self, name: str, piece: Piece) -> keras.KerasTensor:
        import keras

        given = [self._input(name, one) for one in piece.inputs]
        if not piece.kind:
            return given[0]
        config = {**piece.config, "name": self._names.take(name, piece)}
        try:
            layer = getattr(keras.layers, piece.kind)(**config)
            result = layer(given[0] if len(given) == 1 else given)
        except ValueError as error:
            raise ModelError(
                f"'{config['name']}' cannot be made a layer {piece.kind}: {error}") from error
        if piece.weights:
            self._weights.append((layer, piece))
        return result

    def _input(self, name: str, one: tf.Tensor | Piece) -> keras.KerasTensor:
        if isinstance(one, Piece):
            return self._call(name, one)
        return self._made[self._graph.source(one).name]

    def tensors(self) -> dict[int, str]:
        """Return id of a Keras tensor -> name of the tensor of the graph that it stands for."""
        return {id(tensor): name for name, tensor in self._made.items()}


class _Names:
    """Names for layers: the scopes around them, as far as these differ."""

    def __init__(self, scopes: dict[str, list[str]]) -> None:
        self._scopes = scopes
        named = [scope for scope in scopes.values() if scope]
        while len(named) > 1 and all(scope and scope[0] == named[0][0] for scope in named):
            for scope in named:  # that of the model
                del scope[0]
        # Keras 3 enters each scope twice, and TensorFlow numbers the second.
        self._numbered = all(
            re.search(r"_\d+$", part) for scope in scopes.values() for part in scope)
        self._taken: set[str] = set()

    def take(self, tensor: str, piece: Piece) -> str:
        """Return a name that no other layer has."""
        parts = self._scopes.get(tensor, [])
        if self._numbered:
            parts = [re.sub(r"_\d+$", "", part) for part in parts]
        kind = str(piece.config.get("activation", piece.kind)).lower()
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", "_".join(parts)) or kind
        if stem.startswith("head_"):  # such names are those of this project's heads
            stem = f"base_{stem}"
        if stem in self._taken and stem != kind:
            stem = f"{stem}_{kind}"
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name


def rewrite_graph(graph: FrozenGraph) -> Rewritten:
    """Rewrite a graph as a flat model of stock layers.

    Raises:
        UnknownOperationsError: It holds operations without one; all are named.
        ModelError: A layer cannot be made as the graph has it.
    """
    pieces, unknown = read_pieces(graph)
    if unknown:
        kinds = sorted({one.split(" ")[0] for one in unknown})
        raise UnknownOperationsError(
            f"no stock layer of Keras stands for {', '.join(kinds)} "
            f"({len(unknown)} operations, the last are: {', '.join(unknown[:3])})")
    return Rewritten(graph, pieces)
