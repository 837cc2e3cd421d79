"""Prune a model: which weights go, who judges, and a fine-tune of those that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.compress.fine_tune import FineTune, fine_tune
from export.compress.keras2.convert import from_keras2, to_keras2
from export.compress.keras2.load import load_tf_keras, load_tfmot
from export.compress.reconstruct import TWO_OF_FOUR, prune_and_reconstruct
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.features.extract import predict

if TYPE_CHECKING:
    import keras

__all__ = ["choose_shares", "choose_spared", "fine_tune_kept", "prune", "set_aside"]

# Kernels that are pruned; of all their weights, the share that the smallest may hold and be spared,
# if the others need not become sparser than this for it.
_PRUNED, _SPARED, _MOST = ("Conv2D", "Dense"), 0.05, 0.9
# Of the training samples, every so many-th judges the pruned model, at most so many of them; of
# fewer than the last number none can be spared.
_EVERY, _JUDGES, _FEW = 5, 256, 20


def prune(
    plain: keras.Model, teacher: keras.Model, data: Splits, how: FineTune, sparsity: float | None
) -> tuple[keras.Model, dict[str, Any]]:
    """Prune a model, and keep what is nearer to its teacher: before or after a fine-tune.

    Args:
        plain: what is pruned, folded; it is not changed.
        teacher: the model before compression.
        data: its training split is pruned, fine-tuned and judged on; nothing else is looked at.
        how: the fine-tune.
        sparsity: share of all kernels' weights that become zero, 0..1, exclusive. None is two of
            each four (Mishra et al. 2021, arXiv 2104.08378).

    Returns:
        The model, and for the record: "loss" of the model "reconstructed" and "fine_tuned" against
        the teacher's answers, which of them is "kept", on how many samples ("judged_on"), and
        whether neither had seen these ("held_out").
    """
    learn, judges = set_aside(data.train)
    shares = choose_shares(plain, sparsity)
    reader = learn.reader(plain, how.augment, how.seed)
    slim = prune_and_reconstruct(plain, reader, shares, how.progress)
    tuned = fine_tune_kept(slim, teacher, replace(data, train=learn), how)
    answers = predict(teacher, judges)
    losses = [
        float(judges.kind.sample_losses(predict(model, judges), answers).mean())
        for model in (slim, tuned)
    ]
    better = losses[1] < losses[0]
    facts = {
        "loss": dict(zip(("reconstructed", "fine_tuned"), losses, strict=True)),
        "kept": "fine_tuned" if better else "reconstructed",
        "judged_on": len(judges),
        "held_out": judges is not learn,
    }
    return (tuned if better else slim), facts


def set_aside(train: Samples) -> tuple[Samples, Samples]:
    """Return samples to prune and fine-tune on, and others to judge by; few serve as both."""
    places = np.arange(len(train))
    judges = places[_EVERY - 1 :: _EVERY]
    if len(train) < _FEW:
        return train, train
    if len(judges) > _JUDGES:
        judges = judges[np.linspace(0, len(judges) - 1, _JUDGES).round().astype(int)]
    return train.take(np.setdiff1d(places, judges)), train.take(judges)


def choose_shares(model: keras.Model, sparsity: float | None) -> dict[str, float]:
    """Return the share of zeros by the name of each kernel that is pruned, see `prune`."""
    spared, share = frozenset[str](), TWO_OF_FOUR
    if sparsity is not None:
        spared, share = choose_spared(model, sparsity)
    return {
        layer.name: share
        for layer in model.layers
        if type(layer).__name__ in _PRUNED
        and layer.name not in spared
        # Without four channels there are no fours.
        and (sparsity is not None or layer.get_weights()[0].shape[-2] % 4 == 0)
    }


def fine_tune_kept(
    slim: keras.Model, teacher: keras.Model, data: Splits, how: FineTune
) -> keras.Model:
    """Return a copy whose weights are fine-tuned, those that are zero staying so."""
    api = load_tfmot().sparsity.keras

    def wrap(layer: Any) -> Any:
        kernel = layer.get_weights()[0] if type(layer).__name__ in _PRUNED else np.ones(1)
        zeros = float(np.mean(kernel == 0))
        if not zeros:
            return layer
        # The smallest go, which are those that went; a hair more, or rounding would spare them all.
        # tfmot's first step is number 1.
        schedule = api.ConstantSparsity(min(zeros + 2e-7, 1 - 1e-7), 1, end_step=1, frequency=1)
        return api.prune_low_magnitude(layer, pruning_schedule=schedule)

    student = load_tf_keras().models.clone_model(to_keras2(slim), clone_function=wrap)
    fine_tune(student, teacher, data, how, "fine-tuning", [api.UpdatePruningStep()])
    return from_keras2(api.strip_pruning(student))


def choose_spared(model: keras.Model, sparsity: float) -> tuple[frozenset[str], float]:
    """Return the smallest kernels' names, which keep all weights, and the share for the others.

    They hold few of the weights and do much of the work: without them the zeros are as many,
    and the answers nearer (benchmarks/README.md).
    """
    sizes = {
        layer.name: layer.get_weights()[0].size
        for layer in model.layers
        if type(layer).__name__ in _PRUNED
    }
    total, held, spared = sum(sizes.values()), 0, set()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        held += sizes[name]
        if held > _SPARED * total or sparsity * total > _MOST * (total - held):
            held -= sizes[name]
            break
        spared.add(name)
    return frozenset(spared), sparsity * total / (total - held) if total else sparsity
