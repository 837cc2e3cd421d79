"""Labels that are likely wrong, found by models that have not seen them, and whether to drop them.

Each sample is judged by models of the features that were fitted without it. A label that these
hold improbable is a suspect; how many there are is estimated by confident learning (Northcutt et
al. 2021, arXiv 1911.00068, as the library cleanlab has it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_keras.analysis.out_of_fold import (
    FOLDS,
    OutOfFold,
    ask_linear,
    assign_folds,
    fit_out_of_fold,
    standardize,
)
from tl_keras.errors import DataError
from tl_keras.tasks.base import Task

__all__ = [
    "DropDecision", "Suspects", "decide_drop", "find_suspects", "rank_suspects",
]  # fmt: skip

_SHARES = (0.5, 0.75, 1.0)
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Suspects:
    """Samples whose labels are likely wrong.

    Attributes:
        scores: float64 (n,), the higher the likelier wrong: 1 minus the probability of the label
            (of the least probable tag) for "classes" and "tags"; for "values" the residual in
            robust standard deviations.
        indices: int64 of those that are taken for wrong, the worst first.
        suggested: a label of each that the models hold likelier, as the task has labels.
    """

    scores: np.ndarray
    indices: np.ndarray
    suggested: np.ndarray


def find_suspects(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    task: Task,
    outputs: int,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Suspects, OutOfFold]:
    """Find labels that are likely wrong.

    Two rounds: the suspects of the first are left out of what the second learns from, so that
    wrong labels do not vouch for each other.

    Args:
        views: see :func:`fit_out_of_fold`, as the other arguments.
        labels: see there.
        task: see there.
        outputs: see there.
        groups: see there.
        seed: see there.

    Returns:
        The suspects, and what the models of the first round say, which have left nothing out:
        their accuracy is an honest estimate.

    Raises:
        DataError: see :func:`fit_out_of_fold`.
    """
    labels = np.asarray(labels)
    first = fit_out_of_fold(views, labels, task, outputs, groups=groups, seed=seed)
    ignored: np.ndarray = np.zeros(len(labels), bool)
    ignored[rank_suspects(first.outputs, labels, task).indices] = True
    if _empties(ignored, labels, task, outputs):
        return rank_suspects(first.outputs, labels, task), first
    second = fit_out_of_fold(
        views, labels, task, outputs, groups=groups, ignored=ignored, seed=seed + 1
    )
    return rank_suspects(second.outputs, labels, task), first


def _empties(
    dropped: np.ndarray, labels: np.ndarray, task: Task, outputs: int, least: int = 2
) -> list[int]:
    """Classes (or tags) of which fewer than so many samples would stay, though more are there."""
    names = [str(i) for i in range(outputs)]
    before, after = task.counts(labels, names), task.counts(labels[~dropped], names)
    return [i for i, name in enumerate(before) if after[name] < min(before[name], least)]


def rank_suspects(outputs: np.ndarray, labels: np.ndarray, task: Task) -> Suspects:
    """Rank samples by how likely their labels are wrong, and estimate how many are.

    Args:
        outputs: of models that have not seen the samples, see :class:`OutOfFold`.
        labels: as the task has them.
        task: "classes", "tags" or "values".

    Raises:
        DataError: the outputs are no finite numbers, or the task is another.
    """
    outputs, labels = np.asarray(outputs, np.float64), np.asarray(labels)
    if not np.isfinite(outputs).all():
        raise DataError("predictions hold values that are no numbers; check the model's weights")
    scores, flagged, suggested = task.doubt_labels(outputs, labels)
    indices = np.flatnonzero(flagged)
    return Suspects(scores, indices[np.argsort(-scores[indices], kind="stable")], suggested)


@dataclass(frozen=True, eq=False)
class DropDecision:
    """Whether a model is better without the suspects, and why.

    Attributes:
        indices: int64, what to leave out of training, the worst first; empty where nothing.
        reason: one sentence for the reader.
        evidence: "suspects" (how many there are), "tried" (for each share of them: share, count,
            gain of the log loss in nats, low and high one standard error from it, and the
            accuracies without and with) and
            "share" (the chosen one, 0 for none).
    """

    indices: np.ndarray
    reason: str
    evidence: dict[str, Any]


def decide_drop(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    task: Task,
    class_names: Sequence[str],
    suspects: Suspects,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> DropDecision:
    """Decide whether to drop suspects, by what it does to samples that had no part in it.

    For each fold suspects are found anew among the other folds alone, a logistic regression is
    fitted on those folds with and without them, and both are asked about the fold. Every sample of
    the fold counts, suspects too: to leave them out would favor dropping, since what stays is what
    the models agree with already. Wrong labels lower both models' scores alike. Half, three
    quarters and all of the suspects are tried; the share with the largest gain in log loss is
    taken if the gain is more than one standard error above 0 (chosen on rsscn7 and CIFAR-10 with
    and without flipped labels, see `benchmarks/label_noise.py`).

    Args:
        views: features (n, d), one array a view.
        labels: class indices (n,).
        task: "classes".
        class_names: in output order.
        suspects: of all samples, see :func:`find_suspects`.
        groups: int (n,), samples of one number are left out together.
        seed: decides the folds.

    Raises:
        DataError: the task is another, a class would have no sample left, or as
            :func:`fit_out_of_fold`.
    """
    if task.name != "classes":
        raise DataError(
            f"got task '{task.name}'; dropping suspects needs one class a sample ('classes')"
        )
    labels, many = np.asarray(labels), len(suspects.indices)
    if not many:
        return _kept("No label is likely wrong.", 0, [])
    dropped = np.isin(np.arange(len(labels)), suspects.indices)
    emptied = _empties(dropped, labels, task, len(class_names), least=1)
    if lost := [str(class_names[i]) for i in emptied]:
        raise DataError(
            f"dropping suspects would leave nothing of {', '.join(lost[:5])}: every label of it is "
            "suspect. Look at them with tl-keras check-data --labels, or train with all"
        )
    tried = _try_shares(standardize(views), labels, task, len(class_names), groups, seed)
    for one in tried:
        one["count"] = round(one["share"] * many)
    best = max(tried, key=lambda one: one["gain"])
    if best["low"] <= 0 or not best["count"]:
        return _kept(
            f"{many} labels are likely wrong, but leaving them out is not measured to help (log "
            f"loss of held-out samples {best['gain']:+.3f} nats better, standard error "
            f"{best['gain'] - best['low']:.3f})", many, tried,
        )  # fmt: skip
    share = "all" if best["count"] == many else f"the worst {best['count']} of"
    return DropDecision(
        suspects.indices[: best["count"]],
        f"left out {share} {many} suspects: log loss of held-out samples {best['gain']:.3f} nats "
        f"better, standard error {best['gain'] - best['low']:.3f}",
        {"suspects": many, "tried": tried, "share": best["share"]},
    )


def _kept(reason: str, many: int, tried: list[dict[str, Any]]) -> DropDecision:
    none: np.ndarray = np.zeros(0, np.int64)
    return DropDecision(none, reason, {"suspects": many, "tried": tried, "share": 0.0})


def _try_shares(
    points: list[np.ndarray],
    labels: np.ndarray,
    task: Task,
    classes: int,
    groups: np.ndarray | None,
    seed: int,
) -> list[dict[str, Any]]:
    strength = _best_strength(points, labels, classes, seed)
    alone = np.arange(len(labels)) if groups is None else groups
    parts = assign_folds(labels, alone, FOLDS, seed)
    found = np.zeros((1 + len(_SHARES), len(labels), classes))
    for part in np.unique(parts):
        out, rest = parts == part, np.flatnonzero(parts != part)
        among = [one[rest] for one in points]
        asked = [one[out] for one in points]
        worst = find_suspects(
            among, labels[rest], task, classes, groups=alone[rest], seed=seed + 2
        )[0].indices
        for place, share in enumerate((0.0, *_SHARES)):
            kept: np.ndarray = np.delete(rest, worst[: round(share * len(worst))])
            within = [one[kept] for one in points]
            found[place, out] = ask_linear(within, labels[kept], asked, classes, strength)
    rows = np.arange(len(labels))
    right = found.argmax(2) == labels
    # Bounded: a single label that a model excludes would outweigh all others.
    logs = np.log(np.maximum(found[:, rows, labels], _LEAST))
    made = []
    for place, share in enumerate(_SHARES, start=1):
        gains = logs[place] - logs[0]
        error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
        gain = float(gains.mean())
        made.append({
            "share": share, "gain": gain, "low": gain - error, "high": gain + error,
            "accuracy_before": float(right[0].mean()), "accuracy_after": float(right[place].mean()),
        })  # fmt: skip
    return made


def _best_strength(points: list[np.ndarray], labels: np.ndarray, classes: int, seed: int) -> float:
    """The inverse penalty with the least log loss out of fold, on all samples."""
    parts, losses = assign_folds(labels, np.arange(len(labels)), 3, seed), []
    for strength in _STRENGTHS:
        loss = 0.0
        for part in np.unique(parts):
            out = parts == part
            within, asked = [one[~out] for one in points], [one[out] for one in points]
            found = ask_linear(within, labels[~out], asked, classes, strength)
            own = found[np.arange(len(found)), labels[out]]
            loss -= float(np.log(np.maximum(own, _LEAST)).sum())
        losses.append(loss)
    return _STRENGTHS[int(np.argmin(losses))]
