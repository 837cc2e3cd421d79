"""How improbable given classes are to models that have not seen the samples."""

from __future__ import annotations

import numpy as np

__all__ = ["doubt_classes"]


def doubt_classes(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much each label is doubted, and which labels are taken for wrong.

    How many are wrong is estimated by confident learning (Northcutt et al. 2021, arXiv 1911.00068,
    as the library cleanlab has it); as many of the most doubted are taken.

    Args:
        probabilities: (n, classes), of models that have not seen the samples.
        labels: class indices (n,).

    Returns:
        1 minus each label's probability, float64 (n,), and bool (n,).
    """
    from cleanlab.filter import find_label_issues

    scores = 1.0 - probabilities[np.arange(len(labels)), labels]
    known = np.unique(labels)
    if len(known) < 2:
        return scores, np.zeros(len(labels), bool)
    # Classes that nobody has are none to cleanlab.
    shares = np.maximum(probabilities[:, known], 1e-12)
    shares = shares / shares.sum(1, keepdims=True)
    flagged = find_label_issues(
        np.searchsorted(known, labels), shares, filter_by="low_self_confidence", n_jobs=1
    )
    # A label that the models hold likelier than all others is none to doubt.
    return scores, np.asarray(flagged) & (probabilities.argmax(1) != labels)
