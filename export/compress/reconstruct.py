"""Prune a model without labels: drop weights, and solve those that stay anew, layer by layer.

What a layer gave before is what it shall give again. With X its inputs in the network as pruned so
far, and Y its answers to the original's inputs, the weights that stay are those of

    min ||Y - (X W + b)||² + ridge ||W - W0||²,   W zero where it is pruned,

over places of unlabeled samples. Channels were pruned like this by He, Zhang and Sun 2017
(arXiv 1707.06168), single weights by Frantar and Alistarh 2023 (SparseGPT, arXiv 2301.00774). Of
X and Y only the means and covariances are kept. Each output has zeros of its own, and so a system
of its own; all of them are solved side by side by conjugate gradients on the weights that stay.

Which weights go is decided in rounds (Zhu and Gupta 2017, arXiv 1710.01878), after each of which
the others are solved anew: those whose loss costs least if the others make up for it, w² over the
diagonal of the inverse covariance (Hassibi and Stork 1993, "Optimal brain surgeon").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.graph import copy_flat
from export.convert.layer_matrix import LayerMatrix
from tl_keras.features.backends import pack_inputs
from tl_keras.features.extract import read_ahead
from tl_keras.modalities.base import Reader
from tl_keras.models.graph import Step, alone, cut_points, steps
from tl_keras.utils.progress import Progress, silent

if TYPE_CHECKING:
    import keras

__all__ = ["TWO_OF_FOUR", "prune_and_reconstruct", "solve_kept"]

TWO_OF_FOUR = -1.0
"""In place of a share: two of each four weights along a kernel's input channels go."""

_SOLVED = ("Conv2D", "DepthwiseConv2D", "Dense")
_ROUNDS, _STEPS, _LAST_STEPS = 5, 8, 40
# Of the mean variance of a layer's inputs, at least; and for each weight a row it was measured on.
_RIDGE, _DOUBT = 1e-3, 1.0
_SAMPLES, _BATCH = 512, 32
_ROWS = 10  # places for each weight of an output, and two thousand at least
_WIDEST = 6144  # inputs of one output: a covariance of more would not fit
_CACHED = 300e6  # bytes of one network's activations that are kept


def prune_and_reconstruct(
    model: keras.Model,
    reader: Reader,
    shares: Mapping[str, float],
    progress: Progress = silent,
) -> keras.Model:
    """Prune a model so that each of its layers answers as before, as nearly as it can.

    Args:
        model: flat and folded, see `export.compress.graph.fold_trainable`; it is not changed.
        reader: unlabeled samples of the kind that the model is for; some hundreds do. Of fewer,
            augmented views are taken, too, where the reader has them.
        shares: by the name of a Conv2D or Dense, the share of its kernel's weights that
            become zero, 0..1, or `TWO_OF_FOUR`. Other convolutions and dense layers lose none,
            and make up for what those before them lost.
        progress: told (what is being done, layers done, of how many).

    Returns:
        A model with the same layers.
    """
    slim = copy_flat(model)
    walk = _Walk(model, slim, reader)
    solved = walk.solved
    for done, (_, after) in enumerate(solved):
        layer = LayerMatrix(after.operation)
        if layer.width <= _WIDEST:
            moments = _measure(layer, walk.inputs(done))
            weights, bias = _solve(layer, moments, shares.get(after.name, 0.0))
            layer.set(weights, bias)
        elif share := shares.get(after.name):
            weights, bias = layer.get()
            layer.set(weights * _keep(np.abs(weights), share, layer.inner), bias)
        progress("pruning", done + 1, len(solved))
    return slim


@dataclass(frozen=True, eq=False)
class _Batch:
    """What goes into a layer, for some samples.

    Attributes:
        before: in the original network, (n, ..., channels).
        now: in the network as pruned so far.
        lack: what the shortcut of a sum behind the layer lacks of the original's, if there is one.
        total: samples in all batches.
    """

    before: np.ndarray
    now: np.ndarray
    lack: np.ndarray | None
    total: int


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of a layer's inputs, now (pruned so far) and before (in the original): float64.

    Attributes:
        now: mean (groups, 1, width).
        before: mean (groups, 1, width).
        own: covariance of what is now, (groups, width, width).
        cross: covariance of what is now with what was before, (groups, width, width).
        lack: covariance of what is now with what the sum behind the layer lacks of the original's
            (groups, width, outputs), or 0.
        lack_mean: mean of what is lacking, (groups, 1, outputs), or 0.
        count: rows that they were measured on.
    """

    now: np.ndarray
    before: np.ndarray
    own: np.ndarray
    cross: np.ndarray
    lack: Any
    lack_mean: Any
    count: int


def _measure(layer: LayerMatrix, inputs: Iterator[_Batch]) -> _Moments:
    generator, sums, count = np.random.default_rng(0), [np.zeros(1)] * 6, 0
    origin: np.ndarray | None = None
    for batch in inputs:
        many = 1 + max(2000, _ROWS * layer.width) // batch.total
        chosen = generator.random((len(batch.now), min(many, _places(layer))))
        old, new = (layer.rows(maps, chosen) for maps in (batch.before, batch.now))
        # Of large numbers that hardly differ, squares would keep nothing but rounding.
        origin = old.mean(1, keepdims=True) if origin is None else origin
        old, new = old - origin, new - origin
        lack = np.zeros((layer.groups, new.shape[1], 1), np.float32)
        if batch.lack is not None:
            lack = layer.pick(batch.lack, chosen)
        turned = new.transpose(0, 2, 1)
        parts = [new.sum(1, keepdims=True), old.sum(1, keepdims=True), lack.sum(1, keepdims=True),
                 turned @ new, turned @ old, turned @ lack]  # fmt: skip
        sums = [a + b.astype(np.float64) for a, b in zip(sums, parts, strict=True)]
        count += new.shape[1]
    now, before, lack, own, cross, lacking = (one / count for one in sums)
    turned, start = now.transpose(0, 2, 1), np.zeros(1) if origin is None else origin
    return _Moments(
        now + start, before + start, own - turned @ now, cross - turned @ before,
        lacking - turned @ lack, lack, count,
    )  # fmt: skip


def _places(layer: LayerMatrix) -> int:
    return int(np.prod(layer.layer.output.shape[1:-1], dtype=np.int64))


def _solve(layer: LayerMatrix, moments: _Moments, share: float) -> tuple[np.ndarray, np.ndarray]:
    first, bias = layer.get()
    spread = np.trace(moments.own, axis1=1, axis2=2)[:, None, None] / layer.width
    ridge: Any = max(_RIDGE, _DOUBT * layer.width / moments.count) * spread + 1e-6
    gram = moments.own + ridge * np.eye(layer.width)
    wanted = moments.cross @ first + moments.lack + ridge * first
    kept: np.ndarray = np.ones(first.shape, bool)
    weights: np.ndarray = first.astype(np.float32)
    cost = 1 / np.diagonal(np.linalg.inv(gram), axis1=1, axis2=2)[..., None]
    gram, wanted = gram.astype(np.float32), wanted.astype(np.float32)
    if share:
        for number in range(1, _ROUNDS + 1):
            part = 1 - (1 - number / _ROUNDS) ** 3
            kept = _keep(np.where(kept, weights**2 * cost, -1), share, layer.inner, part)
            weights = solve_kept(gram, wanted, weights, kept, _STEPS)
    weights = solve_kept(gram, wanted, weights, kept, _LAST_STEPS)
    shift = moments.before @ first + moments.lack_mean - moments.now @ weights
    return weights, bias + shift[:, 0]


def _keep(scores: np.ndarray, share: float, inner: int, part: float = 1.0) -> np.ndarray:
    """Return which weights stay, the highest scores: bool, (groups, width, outputs)."""
    if share != TWO_OF_FOUR:
        count = round(share * part * scores.size)
        order = np.argsort(scores, axis=None, kind="stable")
        kept: np.ndarray = np.ones(scores.size, bool)
        kept[order[:count]] = False
        return kept.reshape(scores.shape)
    groups, width, outputs = scores.shape
    fours = scores.reshape(groups, width // inner, inner // 4, 4, outputs)
    ranks = np.argsort(np.argsort(fours, axis=3, kind="stable"), axis=3)
    lost = 2 if part > 0.75 else 1
    return (ranks >= lost).reshape(scores.shape)


def solve_kept(
    gram: np.ndarray, wanted: np.ndarray, start: np.ndarray, kept: np.ndarray, count: int
) -> np.ndarray:
    """Solve gram @ x = wanted for the kept entries of x; the others are zero.

    Conjugate gradients on the kept entries of all columns side by side, preconditioned by the
    diagonal (Hestenes and Stiefel 1952): every step brings each column's quadratic form down.

    Args:
        gram: symmetric and positive definite, float (groups, width, width).
        wanted: float (groups, width, outputs).
        start: the same shape, where to begin.
        kept: the same shape, bool.
        count: steps; with as many as a column has kept entries the solution is exact.

    Returns:
        float (groups, width, outputs).
    """
    tiny = np.finfo(gram.dtype).tiny
    scale = (1 / np.diagonal(gram, axis1=1, axis2=2))[..., None]
    found = start * kept
    rest = kept * (wanted - gram @ found)
    way = scale * rest
    height = (rest * way).sum(1, keepdims=True)
    for _ in range(count):
        slope = kept * (gram @ way)
        bend = (way * slope).sum(1, keepdims=True)
        step = np.where(bend > 0, height, 0) / np.maximum(bend, tiny)
        found = found + step * way
        rest = rest - step * slope
        before, height = height, (rest * scale * rest).sum(1, keepdims=True)
        if not height.any():
            break
        way = scale * rest + height / np.maximum(before, tiny) * way
    return found


class _Walk:
    """Runs the original and the pruned network to a layer's inputs, from the nearest cut.

    Attributes:
        solved: calls of layers that are solved anew, in the original and the pruned network.
    """

    def __init__(self, model: keras.Model, slim: keras.Model, reader: Reader) -> None:
        self.models, self.reader = (model, slim), reader
        count = min(len(reader), _SAMPLES)
        places = np.linspace(0, len(reader) - 1, count).round().astype(int)
        self.parts = np.split(places, range(_BATCH, count, _BATCH))
        self.views = range(max(1, _SAMPLES // count) if reader.varied else 1)
        self.count = count * len(self.views)
        self.cuts = [cut_points(one) for one in self.models]
        self.walks = [steps(one) for one in self.models]
        self.order = {step.name: at for at, step in enumerate(self.walks[0])}
        names = [step.name for step in self.walks[0]]
        self.solved = [
            (before, after)
            for before, after in zip(*self.walks, strict=True)
            if type(before.operation).__name__ in _SOLVED and names.count(before.name) == 1
        ]
        self.at: int | None = None
        self.kept: list[list[np.ndarray]] = []

    def inputs(self, number: int) -> Iterator[_Batch]:
        """Yield what goes into a layer that is solved, by its number."""
        pair = self.solved[number]
        shortcuts = [self._shortcut(which, step) for which, step in enumerate(pair)]
        # What is kept must reach the shortcut, too.
        self._advance(min([self.order[pair[0].name] - 1, *(self.order[step.name] for step in
                           shortcuts[0][1:])]))  # fmt: skip
        functions = [
            self._function(which, [step.inputs[0], *shortcut[:1]])
            for which, (step, shortcut) in enumerate(zip(pair, shortcuts, strict=True))
        ]
        for batch in self._batches():
            old, new = (call(one) for call, one in zip(functions, batch, strict=True))
            lack = old[1] - new[1] if shortcuts[0] else None
            yield _Batch(old[0], new[0], lack, self.count)

    def _shortcut(self, which: int, step: Step) -> list[Any]:
        """The tensor that a layer's output is added to, if it goes nowhere else, and its step."""
        walk = self.walks[which]
        readers = [one for one in walk if any(x is step.outputs[0] for x in one.inputs)]
        if len(readers) != 1 or type(readers[0].operation).__name__ != "Add":
            return []
        others = [x for x in readers[0].inputs if x is not step.outputs[0]]
        makers = [one for one in walk if any(x is others[0] for x in one.outputs)]
        made, last = self.order[makers[0].name], self.order[step.name]
        if len(others) != 1 or made > last or others[0].shape != step.outputs[0].shape:
            return []
        return [others[0], makers[0]]

    def _advance(self, position: int) -> None:
        """Keep what both networks give at the last cut up to a step, if it is small enough."""
        cuts = self.cuts[0]
        behind = -1 if self.at is None else self.at
        for number in reversed(range(behind + 1, len(cuts))):
            shape = cuts[number].shape[1:]
            if cuts[number].position > position or number == 0 or None in shape:
                continue
            if 4 * self.count * np.prod(shape, dtype=np.float64) > _CACHED:
                continue
            functions = [
                self._function(which, [self.cuts[which][number].tensor]) for which in (0, 1)
            ]
            made = [
                [call(one)[0] for call, one in zip(functions, batch, strict=True)]
                for batch in self._batches()
            ]
            self.kept, self.at = made, number
            return

    def _batches(self) -> Iterator[list[Any]]:
        if self.at is not None:
            yield from self.kept
            return
        for view in self.views:
            for batch in read_ahead(self.reader, self.parts, view):
                yield [batch, batch]

    def _function(self, which: int, tensors: list[Any]) -> Any:
        import keras

        model = self.models[which]
        if self.at is None:
            whole = keras.Model(alone(model.inputs), tensors)
            return lambda batch: _arrays(whole(pack_inputs(whole, batch), training=False))
        start = self.cuts[which][self.at].tensor
        beyond = [tensor for tensor in tensors if tensor is not start]
        if not beyond:
            return lambda maps: [maps] * len(tensors)
        part = keras.Model(start, beyond)

        def call(maps: np.ndarray) -> list[np.ndarray]:
            made = iter(_arrays(part(maps, training=False)))
            return [maps if tensor is start else next(made) for tensor in tensors]

        return call


def _arrays(outputs: Any) -> list[np.ndarray]:
    import keras

    return [np.asarray(one, np.float32) for one in keras.tree.flatten(outputs)]
