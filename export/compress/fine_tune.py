"""Fine-tune a tf_keras model shortly on the run's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export.compress.keras2.load import load_tf_keras
from tl_keras.data.splits import Splits
from tl_keras.errors import ExportError, TrainingError
from tl_keras.features.backends import Batch, pack_inputs
from tl_keras.training.batches import Epochs, batches, input_specs, read_inputs
from tl_keras.utils.progress import Progress, silent

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["FineTune", "count_steps", "fine_tune"]


@dataclass(frozen=True)
class FineTune:
    """How to fine-tune.

    Attributes:
        epochs: 1 or more.
        rate: learning rate of Adam at the start, above 0; it falls to 0 in a straight line.
        batch_size: samples a step.
        seed: decides orders and views.
        augment: names of augmentations that the modality knows; for a run, "" is its own.
        progress: told (what is being done, steps done, of how many).

    Raises:
        ExportError: if a number is out of its range.
    """

    epochs: int = 2
    rate: float = 1e-4
    batch_size: int = 32
    seed: int = 0
    augment: str = "none"
    progress: Progress = silent

    def __post_init__(self) -> None:
        """Refuse numbers that make no training."""
        if self.epochs < 1 or self.batch_size < 1 or self.seed < 0 or not 0 < self.rate < 1:
            raise ExportError(
                f"Got epochs={self.epochs}, rate={self.rate}, batch_size={self.batch_size}, "
                f"seed={self.seed}; expected at least 1 epoch and 1 sample a batch, a rate "
                "between 0 and 1, and a seed of at least 0."
            )


def count_steps(data: Splits, how: FineTune) -> int:
    """Steps of the whole fine-tune."""
    return Epochs(len(data.train), how.batch_size).steps * how.epochs


def fine_tune(
    student: Any,
    teacher: keras.Model,
    data: Splits,
    how: FineTune,
    word: str,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train a student in place.

    What it should answer is halfway between the label and what the uncompressed model answers
    for the same view: knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) from the
    model to its own compressed self, at temperature 1.

    Args:
        student: a tf_keras model with the teacher's inputs.
        teacher: the model before compression; it is not changed.
        data: the training split is used.
        how: epochs, rate and the like.
        word: what to call it in the progress.
        callbacks: more callbacks of tf_keras, such as tfmot's.

    Raises:
        ExportError: if there are no training samples, or the outputs do not fit them.
        TrainingError: if the loss is not a number.
    """
    library = load_tf_keras()
    _check(teacher, data)
    library.utils.set_random_seed(how.seed)
    total = count_steps(data, how)
    schedule = library.optimizers.schedules.PolynomialDecay(how.rate, total, 0.0)
    student.compile(library.optimizers.Adam(schedule), _make_loss(data))
    watcher = _make_watcher(how, word, total)
    steps = total // how.epochs
    student.fit(
        _make_batches(teacher, data, how),
        epochs=how.epochs,
        steps_per_epoch=steps,
        callbacks=[*callbacks, watcher],
        verbose=0,
    )


def _check(teacher: keras.Model, data: Splits) -> None:
    outputs, names = int(teacher.outputs[0].shape[-1]), len(data.train.class_names)
    if not len(data.train):
        raise ExportError("There are no training samples to fine-tune on; expected some.")
    if outputs != names:
        raise ExportError(f"The model has {outputs} outputs and the data {names} classes.")


def _make_loss(data: Splits) -> Any:
    """Return the task's loss in tf_keras, on targets scaled as when the model was trained."""
    train = data.train
    kind = type(train.kind.loss_and_metrics()[0]).__name__
    loss = getattr(load_tf_keras().losses, kind, None)
    if loss is None:
        raise ExportError(f"The loss {kind} of task {train.task!r} is not in tf_keras: leave "
                          "compression out and export the model as it is.")  # fmt: skip
    scale, made = train.kind.scale(train.labels), loss()
    if scale is None:
        return made
    mean, spread = np.float32(scale.mean), np.float32(scale.spread)
    return lambda wanted, given: made((wanted - mean) / spread, (given - mean) / spread)


def _make_batches(teacher: keras.Model, data: Splits, how: FineTune) -> tf.data.Dataset:
    import keras
    import tensorflow as tf

    reader = data.train.reader(teacher, how.augment, how.seed)
    train = data.train
    labels = train.kind.targets(train.labels, len(train.class_names))

    def fetch(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        view = int(epoch) if reader.varied else 0
        return read_inputs(reader, indices, view), labels[indices]

    def with_answers(batch: Batch, wanted: tf.Tensor) -> tuple[Any, tf.Tensor]:
        packed = pack_inputs(teacher, batch)
        # Not as packed: of a list tf.data makes one tensor.
        inputs = tuple(keras.tree.flatten(packed))
        answers = teacher(packed, training=False)
        return inputs[0] if len(inputs) == 1 else inputs, 0.5 * (wanted + answers)

    spec = (input_specs(reader), tf.TensorSpec((None, labels.shape[1])))
    epochs = Epochs(len(data.train), how.batch_size, how.seed, 0, how.epochs)
    return batches(fetch, spec, epochs).map(with_answers).prefetch(2)


def _make_watcher(how: FineTune, word: str, total: int) -> Any:
    class Watcher(load_tf_keras().callbacks.Callback):  # type: ignore[misc]
        """Tells how far it is, and stops at a loss that is no number."""

        done = 0

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            self.done += 1
            how.progress(word, self.done, total)
            if not np.isfinite((logs or {})["loss"]):
                raise TrainingError(
                    f"The loss became {(logs or {})['loss']} while compressing; try a smaller "
                    f"rate than {how.rate}."
                )

    return Watcher()
