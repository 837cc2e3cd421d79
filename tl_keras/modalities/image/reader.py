"""Reads images as the augmented views that a model sees, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tl_keras.modalities.base import InputSpec
from tl_keras.modalities.image import augment as transforms

__all__ = ["ImageReader"]


class ImageReader:
    """Reads images of samples as the views that a model sees.

    Args:
        samples: Where the images are.
        size: Side in pixels.
        augment: Names of transforms, see :func:`tl_keras.modalities.image.augment.parse_augment`.
        seed: With the image's key and the view's number, decides each view.
        workers: Threads that decode; Pillow frees the interpreter's lock while it works.
    """

    def __init__(
        self,
        samples: Any,
        size: int,
        augment: str = "none",
        seed: int = 0,
        workers: int = 4,
    ) -> None:
        self.samples = samples
        self.size = size
        self.specs = {"image": InputSpec((size, size, 3), "uint8", "RGB, 0..255, no scaling")}
        self.seed = seed
        self.augment = transforms.parse_augment(augment)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tl_keras-decode")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    @property
    def varied(self) -> bool:
        """Whether views differ from the plain image."""
        return bool(self.augment)

    def read(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> dict[str, np.ndarray]:
        """Return {"image": uint8 (n, size, size, 3)}; see `images`."""
        return {"image": self.images(indices, views)}

    def images(
        self, indices: Sequence[int] | np.ndarray, views: int | np.ndarray = 0
    ) -> np.ndarray:
        """Return images as uint8 (n, size, size, 3), RGB 0..255.

        Args:
            indices: Which images, n of them.
            views: The augmented view of each, or one number for all; 0 is the plain image.

        Raises:
            DataError: An image cannot be read.
        """
        pairs = zip(indices, np.broadcast_to(views, len(indices)), strict=True)
        return np.stack(list(self._pool.map(self._view, pairs)))

    def _view(self, pair: tuple[int, int]) -> np.ndarray:
        index, number = int(pair[0]), int(pair[1])
        item, key = self.samples.items[index], self.samples.keys[index]
        wanted = self.size if number == 0 else 2 * self.size
        image = self.samples.modality.open(item, wanted)
        return transforms.view(image, self.size, self.augment, self.seed, key, number)
