"""A probe: a simple classifier on the features of a base that is not trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tl_keras.data.splits import Splits
from tl_keras.errors import ModelError, PlanError
from tl_keras.features.places import (
    Features,
    Place,
    extract_features,
    feature_tensor,
    free_names,
    written,
)
from tl_keras.models import graph
from tl_keras.models.heads import POOLINGS
from tl_keras.probing import classifiers
from tl_keras.probing.classifiers import Classifier
from tl_keras.probing.linear import ridge
from tl_keras.utils.progress import Progress, silent
from tl_keras.utils.stats import log_loss, right

if TYPE_CHECKING:
    import keras

__all__ = [
    "PlaceScore", "Probe", "ProbeOptions", "attach_classifier", "compare_places", "fit_probe",
]  # fmt: skip



@dataclass(frozen=True)
class PlaceScore:
    """How well ridge regression does on the features of one place.

    Attributes:
        place: The layers, as in "a+b".
        dimensions: Features an image.
        accuracy: On the validation split and, leave-one-out, on the training split together.
        log_loss: Likewise, in nats.
    """

    place: str
    dimensions: int
    accuracy: float
    log_loss: float


@dataclass(frozen=True, eq=False)
class Probe:
    """A classifier on the features of one place.

    Attributes:
        place: The layers.
        classifier: What was found.
        model: From images to probabilities: one flat model.
        compared: Every place tried, the best first.
        features: Of all samples at all places.
        seconds: What the features, the comparison and the classifier took.
    """

    place: Place
    classifier: Classifier
    model: keras.Model
    compared: tuple[PlaceScore, ...]
    features: Features
    seconds: dict[str, float]


def compare_places(features: Features, places: Sequence[Place]) -> list[PlaceScore]:
    """Score places by ridge regression, the best first: accuracy, then log loss.

    Args:
        features: Of the splits "train" and "val".
        places: Which to compare.
    """
    scores = [_score(features, place) for place in places]
    return sorted(scores, key=lambda score: (-score.accuracy, score.log_loss))


def _score(features: Features, place: Place) -> PlaceScore:
    train, held = features.samples["train"], features.samples["val"]
    found = features.at("train", place)
    head = ridge(found, train.labels, train.outputs)
    logits = head.logits(features.at("val", place))
    # Where the validation split is small, leave-one-out adds what the training split knows.
    counts = np.array([len(train), len(held)])
    rights = [float(head.facts["loo_accuracy"]), right(logits, held.labels) if len(held) else 0.0]
    losses = [float(head.facts["loo_log_loss"]), log_loss(logits, held.labels) if len(held) else 0]
    accuracy, loss = (float(np.average(values, weights=counts)) for values in (rights, losses))
    return PlaceScore(written(place), found.shape[1], accuracy, loss)


@dataclass(frozen=True)
class ProbeOptions:
    """How to probe.

    Attributes:
        classifier: See :func:`tl_keras.probing.classifiers.fit`.
        pooling: See :func:`tl_keras.features.places.feature_tensor`.
        seed: Shuffles and starts.
        precision: See :func:`tl_keras.features.places.extract_features`.

    Raises:
        TLKerasError: A name is unknown.
    """

    classifier: str = "logistic"
    pooling: str = "avg"
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        known = classifiers.CLASSIFIERS
        if self.classifier not in known:
            raise PlanError(
                f"unknown classifier '{self.classifier}', expected one of {', '.join(known)}"
            )
        if self.pooling not in POOLINGS:
            raise ModelError(f"got pooling '{self.pooling}'; expected one of {', '.join(POOLINGS)}")


def fit_probe(
    model: keras.Model,
    data: Splits,
    places: Sequence[Place],
    folder: Path,
    options: ProbeOptions,
    progress: Progress = silent,
) -> Probe:
    """Compute features, choose the best place, and fit a classifier there.

    Args:
        model: The base, RGB 0..255 in; it is not changed.
        data: Task "classes"; learns from "train", chooses and calibrates by "val".
        places: One, or several of which the best by validation is taken.
        folder: Where to keep features.
        options: Classifier, pooling and the rest.
        progress: Called with a task's name, what is done and of how much.

    Raises:
        TLKerasError: Layers or data are not as they should be.
    """
    data.train.kind.require_single_label("a probe")
    parts = {"train": data.train, "val": data.val}
    parts = parts if data.test is None else {**parts, "test": data.test}
    marks = [time.perf_counter()]
    features = extract_features(
        model,
        [name for place in places for name in place],
        parts,
        folder,
        pooling=options.pooling,
        precision=options.precision,
        progress=progress,
    )
    marks.append(time.perf_counter())
    compared = compare_places(features, places)
    best = next(place for place in places if written(place) == compared[0].place)
    marks.append(time.perf_counter())
    found = _fit(features, best, options)
    marks.append(time.perf_counter())
    names = ("features", "comparison", "classifier")
    seconds = dict(zip(names, map(float, np.diff(marks)), strict=True))
    made = attach_classifier(model, best, options.pooling, found)
    return Probe(best, found, made, tuple(compared), features, seconds)


def _fit(features: Features, place: Place, options: ProbeOptions) -> Classifier:
    train, held = (
        (np.asarray(features.at(split, place)), features.samples[split].labels)
        for split in ("train", "val")
    )
    classes = features.samples["train"].outputs
    return classifiers.fit(options.classifier, train, held, classes, options.seed)


def attach_classifier(
    model: keras.Model, place: Place, pooling: str, classifier: Classifier
) -> keras.Model:
    """Return a base up to a place and a classifier in one flat model, which shares layers.

    Args:
        model: The base.
        place: The layers whose features the classifier takes.
        pooling: See :func:`tl_keras.features.places.feature_tensor`.
        classifier: Fitted on such features.
    """
    import keras

    outputs = classifier.attach(feature_tensor(model, place, pooling), free_names(model))
    return keras.Model(graph.alone(model.inputs), outputs, name=model.name)
