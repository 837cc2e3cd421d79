"""What harms in a set of samples: wrong labels, copies, outliers, hard classes, weak groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tl_keras.analysis.label_quality import Suspects, find_suspects
from tl_keras.analysis.near_duplicates import (
    describe_group,
    find_near_duplicates,
    find_outliers,
)
from tl_keras.analysis.out_of_fold import OutOfFold
from tl_keras.analysis.weak_groups import find_confusable, find_weak_groups, group_by_folder
from tl_keras.data.samples import Samples
from tl_keras.utils.stats import wilson

__all__ = ["Quality", "examine", "number_groups"]

_MOST = 1000


@dataclass(frozen=True, eq=False)
class Quality:
    """What was found in samples, by their places among them.

    Attributes:
        samples: what was looked at.
        suspects: labels that are likely wrong.
        judged: what models that have not seen a sample say of it.
        duplicates: near duplicates: kind (see
            :func:`tl_keras.analysis.near_duplicates.describe_group`) and indices, leaks first.
        outliers: samples that are like no other, the farthest first.
        distances: float64 (n,), of each sample from its nearest others.
        confusable: see :func:`tl_keras.analysis.weak_groups.find_confusable`.
        weak_groups: see :func:`tl_keras.analysis.weak_groups.find_weak_groups`.
    """

    samples: Samples
    suspects: Suspects
    judged: OutOfFold
    duplicates: list[tuple[str, list[int]]]
    outliers: np.ndarray
    distances: np.ndarray
    confusable: list[dict[str, Any]] = field(default_factory=list)
    weak_groups: list[dict[str, Any]] = field(default_factory=list)

    def label(self, index: int) -> str:
        """Return a sample's label as text."""
        return self.samples.kind.describe(self.samples.labels[index], self.samples.class_names)

    def suggestion(self, index: int) -> str:
        """Return the label that the models would give a suspect, as text."""
        said = self.suspects.suggested[index]
        return self.samples.kind.describe(said, self.samples.class_names)

    def facts(self) -> dict[str, Any]:
        """Return the findings as JSON-able values: samples by key, at most 1000 of a kind."""
        keys, words = self.samples.keys, self.samples.splits or ("",) * len(self.samples)
        correct = self.samples.kind.correct(self.judged.outputs, self.samples.labels)
        made: dict[str, Any] = {
            "count": len(self.samples),
            "suspects": [
                {
                    "key": keys[i], "split": words[i], "label": self.label(i),
                    "suggested": self.suggestion(i), "score": float(self.suspects.scores[i]),
                }
                for i in self.suspects.indices[:_MOST].tolist()
            ],
            "suspect_count": len(self.suspects.indices),
            "near_duplicates": [
                {"kind": kind, "keys": [keys[i] for i in group]}
                for kind, group in self.duplicates[:_MOST]
            ],
            "near_duplicate_count": len(self.duplicates),
            "outliers": [
                {"key": keys[i], "label": self.label(i), "distance": float(self.distances[i])}
                for i in self.outliers[:_MOST].tolist()
            ],
            "confusable": self.confusable,
            "weak_groups": self.weak_groups,
        }  # fmt: skip
        if correct is not None:
            right = int(np.sum(correct))
            low, high = wilson(right, len(correct))
            made["accuracy"] = {"value": right / len(correct), "low": low, "high": high}
        return made


def number_groups(groups: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Return int64 (count,): samples of one group have one number, all others their own."""
    numbers: np.ndarray = np.arange(count)
    for group in groups:
        numbers[list(group)] = min(group)
    return numbers


def examine(
    samples: Samples,
    views: Sequence[np.ndarray],
    hashes: Sequence[np.ndarray | None],
    about: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Quality:
    """Look for everything in samples that harms a model.

    Copies are judged together, by models that have seen none of them.

    Args:
        samples: of task "classes", "tags" or "values".
        views: features (n, d), one array a view, the plain one first.
        hashes: perceptual hashes, see :func:`find_near_duplicates`.
        about: names of groups to look at, see :func:`find_weak_groups`; splits and folders are
            looked at by themselves.
        seed: decides the folds.

    Raises:
        DataError: the task is another, or the features are not as they should be.
    """
    copies = find_near_duplicates(hashes)
    numbers = number_groups(copies, len(samples))
    task, names = samples.kind, samples.class_names
    suspects, judged = find_suspects(
        views, samples.labels, task, samples.outputs, groups=numbers, seed=seed
    )
    labels = [task.describe(label, names) for label in samples.labels]
    words = samples.splits or ("",) * len(samples)
    kinds = [(describe_group(group, labels, words), group) for group in copies]
    rank = {"leak": 0, "contradict": 1, "repeat": 2}
    kinds.sort(key=lambda one: rank[one[0]])
    distances, outliers = find_outliers(views[0])
    correct = task.correct(judged.outputs, samples.labels)
    weak: list[dict[str, Any]] = []
    if correct is not None:
        groups = {"split": list(words), "folder": group_by_folder(samples.keys, names)}
        if samples.kind.single_label:
            groups["class"] = labels
        weak = find_weak_groups(np.asarray(correct, bool), {**groups, **(about or {})})
    hard = find_confusable(judged.outputs, samples.labels, names) if task.single_label else []
    return Quality(samples, suspects, judged, kinds, outliers, distances, hard, weak)
