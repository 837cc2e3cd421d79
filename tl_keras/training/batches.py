"""Stream batches of samples or features into `tf.data` in a seeded order, memory flat.

One mechanism serves samples and cached features alike: a `fetch(epoch, indices)` function
that returns a batch, and :func:`batches`, which asks for the batches of every epoch in an
order that depends on the seed and the epoch alone. A stream can therefore start at any
epoch and gives what an undisturbed one would have given there.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_keras.data.samples import Samples
from tl_keras.modalities.base import InputSpec, Reader

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Epochs", "Fetch", "batches", "image_dataset", "input_specs", "permutation", "read_inputs",
]  # fmt: skip

Fetch = Callable[[int, np.ndarray], tuple[Any, ...]]
_AHEAD = 2
"""Batches that are read before they are asked for."""


@dataclass(frozen=True)
class Epochs:
    """Which batches to ask for.

    Attributes:
        rows: Samples in an epoch.
        batch_size: Samples a batch; the last batch of an epoch may be smaller.
        seed: Shuffles each epoch in an order of its own; None keeps the samples' order.
        first: First epoch, counted from 0.
        last: One past the last epoch.
    """

    rows: int
    batch_size: int
    seed: int | None = None
    first: int = 0
    last: int = 1

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self.rows // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch's samples, int64 (rows,)."""
        if self.seed is None:
            return np.arange(self.rows)
        return permutation(self.rows, self.seed, epoch)


@functools.lru_cache(maxsize=4)
def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch as int64 (rows,): a function of its arguments alone."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(rows)
    order.flags.writeable = False
    return order


def read_inputs(reader: Reader, indices: np.ndarray, views: int | np.ndarray = 0) -> Any:
    """Return what a model is fed with: one array, or a tuple of them in its inputs' order."""
    arrays = tuple(reader.read(indices, views).values())
    return arrays[0] if len(arrays) == 1 else arrays


def input_specs(reader: Reader) -> Any:
    """Return the shapes and dtypes of what :func:`read_inputs` gives."""
    import tensorflow as tf

    specs = [tf.TensorSpec((None, *one.shape), one.dtype) for one in reader.specs.values()]
    return specs[0] if len(specs) == 1 else tuple(specs)


def batches(fetch: Fetch, spec: tuple[Any, ...], epochs: Epochs) -> tf.data.Dataset:
    """Return a dataset of batches, epoch after epoch.

    Args:
        fetch: Takes an epoch and int64 indices (n,); returns arrays, nested as `spec`.
        spec: Shapes with None first, and dtypes, of what `fetch` returns.
        epochs: Which epochs, in what order.

    Returns:
        A `tf.data.Dataset` of tuples; `epochs.steps` batches for each epoch.
    """
    import tensorflow as tf

    count = epochs.steps * (epochs.last - epochs.first)

    def get(number: int) -> list[np.ndarray]:
        epoch, step = divmod(number, epochs.steps)
        order = epochs.order(epochs.first + epoch)
        chosen = order[step * epochs.batch_size : (step + 1) * epochs.batch_size]
        return tf.nest.flatten(fetch(epochs.first + epoch, chosen))

    flat = tf.nest.flatten(spec)
    ahead = _ReadAhead(get, count)

    def take(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrays = tf.numpy_function(ahead, [number], [one.dtype for one in flat])
        shaped = [tf.ensure_shape(a, s.shape) for a, s in zip(arrays, flat, strict=True)]
        return tf.nest.pack_sequence_as(spec, shaped)

    return tf.data.Dataset.range(count).map(take)


class _ReadAhead:
    """Gives batch after batch, the next ones read by threads meanwhile.

    Threads of our own, because under `enable_op_determinism` tf.data reads nothing ahead.
    """

    def __init__(self, get: Callable[[int], list[np.ndarray]], count: int) -> None:
        self.get, self.count = get, count
        self.next = self.begun = 0
        self.waiting: deque[Future[list[np.ndarray]]] = deque()
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="tl_keras-read")

    def __call__(self, number: np.ndarray) -> list[np.ndarray]:
        with self.lock:
            if number == 0:
                while self.waiting:
                    self.waiting.popleft().cancel()
                self.next = self.begun = 0
            if number != self.next:
                return self.get(int(number))  # a second reader of the same stream
            while self.begun < min(self.next + 1 + _AHEAD, self.count):
                self.waiting.append(self.pool.submit(self.get, self.begun))
                self.begun += 1
            self.next += 1
            return self.waiting.popleft().result()


def image_dataset(
    samples: Samples,
    *,
    size: int,
    batch_size: int = 32,
    augment: str = "none",
    seed: int | None = None,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Return images and labels for a `model.fit` of your own.

    Args:
        samples: Where the images are.
        size: Side in pixels.
        batch_size: Images a batch.
        augment: Names of transforms joined with "+"; epoch e sees augmented view e of each image.
        seed: Shuffles, and decides the views; None keeps the order.
        epochs: Epochs that the dataset gives, one after the other; with more than one, pass
            `steps_per_epoch=-(-len(samples) // batch_size)` to `fit`.

    Returns:
        Batches of (uint8 (n, size, size, 3) in 0..255, labels as in `samples`).
    """
    import tensorflow as tf

    specs = {"image": InputSpec((size, size, 3), "uint8", "RGB, 0..255")}
    reader = samples.modality.reader(samples, specs, augment, seed or 0)

    def fetch(epoch: int, indices: np.ndarray) -> tuple[Any, ...]:
        view = int(epoch) if reader.varied else 0
        return read_inputs(reader, indices, view), samples.labels[indices]

    labels = tf.TensorSpec((None, *samples.labels.shape[1:]), samples.labels.dtype)
    spec = (input_specs(reader), labels)
    return batches(fetch, spec, Epochs(len(samples), batch_size, seed, 0, epochs))
