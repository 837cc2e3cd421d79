"""Where a model does badly: groups of samples (dark, small, of one folder), classes it mixes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_keras.utils.stats import wilson

__all__ = ["find_confusable", "find_weak_groups", "group_by_folder", "group_by_value"]

_FEWEST = 8
_FEW = 10
_CONFUSED = 0.1
_MOST_FOLDERS = 50


def find_weak_groups(
    correct: np.ndarray, groups: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Find groups that are answered worse than the other samples, beyond chance.

    Fisher's exact test of right answers within and outside a group, at 0.05 over all groups
    together (Holm 1979).

    Args:
        correct: bool (n,), which samples were answered right by models that had not seen them.
        groups: by what each is about ("folder"), the name of each sample's group, "" for none.

    Returns:
        For each group: about, name, count, accuracy, low and high (its 95 % interval), others (the
        accuracy on all other samples) and p_value; the least accurate first.
    """
    from scipy.stats import fisher_exact

    correct, tried = np.asarray(correct, bool), list[dict[str, Any]]()
    for about, names in groups.items():
        named = np.asarray(names, object)
        for name in dict.fromkeys(names):
            within = named == name
            count = int(within.sum())
            if not name or count < _FEWEST or count == len(correct):
                continue
            right, rest = int(correct[within].sum()), int(correct[~within].sum())
            table = [[right, count - right], [rest, len(correct) - count - rest]]
            chance = float(fisher_exact(table, alternative="less").pvalue)
            low, high = wilson(right, count)
            tried.append({
                "about": about, "name": name, "count": count, "accuracy": right / count,
                "low": low, "high": high, "others": rest / (len(correct) - count),
                "p_value": chance,
            })  # fmt: skip
    kept = []
    for place, one in enumerate(sorted(tried, key=lambda one: one["p_value"])):
        if one["p_value"] * (len(tried) - place) > 0.05:
            break
        kept.append(one)
    return sorted(kept, key=lambda one: one["accuracy"])


def group_by_value(values: np.ndarray, names: Sequence[str]) -> list[str]:
    """Name the quarter of a set that each value is in; what is not known is in none.

    Args:
        values: float (n,), NaN where unknown.
        names: of the lowest and of the highest quarter ("dark", "bright"); the middle has none.
    """
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return [""] * len(values)
    low, high = np.quantile(known, [0.25, 0.75])
    return [
        names[0] if value <= low < high else names[1] if value >= high > low else ""
        for value in values
    ]


def group_by_folder(keys: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Return each sample's folder without the parts that name a class or a split.

    "train/ants/camera 2/7.jpg" gives "camera 2". All are "" where that tells hardly any apart, or
    nearly all.
    """
    passed = {*class_names, "train", "val", "valid", "validation", "test"}
    found = [
        "/".join(part for part in key.split("/")[:-1] if part not in passed) for key in keys
    ]
    many = len(set(found))
    return found if 1 < many <= _MOST_FOLDERS else [""] * len(found)


def find_confusable(
    outputs: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Find pairs of classes that models which have not seen the samples cannot tell apart.

    Of the samples of two classes those count for which the models prefer the other class of the
    two; half of them would be chance. A pair of at least 10 samples is named where the lower end of
    that share's 95 % interval (Wilson) is above 0.1.

    Args:
        outputs: probabilities (n, classes), out of fold.
        labels: class indices (n,).
        class_names: in output order.

    Returns:
        For each pair: classes (two names), swapped (the share), low, high and count; the worst
        first.
    """
    found = []
    counts = np.bincount(labels, minlength=len(class_names))
    # How often class i is less likely than class j on samples of class i, without a cube.
    for i in range(len(class_names)):
        own = outputs[labels == i]
        lost_i = (own > own[:, [i]]).sum(0) if len(own) else np.zeros(len(class_names), int)
        for j in range(i + 1, len(class_names)):
            count = int(counts[i] + counts[j])
            if count < _FEW or not counts[i] or not counts[j]:
                continue
            other = outputs[labels == j]
            swapped = int(lost_i[j] + (other[:, i] > other[:, j]).sum())
            low, high = wilson(swapped, count)
            if low > _CONFUSED:
                found.append({
                    "classes": [str(class_names[i]), str(class_names[j])],
                    "swapped": swapped / count, "low": low, "high": high, "count": count,
                })  # fmt: skip
    return sorted(found, key=lambda pair: -pair["swapped"])
