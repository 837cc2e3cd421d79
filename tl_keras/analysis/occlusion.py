"""Finds the words of a text that a model's answer rests on, by leaving each out in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.evaluation.mistakes import Mistake
from tl_keras.features.extract import predict
from tl_keras.modalities.text.reader import Text

if TYPE_CHECKING:
    import keras

__all__ = ["add_words", "ask_model", "weigh_words"]

_MOST_WORDS = 60


def weigh_words(
    texts: Sequence[str], answers: Sequence[int], ask: Callable[[list[str]], np.ndarray]
) -> list[list[tuple[str, float]]]:
    """Say by how much each word of a text supports an answer.

    The weight of a word is the probability of the answer for the whole text less that for the text
    without it (occlusion, Zeiler and Fergus 2013, arXiv 1311.2901; on words: Li et al. 2016, arXiv
    1612.08220). Words end at blanks; those behind the 60th are left in and get no weight.

    Args:
        texts: To explain.
        answers: Index of the answer to explain, for each text.
        ask: Gives probabilities (n, classes) for texts.

    Returns:
        For each text its words and their weights, -1..1, in order.
    """
    asked: list[str] = []
    places: list[tuple[int, list[str]]] = []
    for text in texts:
        words = text.split()
        count = min(len(words), _MOST_WORDS)
        places.append((len(asked), words[:count]))
        asked.append(text)
        # A text of one word has nothing left without it.
        asked += [" ".join(words[:i] + words[i + 1 :]) or "." for i in range(count)]
    outputs = ask(asked) if asked else np.zeros((0, 1))
    found = []
    for (start, words), answer in zip(places, answers, strict=True):
        believed = outputs[start : start + 1 + len(words), answer]
        weights = (believed[0] - believed[1:]).astype(float).tolist()
        found.append(list(zip(words, weights, strict=True)))
    return found


def ask_model(model: keras.Model, samples: Samples) -> Callable[[list[str]], np.ndarray]:
    """Return what gives a model's outputs for texts, which are read as samples are.

    Args:
        model: Takes what the samples' modality reads.
        samples: Of texts.
    """

    def ask(texts: list[str]) -> np.ndarray:
        asked = dataclasses.replace(
            samples, items=[Text(text) for text in texts], splits=None,
            labels=np.zeros((len(texts), *samples.labels.shape[1:]), samples.labels.dtype),
            keys=tuple(f"asked {number}" for number in range(len(texts))),
        )  # fmt: skip
        return predict(model, asked)

    return ask


def add_words(
    model: keras.Model, samples: Samples, mistakes: Sequence[Mistake]
) -> list[Mistake]:
    """Return mistakes on texts with the weight of each word for the wrong class.

    Args:
        model: made them.
        samples: that it was asked about.
        mistakes: of these samples, see :func:`tl_keras.evaluation.mistakes.collect_mistakes`.
    """
    shown = [one for one in mistakes if isinstance(one.preview, str) and one.index >= 0]
    texts = [str(one.preview) for one in shown]
    weighed = weigh_words(texts, [one.places[1] for one in shown], ask_model(model, samples))
    found = {one.index: tuple(words) for one, words in zip(shown, weighed, strict=True)}
    return [dataclasses.replace(one, words=found.get(one.index, ())) for one in mistakes]
