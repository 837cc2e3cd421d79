"""Classification: one class a sample, or several tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tl_keras.errors import DataError
from tl_keras.evaluation.calibration import fit_temperature
from tl_keras.evaluation.label_doubt import doubt_classes
from tl_keras.evaluation.metrics import evaluate_classes, evaluate_tags
from tl_keras.evaluation.thresholds import fit_thresholds
from tl_keras.tasks.base import Task, kullback_leibler

__all__ = ["Multiclass", "Multilabel"]

_TINY = 1e-7


class Multiclass(Task):
    """One class a sample. Labels are int64 (n,), outputs are probabilities that add up to 1."""

    name = "classes"
    kind = "classification"
    activation = "softmax"
    fewest = 2
    single_label = True
    ranked = True
    output_name = "probabilities"
    output_values = "probabilities of the classes, which add up to 1"
    plural = "classes"
    sections = ("confusion", "classes", "calibration", "mistakes")
    figures = ("confusion", "reliability", "recall", "mistakes")

    def parse(
        self, cells: Sequence[str], where: Callable[[int], str]
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read one class name a row; names come out sorted."""
        for row, cell in enumerate(cells):
            if not cell:
                raise DataError(f"{where(row)} has no label.")
        return self._index(list(cells), None)

    def _index(
        self, cells: Sequence[str], class_names: Sequence[str] | None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        names = tuple(class_names) if class_names is not None else tuple(sorted(set(cells)))
        if unknown := sorted(set(cells) - set(names)):
            raise DataError(
                f"Labels {unknown[:5]} are not among the class names {list(names)[:20]}."
            )
        index = {name: i for i, name in enumerate(names)}
        return names, np.array([index[cell] for cell in cells], np.int64)

    def check(
        self, labels: np.ndarray, class_names: Sequence[str] | None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Check class indices 0..classes-1, or class names, of shape (n,)."""
        if labels.ndim != 1:
            raise DataError(
                f"Labels have the shape {labels.shape}; expected (n,) class indices. One-hot rows: "
                "pass labels.argmax(1)."
            )
        if labels.dtype.kind == "U" or all(isinstance(label, str) for label in labels):
            return self._index([str(label) for label in labels], class_names)
        if labels.dtype.kind not in "iub":
            raise DataError(f"Labels are {labels.dtype}; expected whole numbers or class names.")
        if labels.min() < 0:
            raise DataError(f"Class indices go from {labels.min()}; expected 0 and up.")
        if class_names is None:
            numbers, indices = np.unique(labels.astype(np.int64), return_inverse=True)
            return tuple(str(number) for number in numbers), indices.astype(np.int64)
        if labels.max() >= len(class_names):
            from_one = labels.min() == 1 and labels.max() == len(class_names)
            hint = " Labels that start at 1: pass labels - 1." if from_one else ""
            raise DataError(
                f"Class indices go from {labels.min()} to {labels.max()}; expected "
                f"0..{len(class_names) - 1} for {len(class_names)} class names.{hint}"
            )
        return tuple(class_names), labels.astype(np.int64)

    def counts(self, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
        """Return the samples of each class."""
        numbers = np.bincount(labels, minlength=len(class_names))
        return {name: int(n) for name, n in zip(class_names, numbers, strict=True)}

    def missing(self, labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
        """Return the classes that no sample has."""
        return [name for name, count in self.counts(labels, class_names).items() if not count]

    def describe(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return the class's name."""
        return str(class_names[int(label)])

    def write(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return the class's name."""
        return self.describe(label, class_names)

    def doubt_labels(
        self, outputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :func:`tl_keras.evaluation.label_doubt.doubt_classes`."""
        scores, flagged = doubt_classes(outputs, labels)
        others = outputs.copy()
        others[np.arange(len(labels)), labels] = -1.0
        return scores, flagged, others.argmax(1)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the classes themselves."""
        return np.asarray(labels, np.int64)

    def targets(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        """Return one-hot rows."""
        made: np.ndarray = np.zeros((len(labels), outputs), np.float32)
        made[np.arange(len(labels)), labels] = 1
        return made

    def balanced_weights(self, labels: np.ndarray, outputs: int) -> np.ndarray:
        """Return n / (classes * samples of its class), as scikit-learn's "balanced"."""
        counts = np.bincount(labels, minlength=outputs)
        weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return weights[labels].astype(np.float32)

    def loss_and_metrics(self, label_smoothing: float = 0.0) -> tuple[Any, list[Any]]:
        """Return cross-entropy and accuracy."""
        import keras

        return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing), [
            keras.metrics.CategoricalCrossentropy(name="plain_loss"),
            keras.metrics.CategoricalAccuracy(name="accuracy"),
        ]

    def sample_losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the negative log-likelihood of each sample's class, in nats."""
        inside = np.clip(np.asarray(outputs, np.float64), _TINY, 1 - _TINY)
        return -(np.asarray(targets, np.float64) * np.log(inside)).sum(1)

    def evaluate(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """See :func:`tl_keras.evaluation.metrics.evaluate_classes`."""
        figures = evaluate_classes(outputs, labels, class_names, seed, temperature)
        return {"task": self.name, **figures}

    def fit_temperature(self, outputs: np.ndarray, labels: np.ndarray) -> float | None:
        """See :func:`tl_keras.evaluation.calibration.fit_temperature`."""
        return fit_temperature(outputs, labels)

    def correct(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return where the largest output is the label's."""
        return (outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)

    def recognized(
        self, outputs: np.ndarray, labels: np.ndarray, index: int
    ) -> np.ndarray | None:
        """Return for each sample of a class whether it was taken for it."""
        return outputs[labels == index].argmax(axis=1) == index

    def agree(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return where both have their largest output at the same place."""
        same = np.asarray(outputs).argmax(axis=1) == np.asarray(others).argmax(axis=1)
        return same & np.isfinite(others).all(axis=1)

    def divergences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the divergence of the classes' probabilities."""
        return kullback_leibler(outputs, others).sum(axis=1)

    def expected_losses(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the largest probability less that of the others' class; 1 for NaN."""
        rows = np.arange(len(outputs))
        lost = outputs.max(axis=1) - outputs[rows, np.asarray(others).argmax(axis=1)]
        fine = np.isfinite(others).all(axis=1) & np.isfinite(lost)
        return np.where(fine, np.clip(lost.astype(np.float64), 0, 1), 1.0)

    def agree_within(
        self, outputs: np.ndarray, others: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Return where the others' choice is a largest output, within twice the tolerance."""
        chosen = outputs[np.arange(len(outputs)), others.argmax(axis=1)]
        near = chosen >= outputs.max(axis=1) - 2 * tolerance
        return near & np.isfinite(others).all(axis=1)


class Multilabel(Task):
    """Several tags a sample. Labels are uint8 (n, tags) of 0 and 1, outputs are 0..1 each."""

    name = "tags"
    kind = "multilabel-classification"
    activation = "sigmoid"
    ranked = True
    output_name = "probabilities"
    output_values = "probabilities of the tags, each 0..1"
    plural = "tags"
    sections = ("outputs",)

    def parse(
        self, cells: Sequence[str], where: Callable[[int], str]
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read tags separated by "|", nothing for none; names come out sorted."""
        tags = [{tag for part in cell.split("|") if (tag := part.strip())} for cell in cells]
        names = tuple(sorted(set().union(*tags)))
        if not names:
            raise DataError(f"{where(0)}: no row has a tag; separate the tags of a row by '|'.")
        index = {name: i for i, name in enumerate(names)}
        labels: np.ndarray = np.zeros((len(cells), len(names)), np.uint8)
        for row, chosen in enumerate(tags):
            labels[row, [index[tag] for tag in chosen]] = 1
        return names, labels

    def check(
        self, labels: np.ndarray, class_names: Sequence[str] | None
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Check a table (n, tags) of 0 and 1."""
        columns = labels.shape[1] if labels.ndim == 2 else 1
        names, numbers = super().check(labels, class_names or [str(i) for i in range(columns)])
        if not np.isin(numbers, (0, 1)).all():
            raise DataError("Tags are 0 or 1 for each output; got other numbers.")
        return names, numbers.astype(np.uint8)

    def counts(self, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
        """Return the samples of each tag."""
        return {n: int(c) for n, c in zip(class_names, labels.sum(axis=0), strict=True)}

    def describe(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return the tags' names."""
        return "|".join(n for n, on in zip(class_names, label, strict=True) if on) or "no tag"

    def write(self, label: np.ndarray, class_names: Sequence[str]) -> str:
        """Return the names of the tags with "|" between."""
        return "|".join(name for name, on in zip(class_names, label, strict=True) if on)

    def doubt_labels(
        self, outputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Doubt each tag as a class of two; of each sample the most doubted one counts."""
        pairs = (np.stack([1 - one, one], axis=1) for one in outputs.T)
        found = [
            doubt_classes(pair, one) for pair, one in zip(pairs, labels.T.astype(int), strict=True)
        ]
        each, marked = (np.stack(side, axis=1) for side in zip(*found, strict=True))
        # The tag to change is one that is taken for wrong where there is any.
        rows, worst = np.arange(len(labels)), np.where(marked, 1 + each, each).argmax(1)
        suggested = labels.copy()
        suggested[rows, worst] = 1 - suggested[rows, worst]
        return each.max(1), marked.any(1), suggested

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return each sample's rarest tag, -1 for none."""
        rarest_first = np.argsort(labels.sum(axis=0), kind="stable")
        found = labels[:, rarest_first] > 0
        return np.where(found.any(axis=1), rarest_first[found.argmax(axis=1)], -1).astype(np.int64)

    def loss_and_metrics(self, label_smoothing: float = 0.0) -> tuple[Any, list[Any]]:
        """Return binary cross-entropy, mean over tags, and the share of tags that are right."""
        import keras

        return keras.losses.BinaryCrossentropy(), [
            keras.metrics.BinaryCrossentropy(name="plain_loss"),
            keras.metrics.BinaryAccuracy(name="accuracy"),
        ]

    def sample_losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return binary cross-entropy, mean over tags."""
        inside = np.clip(np.asarray(outputs, np.float64), _TINY, 1 - _TINY)
        targets = np.asarray(targets, np.float64)
        return -(targets * np.log(inside) + (1 - targets) * np.log(1 - inside)).mean(1)

    def evaluate(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """See :func:`tl_keras.evaluation.metrics.evaluate_tags`."""
        figures = evaluate_tags(outputs, labels, class_names, seed, thresholds)
        return {"task": self.name, **figures}

    def fit_thresholds(self, outputs: np.ndarray, labels: np.ndarray) -> list[float] | None:
        """See :func:`tl_keras.evaluation.thresholds.fit_thresholds`."""
        return fit_thresholds(outputs, labels)

    def correct(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Return where all tags are right."""
        same = ((outputs >= 0.5) == (labels >= 0.5)).all(axis=1)
        return same & np.isfinite(outputs).all(axis=1)

    def recognized(
        self, outputs: np.ndarray, labels: np.ndarray, index: int
    ) -> np.ndarray | None:
        """Return for each sample with a tag whether it was given it."""
        return outputs[labels[:, index] >= 0.5, index] >= 0.5

    def agree(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return where the same outputs are at least 0.5."""
        same = ((outputs >= 0.5) == (others >= 0.5)).all(axis=1)
        return same & np.isfinite(others).all(axis=1)

    def divergences(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the divergence of a tag's probability, mean over tags."""
        p, q = np.asarray(outputs, np.float64), np.asarray(others, np.float64)
        return (kullback_leibler(p, q) + kullback_leibler(1 - p, 1 - q)).mean(axis=1)

    def expected_losses(self, outputs: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return how much less probable it is that all the others' tags are right; 1 for NaN."""
        p = np.asarray(outputs, np.float64)
        right = [np.where(np.asarray(one) >= 0.5, p, 1 - p).prod(axis=1) for one in (p, others)]
        lost = np.clip(right[0] - right[1], 0, 1)
        return np.where(np.isfinite(others).all(axis=1) & np.isfinite(lost), lost, 1.0)

    def agree_within(
        self, outputs: np.ndarray, others: np.ndarray, tolerance: float
    ) -> np.ndarray:
        """Return where tags are the same, or were within the tolerance of 0.5."""
        near = np.abs(outputs - 0.5) <= tolerance
        same = (((outputs >= 0.5) == (others >= 0.5)) | near).all(axis=1)
        return same & np.isfinite(others).all(axis=1)
