"""What simple answers give on texts: word counts with a linear model, and class names alone.

Whoever trains a text encoder should know both: tf-idf with logistic regression costs seconds and
is hard to beat on long texts; class names as prompts need no label at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tl_keras.errors import DataError

__all__ = ["PROMPTS", "class_prompts", "predict_by_prompts", "predict_by_words"]

PROMPTS = ("{}", "This is about {}.", "The sentiment is {}.", "The answer is a {}.")
"""Sentences that a class name is put into."""
_STRENGTHS = (1.0, 10.0, 100.0)
_SEARCHED = 20_000
_WORDS = 200_000
_SHARPNESS = 20.0


def predict_by_words(
    texts: Sequence[str], labels: np.ndarray, judged: Sequence[str] | None, activation: str
) -> np.ndarray:
    """Fit a linear model on words and pairs of words (tf-idf), and return what it says.

    Args:
        texts: To learn from.
        labels: Of the task: int64 (n,) for "softmax", 0 or 1 (n, outputs) for "sigmoid", numbers
            (n, outputs) for "linear".
        judged: What to answer; None answers `texts` by four folds.
        activation: Of the task's head.

    Returns:
        float32 (m, outputs): probabilities, or numbers for "linear".

    Raises:
        DataError: The texts have no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    words = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=_WORDS, token_pattern=r"(?u)\b\w+\b"
    )
    ways: dict[str, Callable[[], Any]] = {
        "softmax": lambda: GridSearchCV(
            LogisticRegression(max_iter=500), {"C": _STRENGTHS}, scoring="neg_log_loss", cv=4
        ),
        "sigmoid": lambda: OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=500)),
        "linear": lambda: Ridge(1.0),
    }
    few = activation == "softmax" and np.bincount(labels)[np.unique(labels)].min() < 4
    if few or len(texts) > _SEARCHED:
        ways["softmax"] = lambda: LogisticRegression(C=10.0, max_iter=500)
    model = make_pipeline(words, ways[activation]())
    method = "predict" if activation == "linear" else "predict_proba"
    try:
        with threadpool_limits(1):
            if judged is None:
                plain = make_pipeline(words, LogisticRegression(C=10.0, max_iter=500))
                folded = plain if activation == "softmax" else model
                found = cross_val_predict(folded, list(texts), labels, cv=4, method=method)
            else:
                found = getattr(model.fit(list(texts), labels), method)(list(judged))
    except ValueError as error:
        raise DataError(f"no words to learn from: {error}") from error
    found = np.asarray(found, np.float32)
    return found[:, np.newaxis] if found.ndim == 1 else found


def class_prompts(class_names: Sequence[str], prompt: str) -> list[str]:
    """Return one sentence a class, underscores and dashes of its name read as blanks."""
    names = [name.replace("_", " ").replace("-", " ").strip() for name in class_names]
    return [prompt.format(name) for name in names]


def predict_by_prompts(vectors: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Return how near texts are to sentences about classes, as probabilities.

    Args:
        vectors: Of texts, (n, d), by an encoder that puts like sentences near each other.
        prompts: Of one sentence a class, (classes, d).

    Returns:
        float32 (n, classes): softmax of 20 times the cosines, as sentence encoders are trained
        with (Reimers and Gurevych 2019, arXiv 1908.10084).
    """
    from scipy.special import softmax

    ends = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12)
            for one in (vectors, prompts)]  # fmt: skip
    return softmax(_SHARPNESS * ends[0] @ ends[1].T, axis=1).astype(np.float32)
