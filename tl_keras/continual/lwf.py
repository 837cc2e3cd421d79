"""Learn without forgetting: what the old model says of the new samples is learnt too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.splits import Splits
from tl_keras.features.backends import Predict
from tl_keras.features.extract import fill
from tl_keras.features.store import FeatureFile
from tl_keras.modalities.base import Reader
from tl_keras.training.objective import Objective
from tl_keras.training.plan import Plan

if TYPE_CHECKING:
    import keras

__all__ = ["OldOutputs", "WithoutForgetting", "distillation_loss"]

TEMPERATURE = 2.0
_FLOOR = 1e-7


def distillation_loss(
    outputs: int, strength: float, label_smoothing: float = 0.0
) -> Callable[[Any, Any], Any]:
    """Return the loss of Li and Hoiem (arXiv 1606.09282), for one head that all classes share.

    Cross-entropy with the labels, plus `strength` times the cross-entropy between what the old
    model says and what the new one says *given that it is an old class*, both at temperature
    2. So the second term does not contradict a new label.

    Args:
        outputs: Outputs of the new model.
        strength: Weight of the second term, 0 or more.
        label_smoothing: In [0, 1).

    Returns:
        A loss of targets (n, outputs + old), the old model's probabilities last, and
        probabilities (n, outputs). Targets of the labels alone (n, outputs) give the first term.
    """
    import keras

    def loss(targets: Any, probabilities: Any) -> Any:
        labels, old = targets[:, :outputs], targets[:, outputs:]
        plain = keras.losses.categorical_crossentropy(
            labels, probabilities, label_smoothing=label_smoothing
        )
        if not old.shape[1]:
            return plain
        said = _soften(probabilities[:, : old.shape[1]])
        taught = -keras.ops.sum(_soften(old) * keras.ops.log(said), axis=-1)
        return plain + strength * taught

    return loss


def _soften(probabilities: Any) -> Any:
    import keras

    powers = keras.ops.power(keras.ops.maximum(probabilities, _FLOOR), 1.0 / TEMPERATURE)
    return powers / keras.ops.sum(powers, axis=-1, keepdims=True)


class OldOutputs:
    """What the old model says of each training sample in each view, computed once and kept.

    Args:
        predict: The old model, to [probabilities].
        outputs: How many it gives.
        reader: Reads the training samples as the old model sees them.
        folder: Where to keep one file a view.
    """

    def __init__(self, predict: Predict, outputs: int, reader: Reader, folder: Path) -> None:
        self.predict, self.outputs, self.reader, self.folder = predict, outputs, reader, folder
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def view(self, number: int) -> np.ndarray:
        """Return all samples' outputs in one view, float32 (samples, outputs)."""
        with self._lock:  # batches are fetched by several threads
            if number not in self._kept:
                path = self.folder / f"view-{number:03d}.bin"
                file = FeatureFile(path, len(self.reader), (self.outputs,))
                fill([file], self.predict, self.reader, view=number)
                self._kept[number] = file.open()
            return self._kept[number]


class WithoutForgetting(Objective):
    """Teaches the labels, and beside them what the old model says of the same views.

    Args:
        data: Samples.
        plan: The plan; there are as many views as its longest stage has epochs.
        old: The old model; its classes are the new model's first.
        predict: What runs it, see `tl_keras.features.extract.open_backend`.
        folder: Where to keep what the old model says.
        seed: Decides the views, as the fit's.
        strength: Weight of what the old model says, 0 or more.
    """

    def __init__(
        self,
        data: Splits,
        plan: Plan,
        old: keras.Model,
        predict: Predict,
        folder: Path,
        *,
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(data, plan)
        self.strength = strength
        self.views = max(stage.epochs for stage in plan.stages)
        self.outputs = int(self.labels.shape[1])
        classes = int(old.output_shape[-1])
        self.old = OldOutputs(predict, classes, self.reader(old, seed), folder)

    @property
    def width(self) -> int:
        """Numbers in the target of one sample: its label, then the old outputs."""
        return self.outputs + self.old.outputs

    def identity(self) -> dict[str, Any]:
        """Return JSON-able facts that a snapshot must agree with to be gone on from."""
        return {"objective": "lwf", "strength": self.strength, "width": self.width}

    def batch(self, views: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return targets float32 (n, width) and weights float32 (n,), see `Objective`."""
        views = np.zeros_like(views) if self.plan.augment == "none" else views
        said: np.ndarray = np.zeros((len(indices), self.width - self.outputs), np.float32)
        for view in np.unique(views):
            said[views == view] = self.old.view(int(view))[indices[views == view]]
        labels, weights = super().batch(views, indices)
        return np.hstack([labels, said]), weights

    def compiled(self) -> tuple[Any, list[Any]]:
        """Return the loss, and metrics of the labels alone."""
        import keras

        outputs = self.outputs

        def plain_loss(targets: Any, said: Any) -> Any:
            return keras.losses.categorical_crossentropy(targets[:, :outputs], said)

        def accuracy(targets: Any, said: Any) -> Any:
            return keras.metrics.categorical_accuracy(targets[:, :outputs], said)

        loss = distillation_loss(outputs, self.strength, self.plan.label_smoothing)
        return loss, [plain_loss, accuracy]
