"""Stream batches of samples or features into `tf.data` in a seeded order, memory flat.

One mechanism serves samples and cached features alike: a `fetch(epoch, indices)` function
that returns a batch, and :func:`batches`, which asks for the batches of every epoch in an
order that depends on the seed and the epoch alone. A stream can therefore start at any
epoch and gives what an undisturbed one would have given there.
"""

from __future__ import annotations

from collections.abc import Callable
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


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch as int64 (rows,): a function of its arguments alone."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(rows)


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

    def order(epoch: int) -> np.ndarray:
        if epochs.seed is None:
            return np.arange(epochs.rows)
        return permutation(epochs.rows, epochs.seed, int(epoch))

    def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = tf.numpy_function(order, [epoch], tf.int64)
        shaped = tf.ensure_shape(indices, (epochs.rows,))
        numbered = tf.data.Dataset.from_tensor_slices(shaped).batch(epochs.batch_size)
        return numbered.map(lambda chosen: (epoch, chosen))

    flat = tf.nest.flatten(spec)

    def fetch_flat(epoch: int, indices: np.ndarray) -> list[np.ndarray]:
        return tf.nest.flatten(fetch(epoch, indices))

    def get(epoch: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        arrays = tf.numpy_function(fetch_flat, [epoch, indices], [one.dtype for one in flat])
        shaped = [tf.ensure_shape(a, s.shape) for a, s in zip(arrays, flat, strict=True)]
        return tf.nest.pack_sequence_as(spec, shaped)

    stream = tf.data.Dataset.range(epochs.first, epochs.last).flat_map(of_epoch)
    stream = stream.map(get, num_parallel_calls=2, deterministic=True).prefetch(2)
    count = epochs.steps * (epochs.last - epochs.first)
    return stream.apply(tf.data.experimental.assert_cardinality(count))


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
