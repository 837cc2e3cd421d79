"""Adds to a run what simple answers give on the samples that its figures are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.text_baselines import (
    PROMPTS,
    class_prompts,
    predict_by_prompts,
    predict_by_words,
)
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError
from tl_keras.features.extract import predict
from tl_keras.modalities.text.reader import Text
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import initial_model, score
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = ["BASELINES", "add_baselines"]

_CHOSEN_ON = 500
_VECTOR = "pool"


def add_baselines(run: RunDirectory, data: Splits, progress: Progress) -> None:
    """Write to a run's record what simple answers give; nothing where its modality has none.

    The record gets `baselines`: for each its name, what it is, the split and its metrics.

    Args:
        run: The run, which still holds its model as it was before training.
        data: Its samples.
        progress: Called with a task's name, what is done and of how much.
    """
    found = BASELINES.get(data.train.modality.name)
    if found is not None:
        run.update(baselines=found(initial_model(run), data, run.record["seed"], progress))


def _text(
    model: keras.Model, data: Splits, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    judged, split = data.train, "out_of_fold"
    for part, name in ((data.test, "test"), (data.val, "val")):
        if part is not None and len(part):
            judged, split = part, name
            break
    task, texts = data.train.kind, _texts(data.train)
    rows = []
    progress("word counts", 0, 1)
    try:
        aside = None if split == "out_of_fold" else _texts(judged)
        outputs = predict_by_words(texts, data.train.labels, aside, task.activation)
    except DataError:
        pass  # texts without any word, such as emoji: nothing to compare with
    else:
        what = "linear model on words and pairs of words (tf-idf)"
        rows.append(_row("words alone", what, split, outputs, judged, seed))
    progress("word counts", 1, 1)
    if task.single_label and any(layer.name == _VECTOR for layer in model.layers):
        prompt, outputs = _by_class_names(model, data, judged, progress)
        what = f"nearest class name, as “{prompt.format('NAME')}”, nothing trained"
        rows.append(_row("class names alone", what, split, outputs, judged, seed))
    return rows


def _row(
    name: str, what: str, split: str, outputs: np.ndarray, judged: Samples, seed: int
) -> dict[str, Any]:
    scores = score(outputs, judged, seed, None)
    kept = {key: scores[key] for key in ("accuracy", "macro_f1", "micro_f1", "mae", "r2")
            if scores.get(key) is not None}  # fmt: skip
    return {"name": name, "what": what, "split": split, "metrics": kept}


def _texts(samples: Samples) -> list[str]:
    return [samples.modality.open(item) for item in samples.items]


def _by_class_names(
    model: keras.Model, data: Splits, judged: Samples, progress: Progress
) -> tuple[str, np.ndarray]:
    """Return the prompt that suits some labelled texts best, and what it says of the judged."""
    import keras

    names = data.train.class_names
    encoder = keras.Model(model.inputs, model.get_layer(_VECTOR).output)
    width = _sentence_width(model)
    held = data.val if len(data.val) and judged is not data.val else data.train
    some = held.take(np.random.default_rng(0).permutation(len(held))[:_CHOSEN_ON])

    def encode(samples: Samples, what: str) -> np.ndarray:
        return predict(encoder, samples, progress=lambda d, n: progress(what, d, n))[:, :width]

    near, vectors = encode(some, "prompts"), encode(judged, "class names")
    best, chosen = -1.0, ("", np.zeros(0))
    for prompt in PROMPTS:
        items = [Text(one) for one in class_prompts(names, prompt)]
        asked = dataclasses.replace(
            data.train, items=items, labels=np.arange(len(names)), splits=None,
            keys=tuple(f"{prompt} {name}" for name in names),
        )  # fmt: skip
        sentences = encode(asked, "prompts")
        right = (predict_by_prompts(near, sentences).argmax(1) == some.labels).mean()
        if right > best:
            best, chosen = float(right), (prompt, predict_by_prompts(vectors, sentences))
    return chosen


def _sentence_width(model: keras.Model) -> int:
    """Return how many of the features are the sentence vector that the encoder was trained for.

    They come first, see `tl_keras.models.backbones.bert.read_blocks`.
    """
    pools = [layer for layer in model.layers if layer.name.endswith("_pool")]
    return int((pools[-1] if pools else model.get_layer(_VECTOR)).output.shape[-1])


BASELINES: dict[str, Callable[..., list[dict[str, Any]]]] = {"text": _text}
"""What gives the simple answers of a modality, by its name."""
