"""Solves the head of a stage on what its layers before it give, on folds of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.errors import PlanError
from tl_keras.evaluation.folds import assign_folds
from tl_keras.models import graph
from tl_keras.models.rewrite import flat_view
from tl_keras.training import freezing
from tl_keras.training.solved_head import ACTIVATIONS, SolvedHead, solve_head
from tl_keras.training.trials import Folded

if TYPE_CHECKING:
    import keras

    from tl_keras.training.objective import Objective

__all__ = ["FOLDS", "SOLVED_VIEWS", "can_solve", "dense_layer", "head_activation", "solve_stage"]

FOLDS = 4
SOLVED_VIEWS = 2


def solve_stage(
    suffix: keras.Model, objective: Objective, views: Sequence[Any], val: Any, seed: int
) -> Folded:
    """Return a stage's solved head and the folds it was judged on.

    With validation samples there is one fold: learn from training, judge by validation. The
    plain images alone, or with a view of each, are learned from, whichever is better out of fold.

    Args:
        suffix: The head, on what the layers before it give.
        objective: Labels, targets and weights.
        views: Features of the training samples, (n, d) each; the first is of them as they are.
        val: Features of the validation samples, (m, d).
        seed: Decides the folds.

    Raises:
        PlanError: The head is not one dense layer with a known activation on a vector.
        DataError: There are too few samples, or they have one label.
    """
    data, task, count = objective.data, objective.task, len(objective.data.train)
    activation = head_activation(suffix)
    balanced = objective.plan.class_weights
    labels, targets, weights = data.train.labels, objective.labels, objective.weights
    rows, folds = np.arange(count), list[tuple[np.ndarray, np.ndarray]]()
    if len(data.val):
        folds = [(rows, count + np.arange(len(data.val)))]
        more = task.balanced_weights(data.val.labels, objective.outputs)
        labels = np.concatenate([labels, data.val.labels])
        targets = np.concatenate([targets, objective.targets(data.val)])
        weights = np.concatenate([weights, more if balanced else np.ones_like(more)])
    else:
        strata = task.strata(labels)
        parts = assign_folds(strata - strata.min(), rows, FOLDS, seed)
        folds = [(np.flatnonzero(parts != k), np.flatnonzero(parts == k)) for k in np.unique(parts)]
    plain = np.concatenate([np.asarray(views[0], np.float32), np.asarray(val, np.float32)])

    def losses(outputs: np.ndarray, aims: np.ndarray) -> np.ndarray:
        return task.sample_losses(outputs, aims)

    found: list[SolvedHead] = []
    for many in {1, len(views)}:
        seen = [plain, *(np.asarray(one, np.float32) for one in views[1:many])]
        found.append(solve_head(seen, targets, weights, activation, folds, losses))
    best = min(found, key=lambda head: min(head.tried.values()))
    return Folded(folds, best, labels, targets, weights, lambda rows: plain[rows], task)


def can_solve(model: keras.Model) -> bool:
    """Return whether a model's head is one that :func:`solve_stage` solves.

    The `trainable` flags of its layers are set anew.
    """
    flat = flat_view(model).model
    freezing.freeze(flat, ("head",))
    cut = freezing.last_frozen_cut(flat)
    return cut is not None and _activation(graph.split(flat, cut)[1]) in ACTIVATIONS


def dense_layer(suffix: keras.Model) -> Any:
    """Return the last dense layer of a model."""
    import keras

    return [one for one in suffix.layers if isinstance(one, keras.layers.Dense)][-1]


def head_activation(suffix: keras.Model) -> str:
    """Return the activation of a head that is one dense layer on a vector.

    Raises:
        PlanError: It is not, or its optimum cannot be solved.
    """
    found = _activation(suffix)
    if found not in ACTIVATIONS:
        raise PlanError(
            "the head cannot be solved: it is not one dense layer (softmax, sigmoid or linear) on "
            "a pooled vector of a frozen base; take plan lp-ft or probe, which train it by steps"
        )
    return found


def _activation(suffix: keras.Model) -> str:
    """Name what follows the one layer with weights, a dense one; "" where it is otherwise."""
    import keras

    if len(suffix.inputs) != 1 or len(suffix.inputs[0].shape) != 2:
        return ""
    weighted = [layer for layer in suffix.layers if layer.weights]
    if len(weighted) != 1 or not isinstance(weighted[0], keras.layers.Dense):
        return ""
    if not weighted[0].use_bias:
        return ""
    known = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Activation)
    others = [one for one in suffix.layers if one is not weighted[0]]
    if not all(isinstance(one, known) for one in others):
        return ""
    names = [weighted[0].activation.__name__]
    names += [one.activation.__name__ for one in others if hasattr(one, "activation")]
    bent = [name for name in names if name != "linear"]
    return "linear" if not bent else bent[0] if len(bent) == 1 else ""
