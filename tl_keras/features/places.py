"""Features of samples at any named layers of a model, computed once and kept on disk.

A *place* is one layer or several whose features stand side by side, written "a+b".
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.errors import ModelError
from tl_keras.features.backends import Engine
from tl_keras.features.extract import fill, open_backend
from tl_keras.features.store import FeatureFile
from tl_keras.models import graph
from tl_keras.models.heads import pool
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.suggest import nearest

if TYPE_CHECKING:
    import keras

__all__ = [
    "Features", "Place", "candidate_places", "extract_features", "feature_model",
    "feature_tensor", "parse_places", "written",
]  # fmt: skip

Place = tuple[str, ...]
_MOST = 12
_DONE = ("Add", "Concatenate", "LeakyReLU", "MaxPooling2D", "AveragePooling2D", "PReLU", "ReLU")


def written(place: Place) -> str:
    """Return a place as users write it: "a+b"."""
    return "+".join(place)


def candidate_places(model: keras.Model) -> list[Place]:
    """Return the layers worth trying: where blocks end, and the cuts within the last block.

    Activations and sums count, what lies between a convolution and its activation does not.
    At most 12, evenly spread where there are more; where the features end is always among them.
    """
    end = graph.feature_point(model)
    cuts = [cut for cut in graph.cut_points(model) if 0 < cut.position < end.position]
    names = [cut.layer for cut in cuts if len(cut.shape) > 2 and _is_done(cut)] + [end.layer]
    parts = [[name for name in block if name in set(names)] for block in graph.blocks(model)]
    parts = [part for part in parts if part]
    if not parts:
        return [(end.layer,)]
    ends = [part[-1] for part in parts[:-1]]
    rest, room = parts[-1], _MOST - len(ends)
    chosen = np.unique(np.linspace(0, len(rest) - 1, max(1, min(room, len(rest)))).round())
    last = [rest[int(i)] for i in chosen]
    return [(name,) for name in dict.fromkeys([*ends, *last, end.layer])]


def _is_done(cut: graph.CutPoint) -> bool:
    operation = cut.tensor._keras_history.operation
    bent = getattr(operation, "activation", None)
    return type(operation).__name__ in _DONE or getattr(bent, "__name__", "linear") != "linear"


def parse_places(text: str, model: keras.Model) -> list[Place]:
    """Return the places that a user named.

    Args:
        text: Places with commas between, each one layer or several joined with "+"; "auto"
            gives :func:`candidate_places`, "last" where the features end.
        model: Whose layers they are.

    Raises:
        ModelError: There is no such layer; the nearest names are offered.
    """
    if text == "auto":
        return candidate_places(model)
    if text == "last":
        return candidate_places(model)[-1:]
    names = [word.split("+") for word in text.replace(" ", "").split(",") if word]
    places = [tuple(dict.fromkeys(name for name in group if name)) for group in names]
    places = [place for place in dict.fromkeys(places) if place]
    if not places:
        raise ModelError(f"got '{text}' for the layers; expected names, as in block_13_expand_relu")
    tensors = _tensors(model)
    for name in (name for place in places for name in place):
        _tensor_of(tensors, name)
    return places


def _tensors(model: keras.Model) -> dict[str, Any]:
    return {step.name: step.outputs[0] for step in graph.steps(model) if len(step.outputs) == 1}


def _tensor_of(tensors: Mapping[str, Any], name: str) -> Any:
    if name not in tensors:
        near = nearest(name, tensors, 4) or list(tensors)[-4:]
        raise ModelError(f"the model has no layer '{name}'; the nearest are: {', '.join(near)}")
    return tensors[name]


def feature_tensor(model: keras.Model, place: Place, pooling: str = "avg") -> Any:
    """Return the features at a place as a Keras tensor (None, d) of the model's graph.

    Args:
        model: A functional model.
        place: Its layers.
        pooling: What becomes of feature maps and sequences, see
            :func:`tl_keras.models.heads.pool`.

    Raises:
        ModelError: There is no such layer or pooling.
    """
    import keras

    tensors, free = _tensors(model), free_names(model)
    vectors = [pool(_tensor_of(tensors, name), pooling, free) for name in place]
    if len(vectors) == 1:
        return vectors[0]
    return keras.layers.Concatenate(name=free("head_concat"))(vectors)


def free_names(model: keras.Model) -> Callable[[str], str]:
    """Return a function that gives a name back, numbered if it was given or is the model's."""
    taken = {step.name for step in graph.steps(model)}

    def free(name: str) -> str:
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        found = next(one for one in itertools.chain([name], numbered) if one not in taken)
        taken.add(found)
        return found

    return free


def feature_model(model: keras.Model, place: Place, pooling: str = "avg") -> keras.Model:
    """Return a model from its inputs to the features at a place, which shares the layers.

    Args:
        model: A functional model.
        place: Its layers.
        pooling: See :func:`feature_tensor`.

    Raises:
        ModelError: There is no such layer or pooling.
    """
    import keras

    return keras.Model(graph.alone(model.inputs), feature_tensor(model, place, pooling))


@dataclass(frozen=True, eq=False)
class Features:
    """Features of samples at several layers.

    Attributes:
        arrays: For each split, float32 (n, d) for each layer; mapped from disk when large.
        samples: The samples of each split.
        engine: What computed them, and why.
    """

    arrays: dict[str, dict[str, np.ndarray]]
    samples: dict[str, Samples]
    engine: Engine

    def at(self, split: str, place: Place) -> np.ndarray:
        """Return a split's features at a place, float32 (n, d)."""
        found = [self.arrays[split][name] for name in place]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def extract_features(
    model: keras.Model,
    layers: Sequence[str],
    parts: Mapping[str, Samples],
    folder: Path,
    *,
    pooling: str = "avg",
    precision: str = "auto",
    progress: Progress = silent,
) -> Features:
    """Compute the features of samples at some layers, all in one pass, onto disk.

    Args:
        model: A functional model; run in inference mode.
        layers: Names.
        parts: Samples by the name of their split.
        folder: Where to keep the features; what is there already is not computed again.
        pooling: See :func:`feature_tensor`.
        precision: "auto" (measured) or one of `tl_keras.features.backends.ENGINES`.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        ModelError: There is no such layer or pooling.
        DataError: A sample cannot be read.
        StorageError: The disk is full.
    """
    import keras

    names, tensors = list(dict.fromkeys(layers)), _tensors(model)
    free = free_names(model)
    outputs = [pool(_tensor_of(tensors, name), pooling, free) for name in names]
    prefix = keras.Model(graph.alone(model.inputs), outputs)
    readers = {split: part.reader(model) for split, part in parts.items()}
    rows = sum(map(len, readers.values()))
    engine, predict = open_backend(prefix, max(readers.values(), key=len), precision, rows)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for split, reader in readers.items():
        files = [
            FeatureFile(folder / f"{split}-{number:03d}.bin", len(reader), (width,))
            for number, width in enumerate(int(one.shape[-1]) for one in outputs)
        ]
        fill(files, predict, reader, progress=functools.partial(progress, f"features, {split}"))
        arrays[split] = {name: file.open() for name, file in zip(names, files, strict=True)}
    return Features(arrays, dict(parts), engine)
