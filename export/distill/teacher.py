"""Run the teacher once for every view of every training sample, its outputs kept on disk.

A student must see the very sample that its teacher answered for ("A good teacher is patient and
consistent", Beyer et al., arXiv 2106.05237). Views are seeded, so the teacher can answer ahead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.distill.config import DistillationConfig
from tl_keras import tasks
from tl_keras.data.samples import Samples
from tl_keras.errors import ExportError, ModelError
from tl_keras.features import backends as engines
from tl_keras.features.extract import collect, fill, open_backend
from tl_keras.features.store import FeatureFile, require_room
from tl_keras.modalities.base import Reader
from tl_keras.models import graph
from tl_keras.models.backbones.registry import is_model_file
from tl_keras.models.backbones.weights import load_user_model
from tl_keras.models.logits import last_map, layer_tensor, logits_of
from tl_keras.models.rewrite import flatten
from tl_keras.runs.directory import RunDirectory
from tl_keras.utils.progress import Progress

if TYPE_CHECKING:
    import keras

__all__ = ["Teacher", "TeacherCache", "load_teacher", "make_answering_model"]

# Far finer than what a student can copy, in half the room.
_FEATURE_DTYPE = "float16"


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained classifier, or several as one.

    Attributes:
        model: As it was loaded; it is never changed.
        run: The run it comes from, the first of several; None for a file.
        name: What to call it.
    """

    model: keras.Model
    run: RunDirectory | None
    name: str


def load_teacher(path: str | Path, others: Sequence[str | Path] = (), how: str = "") -> Teacher:
    """Load a teacher: a finished run, a model file, or several as one.

    Args:
        path: A run or a model file.
        others: More of them, for the same classes, which learned from none of the samples that
            the first was judged by.
        how: What becomes of several: "ensemble" (the mean of their logits; the default) or
            "soup" (the mean of their weights, which must be fine-tuned from one start: Wortsman
            et al., arXiv 2203.05482).

    Raises:
        RunError: A run is missing, damaged or not complete.
        ModelError: A file does not load.
        ExportError: A run names no classes, or they do not belong together.
    """
    first = _load_one(path)
    if not others:
        return first
    every = [first, *(_load_one(other) for other in others)]
    for other in every[1:]:
        _check_apart(first, other)
    models = [flatten(one.model) for one in every]
    name = f"{how or 'ensemble'} of {', '.join(one.name for one in every)}"
    model = _average_weights(models) if how == "soup" else _average_logits(models)
    return Teacher(model, first.run, name)


def _load_one(path: str | Path) -> Teacher:
    place = Path(path)
    if place.is_file() and is_model_file(place.name):
        return Teacher(load_user_model(place), None, place.name)
    run = RunDirectory(place)
    run.require_complete()
    if not tasks.get(task := run.fact("data", "task")).single_label:
        raise ExportError(f"{place} was trained on {task}; a teacher names classes.")
    return Teacher(run.model(), run, place.resolve().name)


def _check_apart(first: Teacher, other: Teacher) -> None:
    """Refuse teachers of other classes or inputs, and one that knows the other's judges."""
    shapes = [[tuple(t.shape) for t in (*one.model.inputs, *one.model.outputs)]
              for one in (first, other)]  # fmt: skip
    if shapes[0] != shapes[1]:
        raise ExportError(
            f"{first.name} has inputs and outputs {shapes[0]}, {other.name} {shapes[1]}; expected "
            "teachers of the same size and classes."
        )
    if first.run is None or other.run is None:
        return
    if (names := other.run.fact("classes")) != first.run.fact("classes"):
        raise ExportError(f"{other.name} knows other classes than {first.name}: {names[:5]}.")
    learned = other.run.split_keys()["train"]
    judges = {key for part in ("val", "test") for key in first.run.split_keys()[part]}
    if known := sorted(judges.intersection(learned)):
        raise ExportError(
            f"{other.name} was trained on {len(known)} samples by which {first.name} is judged, "
            f"such as {known[0]}; train both on one split (tl-keras fit --seed, or folders train, "
            "val and test)."
        )


def _average_logits(models: Sequence[keras.Model]) -> keras.Model:
    import keras

    inputs = [keras.Input(t.shape[1:], dtype=t.dtype, name=t.name) for t in models[0].inputs]
    answers = [
        keras.Model(
            graph.alone(model.inputs), logits_of(model, "teacher"), name=f"teacher_{number}"
        )(graph.alone(inputs))
        for number, model in enumerate(models)
    ]
    mean = keras.layers.Average(name="teachers_mean")(answers)
    softmax = keras.layers.Activation("softmax", dtype="float32", name="teachers_softmax")
    return keras.Model(graph.alone(inputs), softmax(mean), name="teachers")


def _average_weights(models: Sequence[keras.Model]) -> keras.Model:
    shapes = [[one.shape for one in model.get_weights()] for model in models]
    if any(shape != shapes[0] for shape in shapes[1:]):
        raise ExportError(
            "The teachers have other weights than each other, which cannot be averaged; expected "
            "one backbone and head, or leave out --soup."
        )
    columns = zip(*(model.get_weights() for model in models), strict=True)
    models[0].set_weights([np.mean(column, axis=0) for column in columns])
    return models[0]


def _pair_layers(
    teacher: keras.Model, student: keras.Model, config: DistillationConfig
) -> list[tuple[str, str]]:
    if "features" not in config.parts:
        return []
    pairs = config.layers or ((last_map(teacher, "teacher"), last_map(student, "student")),)
    for above, below in pairs:
        left = layer_tensor(teacher, above, "teacher").shape
        right = layer_tensor(student, below, "student").shape
        if len(left) != len(right) or len(left) not in (2, 4) or None in (*left[1:], *right[1:]):
            raise ExportError(
                f"The teacher's '{above}' gives {tuple(left)}, the student's '{below}' "
                f"{tuple(right)}; expected two feature maps (None, h, w, c) or two vectors."
            )
    return list(pairs)


def make_answering_model(
    teacher: Teacher, student: keras.Model, config: DistillationConfig
) -> tuple[keras.Model, list[tuple[str, str]]]:
    """Return a model of what the losses need of the teacher, and the pairs of layers.

    It gives the logits, then the features of each pair (teacher's layer, student's layer),
    brought to the grid of the student's by bilinear interpolation. The model is a copy: nothing
    is attached to the teacher.

    Raises:
        ExportError: The teacher has no logits, or a layer does not fit.
    """
    import keras

    if not isinstance(teacher.model, keras.Model) or not getattr(teacher.model, "outputs", None):
        raise ModelError(
            f"the teacher is a {type(teacher.model).__name__}, whose graph cannot be read; "
            "expected a functional or a built sequential keras.Model"
        )
    copy = flatten(teacher.model)
    outputs = [logits_of(copy, "teacher")]
    pairs = _pair_layers(copy, student, config)
    for above, below in pairs:
        shape = layer_tensor(student, below, "student").shape
        tensor, name = layer_tensor(copy, above, "teacher"), f"distillation_grid_{len(outputs)}"
        outputs.append(_resize(tensor, shape, name))
    return keras.Model(copy.inputs, outputs), pairs


def _resize(tensor: Any, shape: Any, name: str) -> Any:
    import keras

    if len(shape) == 2 or tuple(tensor.shape[1:3]) == tuple(shape[1:3]):
        return tensor
    # Unnamed, it might get a name that a layer of the teacher has already.
    layer = keras.layers.Resizing(shape[1], shape[2], interpolation="bilinear", name=name)
    return layer(tensor)


@dataclass
class TeacherCache:
    """The teacher's outputs for all training samples in all views.

    Attributes:
        model: From :func:`make_answering_model`.
        reader: Reads the training samples as the teacher sees them.
        views: How many views.
        folder: Where the files are kept; an interrupted computation goes on there.
        precision: What computes them, see `tl_keras.training.config.FitOptions`.
        progress: Called with a task's name, what is done and of how much.
        engine: What computed them, once they are there.
    """

    model: keras.Model
    reader: Reader
    views: int
    folder: Path
    precision: str
    progress: Progress
    engine: engines.Engine | None = None
    _open: list[list[Any]] = field(default_factory=list)
    _function: engines.Predict | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each output for one sample: the logits' first."""
        return [tuple(int(n) for n in tensor.shape[1:]) for tensor in self.model.outputs]

    def _files(self, view: int) -> list[FeatureFile]:
        kinds = [("logits", "float32")] + [("features", _FEATURE_DTYPE)] * (len(self.shapes) - 1)
        return [
            FeatureFile(self.folder / f"{kind}-{k}-{view:03d}.bin", len(self.reader), shape, dtype)
            for k, ((kind, dtype), shape) in enumerate(zip(kinds, self.shapes, strict=True))
        ]

    def compute(self) -> None:
        """Compute what is not there yet.

        Raises:
            StorageError: The disk has no room, or is full.
            DataError: A sample cannot be read.
        """
        row = sum(file.row_bytes for file in self._files(0))
        kept = sum(path.stat().st_size for path in self.folder.glob("*.bin"))
        require_room(
            self.folder, row * len(self.reader) * self.views - kept, "the teacher's outputs take",
            "fewer views or other layers",
        )  # fmt: skip
        for view in range(self.views):
            files, task = self._files(view), f"teacher, view {view + 1} of {self.views}"
            if any(file.done() < file.rows for file in files):
                told = functools.partial(self.progress, task)
                fill(files, self._predict(), self.reader, view=view, progress=told)
        self._open = [[file.open() for file in self._files(view)] for view in range(self.views)]

    def _predict(self) -> engines.Predict:
        if self._function is None:
            rows = len(self.reader) * self.views
            self.engine, self._function = open_backend(
                self.model, self.reader, self.precision, rows
            )
        return self._function

    def logits(self, samples: Samples) -> np.ndarray:
        """Return the teacher's logits for other samples as they are, (n, classes)."""
        if not len(samples):
            return np.zeros((0, *self.shapes[0]), np.float32)
        return collect(self._predict(), samples.reader(self.model))[0]

    def rows(self, output: int, views: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return an output for samples in their views, float32 (n, ...).

        Args:
            output: 0 for the logits, then the features.
            views: The view in which each sample is seen, int64 (n,).
            indices: The samples, int64 (n,).
        """
        found: np.ndarray = np.empty((len(indices), *self.shapes[output]), np.float32)
        for view in np.unique(views):
            chosen = views == view
            found[chosen] = self._open[int(view)][output][indices[chosen]]
        return found

    def scale(self, output: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each channel's mean and deviation over the plain samples, float32 (c,)."""
        kept, total, squares, count = self._open[0][output], 0.0, 0.0, 0
        for first in range(0, len(kept), 256):
            part = np.asarray(kept[first : first + 256], np.float64)
            part = part.reshape(-1, part.shape[-1])
            total, squares = total + part.sum(0), squares + (part**2).sum(0)
            count += len(part)
        mean = np.asarray(total) / count
        deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
        # A channel that never moves teaches nothing.
        safe = np.where(deviation > 1e-6, deviation, np.inf)
        return mean.astype(np.float32), safe.astype(np.float32)
