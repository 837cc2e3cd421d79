"""Appraises candidates on a user's images: scores from features alone, and measured costs."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.analysis.candidates import Candidate
from tl_keras.analysis.class_matching import match_classes, matching_accuracy
from tl_keras.analysis.ranking import Appraisal, Costs, Rates, fine_tune_seconds
from tl_keras.analysis.transferability import h_score, knn_accuracy, leep, logme
from tl_keras.data.samples import Samples
from tl_keras.errors import DataError
from tl_keras.features.backends import Batch, Predict, onnx_function, pack_inputs, sort_inputs
from tl_keras.features.extract import BATCH, collect
from tl_keras.features.places import feature_model, parse_places
from tl_keras.modalities.base import Modality
from tl_keras.models import graph
from tl_keras.probing.linear import ridge
from tl_keras.runs.config import RunConfig
from tl_keras.runs.lifecycle import guard
from tl_keras.runs.prepare import bind
from tl_keras.training.plan import named_plan
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.stats import wilson
from tl_keras.workflows.probe import open_backbone

if TYPE_CHECKING:
    import keras

__all__ = ["appraise", "choose_samples", "score_features"]

_TRAINED = (16, 256)
_PIXELS = 2**20
_STEPS = 2
_RUNS = 15


def choose_samples(samples: Samples, most: int, seed: int = 0) -> Samples:
    """Return the images that scores are taken on: as many of each class as of the others.

    Images of a test split are left out.

    Args:
        samples: Task "classes".
        most: At most about so many in all, but two of each class in any case.
        seed: Chooses among them.

    Raises:
        DataError: A class has fewer than two images, or the task is another.
    """
    samples.kind.require_single_label("advice")
    words = samples.splits or ("",) * len(samples)
    pool = samples.take([i for i, word in enumerate(words) if word != "test"])
    few = [f"{name} has {count}" for name, count in pool.counts().items() if count < 2]
    if few:
        raise DataError(
            f"advice needs two pictures or more of each class outside the test split; "
            f"{', '.join(few[:10])}; add some"
        )
    share = max(2, most // pool.outputs)
    shuffled = np.random.default_rng(seed).permutation(len(pool))
    labels = pool.labels[shuffled]
    kept = [shuffled[labels == c][:share] for c in range(pool.outputs)]
    return pool.take(np.sort(np.concatenate(kept)))


@guard()
def appraise(
    candidate: Candidate,
    samples: Samples,
    pictures: int,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Appraisal:
    """Score a candidate on samples, and measure what it costs.

    Args:
        candidate: The base.
        samples: From :func:`choose_samples`.
        pictures: Training images there are in all, for the time of fine-tuning.
        seed: Decides random weights.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        TLKerasError: The base cannot be had, or an image cannot be read.
    """
    began = time.perf_counter()
    samples = bind(samples, candidate.base, candidate.size)
    opened = _open(candidate, seed, samples.modality)
    read, features, source, forward = _run(opened, samples, candidate.name, progress)
    scores, intervals = score_features(features, samples.labels, samples.outputs, source)
    latency = _latency(opened.predict, [array[:1] for array in read])
    rates = Rates(forward, _training_rate(opened.features, read, samples))
    plan = named_plan("lp-ft")
    tuning = fine_tune_seconds(pictures, plan.views, plan.stages[-1].epochs, rates)
    costs = Costs(tuning, opened.size, latency, time.perf_counter() - began)
    facts = {"at": opened.at, "size": str(read[0].shape[1])}
    matches = {}
    if source is not None:
        matching = match_classes(source, samples.labels, samples.outputs)
        matches = {name: matching.top(i) for i, name in enumerate(samples.class_names)}
    return Appraisal(candidate.name, scores, intervals, costs, features.shape[1], facts, matches)


def score_features(
    features: np.ndarray, labels: np.ndarray, classes: int, source: np.ndarray | None = None
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return all scores of features, see `tl_keras.analysis.ranking.Appraisal`.

    Args:
        features: (n, d).
        labels: Class indices, (n,).
        classes: How many.
        source: (n, source classes), the base's own probabilities if it has a classifier.
    """
    head = ridge(features, labels, classes)
    scores = {
        "logme": logme(features, labels, classes),
        "h_score": h_score(features, labels, classes),
        "knn": knn_accuracy(features, labels),
        "ridge": float(head.facts["loo_accuracy"]),
        "ridge_log_likelihood": -float(head.facts["loo_log_loss"]),
    }
    if source is not None:
        scores["leep"] = leep(source, labels, classes)
        scores["matching"] = matching_accuracy(source, labels, classes)
    count, shares = len(labels), [name for name in ("knn", "ridge", "matching") if name in scores]
    return scores, {name: wilson(round(scores[name] * count), count) for name in shares}


@dataclass(frozen=True, eq=False)
class _Opened:
    """A candidate that runs: its features as a model and in ONNX Runtime, bytes, place."""

    features: keras.Model
    predict: Predict
    size: int
    at: str


def _open(candidate: Candidate, seed: int, modality: Modality) -> _Opened:
    import keras

    config = RunConfig.of(
        "", candidate.base, candidate.size, candidate.weights, seed=seed, modality=modality.name
    )
    base = open_backbone(config, modality.input_size)
    place = parse_places(candidate.at, base)[0]
    features = feature_model(base, place)
    from tl_keras.models.onnx_graph import to_onnx

    content = to_onnx(features).SerializeToString()
    predict = onnx_function(content)
    answers = _probabilities(base)
    if answers is not None:
        both = keras.Model(graph.alone(base.inputs), [features.outputs[0], answers])
        predict = onnx_function(to_onnx(both).SerializeToString())
    return _Opened(features, predict, len(content), "+".join(place))


def _probabilities(base: keras.Model) -> Any | None:
    """The output (None, classes) that a softmax gives, whichever of several it is; or None."""
    for step in graph.steps(base):
        activation = getattr(getattr(step.operation, "activation", None), "__name__", "")
        if "softmax" in (activation, type(step.operation).__name__.lower()):
            for tensor in step.outputs:
                if len(tensor.shape) == 2 and any(tensor is one for one in base.outputs):
                    return tensor
    return None


def _run(
    opened: _Opened, samples: Samples, name: str, progress: Progress
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None, float]:
    """The first samples, all features, the base's own probabilities, samples a second."""
    reader, seconds = samples.reader(opened.features), []

    def timed(batch: Batch) -> list[np.ndarray]:
        began = time.perf_counter()
        outputs = opened.predict(batch)
        seconds.append(time.perf_counter() - began)
        return outputs

    found = collect(timed, reader, progress=functools.partial(progress, name))
    first = reader.read(range(min(BATCH, len(reader))))
    names = [one.name for one in opened.features.inputs]
    # The first run prepares itself.
    timing, count = (seconds[1:], len(reader) - BATCH) if seconds[1:] else (seconds, len(reader))
    rate = count / max(sum(timing), 1e-9)
    return sort_inputs(first, names), found[0], found[1] if found[1:] else None, rate


def _latency(predict: Predict, sample: Batch) -> float:
    """Median milliseconds of one sample at a time."""
    seconds = []
    for _ in range(_RUNS + 2):
        began = time.perf_counter()
        predict(sample)
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[2:]))


def _training_rate(features: keras.Model, read: list[np.ndarray], samples: Samples) -> float:
    """Samples a second of a few steps that train everything but BatchNorm.

    The steps are not compiled: compiling would take longer than all the rest. Small samples
    come in large batches, so that arithmetic outweighs what compiling would save.
    """
    import keras
    import tensorflow as tf

    outputs = keras.layers.Dense(samples.outputs)(features.outputs[0])
    model = keras.Model(graph.alone(features.inputs), outputs)
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    optimizer = keras.optimizers.AdamW(1e-5)
    optimizer.build(model.trainable_variables)
    count = int(np.clip(_PIXELS // max(one[0, ..., 0].size for one in read), *_TRAINED))
    labels = tf.constant(np.resize(samples.labels, count))
    batch = pack_inputs(model, [np.resize(one, (count, *one.shape[1:])) for one in read])
    seconds = [_step(model, optimizer, batch, labels) for _ in range(1 + _STEPS)]
    return count / min(seconds[1:])


def _step(model: keras.Model, optimizer: Any, batch: Any, labels: Any) -> float:
    import tensorflow as tf

    began = time.perf_counter()
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    optimizer.apply_gradients(
        zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
    )
    loss.numpy()
    return time.perf_counter() - began
