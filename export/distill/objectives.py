"""Say what a student's stages learn from: seeded views, and the teacher's answers for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.distill.config import DistillationConfig
from export.distill.mixup import MixedReader, Mixing
from export.distill.teacher import TeacherCache
from tl_keras.data.samples import Samples
from tl_keras.data.splits import Splits
from tl_keras.modalities.base import Reader
from tl_keras.models import graph
from tl_keras.models.logits import logits_of, softmax
from tl_keras.training.objective import Objective
from tl_keras.training.plan import Plan

if TYPE_CHECKING:
    import keras

__all__ = ["DistillationObjective", "BaselineObjective", "make_view_reader"]


def make_view_reader(
    samples: Samples, model: keras.Model, augment: str, seed: int, mixing: Mixing | None
) -> Reader:
    """Return what reads the views that teacher and student share, as one of them takes them.

    A view depends on the seed, the sample and the view's number, not on the size in pixels.
    """
    reader = samples.reader(model, augment, seed)
    return reader if mixing is None else MixedReader(reader, mixing)


class BaselineObjective(Objective):
    """The labels alone, from the same bounded views: what the teacher is measured against.

    Args:
        data: Samples.
        plan: Its `views` bounds the views of every stage, cached or not.
        mixing: Pairs of samples that are mixed, or None.
    """

    def __init__(self, data: Splits, plan: Plan, mixing: Mixing | None = None) -> None:
        super().__init__(data, plan)
        self.views, self.mixing = plan.views, mixing

    def reader(self, model: keras.Model, seed: int) -> Reader:
        """Return what reads the training samples as a model takes them."""
        return make_view_reader(self.data.train, model, self.plan.augment, seed, self.mixing)

    def batch(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return targets float32 (n, width) and weights float32 (n,), mixed as the samples."""
        if self.mixing is None:
            return self.labels[indices], self.weights[indices]
        labels = self.mixing.mixed(self.labels, views, indices)
        return labels, self.mixing.mixed(self.weights, views, indices)


class DistillationObjective(BaselineObjective):
    """Labels and the teacher's answers, packed as `export.distill.losses` unpacks them.

    Features are matched in the stages that train layers before them: where a feature comes from
    the frozen part, it cannot change and is left out.

    Args:
        data: Samples.
        plan: Its `views` bounds the views of every stage.
        answers: The teacher's, computed.
        pairs: Layers whose features are matched.
        config: The losses and their weights.
        mixing: Pairs of samples that are mixed, or None.
    """

    def __init__(
        self,
        data: Splits,
        plan: Plan,
        answers: TeacherCache,
        pairs: list[tuple[str, str]],
        config: DistillationConfig,
        mixing: Mixing | None = None,
    ) -> None:  # fmt: skip
        super().__init__(data, plan, mixing)
        self.answers, self.pairs, self.config = answers, pairs, config
        self.classes = int(self.labels.shape[1])
        self._scales = [answers.scale(k) for k in range(1, len(pairs) + 1)]
        self._matched: list[int] = []

    @property
    def width(self) -> int:
        """Numbers in the target of one sample."""
        shapes = self.answers.shapes
        return 2 * self.classes + sum(int(np.prod(shapes[k + 1])) for k in self._matched)

    def batch(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels, the teacher's logits and its features side by side, and weights."""
        labels, weights = super().batch(views, indices)
        parts = [labels, self.answers.rows(0, views, indices)]
        for k in self._matched:
            mean, deviation = self._scales[k]
            shown = (self.answers.rows(k + 1, views, indices) - mean) / deviation
            parts.append(shown.reshape(len(indices), -1))
        return np.concatenate(parts, axis=1), weights

    def learner(self, suffix: keras.Model) -> keras.Model:
        """Return a model of the suffix's logits, and of its features behind projections.

        It decides which features the targets hold. The projections are the learner's own: what
        is saved later never sees them.
        """
        import keras

        logits = logits_of(suffix, "student")
        found = {step.name: step.outputs[0] for step in graph.steps(suffix) if step.inputs}
        self._matched = [k for k, (_, below) in enumerate(self.pairs) if below in found]
        outputs = [logits]
        for k in self._matched:
            outputs.append(self._project(found[self.pairs[k][1]], k))
        if len(outputs) == 1:
            return keras.Model(suffix.inputs, logits)
        joined = keras.layers.Concatenate(dtype="float32", name="distillation_outputs")
        return keras.Model(suffix.inputs, joined(outputs))

    def _project(self, tensor: Any, k: int) -> Any:
        import keras

        channels, name = self.answers.shapes[k + 1][-1], f"distillation_projection_{k}"
        # Drawn from a seed of its own, a resumed stage begins with the same projection.
        options = {"kernel_initializer": keras.initializers.GlorotUniform(seed=k), "name": name}
        if len(tensor.shape) == 2:
            return keras.layers.Dense(channels, **options)(tensor)
        flat = keras.layers.Flatten(name=f"distillation_flat_{k}")
        return flat(keras.layers.Conv2D(channels, 1, **options)(tensor))

    def compiled(self) -> tuple[Any, list[Any]]:
        """Return the loss of labels and teacher, and the metrics of the labels alone."""
        from export.distill.losses import DistillationLoss, LabelAccuracy, LabelLoss

        loss = DistillationLoss(self.config, self.classes, self.plan.label_smoothing)
        return loss, [LabelLoss(self.classes), LabelAccuracy(self.classes)]

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, classes) of the learner's logits."""
        return softmax(outputs[:, : self.classes])
