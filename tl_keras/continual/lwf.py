"""Learning without forgetting: what the old model says of the new pictures is learnt too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.data.splits import Splits
from tl_keras.features.backends import Predict
from tl_keras.modalities.image.reader import ImageReader
from tl_keras.training.objective import Objective
from tl_keras.training.plan import Plan
from tl_keras.utils.files import atomic_path

__all__ = ["OldOutputs", "WithoutForgetting", "distillation_loss"]

TEMPERATURE = 2.0
_FLOOR = 1e-7
_BATCH = 32


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
    """What the old model says of each training picture in each view, computed once and kept.

    Args:
        predict: The old model, from pictures to [probabilities].
        reader: Reads the training pictures as the new model sees them.
        folder: Where to keep one file a view.
    """

    def __init__(self, predict: Predict, reader: ImageReader, folder: Path) -> None:
        self.predict, self.reader, self.folder = predict, reader, folder
        self._kept: dict[int, np.ndarray] = {}

    def view(self, number: int) -> np.ndarray:
        """Return all pictures' outputs in one view, float32 (pictures, outputs)."""
        if number not in self._kept:
            path = self.folder / f"view-{number:03d}.npy"
            if not path.exists():
                self._write(path, number)
            self._kept[number] = np.load(path, allow_pickle=False)
        return self._kept[number]

    def _write(self, path: Path, number: int) -> None:
        places = np.arange(len(self.reader))
        batches = np.split(places, range(_BATCH, len(places), _BATCH))
        rows = [self.predict(self.reader.images(batch, number))[0] for batch in batches]
        with atomic_path(path) as made:
            np.save(made, np.concatenate(rows))


class WithoutForgetting(Objective):
    """Teaches the labels, and beside them what the old model says of the same views.

    Args:
        data: Samples.
        plan: The plan; there are as many views as its longest stage has epochs.
        old: Takes uint8 pictures (n, size, size, 3), gives [probabilities (n, old)] of the old
            classes, which are the new model's first.
        folder: Where to keep what the old model says.
        size: Side of the pictures in pixels.
        seed: Decides the views, as the fit's.
        strength: Weight of what the old model says, 0 or more.
    """

    def __init__(
        self,
        data: Splits,
        plan: Plan,
        old: Predict,
        folder: Path,
        *,
        size: int,
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(data, plan)
        self.strength = strength
        self.views = max(stage.epochs for stage in plan.stages)
        self.outputs = int(self.labels.shape[1])
        self.old = OldOutputs(old, self.reader(size, seed), folder)

    @property
    def width(self) -> int:
        """Numbers in the target of one picture: its label, then the old outputs."""
        return self.outputs + int(self.old.view(0).shape[1])

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
