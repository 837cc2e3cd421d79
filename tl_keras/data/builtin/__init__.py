"""Data sets by name, offline.

A registry entry is data: a name and where its maker lives. The maker is imported when asked
for, takes no argument (or the whole number after "@") and returns `Samples`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util

import numpy as np

from tl_keras.data.samples import Samples, from_arrays
from tl_keras.errors import DataError
from tl_keras.utils.suggest import did_you_mean

__all__ = ["BUILTINS", "builtin", "builtin_names", "digits", "is_builtin"]

BUILTINS: dict[str, str] = {
    "digits": "tl_keras.data.builtin:digits",
    "glyphs": "tl_keras.data.builtin.glyphs:glyphs",
}
"""Name: "module:function"."""


def builtin_names() -> list[str]:
    """Names that `builtin` knows here."""
    return [
        name for name, place in BUILTINS.items() if importlib.util.find_spec(place.split(":")[0])
    ]


def is_builtin(name: str) -> bool:
    """Say whether `builtin` knows this name (whatever stands after "@")."""
    return name.partition("@")[0] in builtin_names()


def builtin(name: str) -> Samples:
    """Make a built-in data set.

    Args:
        name: "digits", or with a number "digits@20": that many training images a class.

    Raises:
        DataError: if the name is unknown (the nearest are offered) or the number is none.
    """
    stem, at, number = name.partition("@")
    if not is_builtin(name):
        hint = did_you_mean(stem.lower(), builtin_names(), cutoff=0.3)
        raise DataError(
            f"Unknown built-in data set {name!r}.{hint} Known: {', '.join(builtin_names())}."
        )
    if at and not (number.isascii() and number.isdigit() and int(number)):
        raise DataError(f"{name!r}: expected a whole number after '@', as in {stem}@20.")
    module, _, function = BUILTINS[stem].partition(":")
    maker = getattr(importlib.import_module(module), function)
    return maker(int(number)) if at else maker()


def digits(per_class: int = 10) -> Samples:
    """Make scikit-learn's handwritten digits, few a class.

    The 1,797 images of 8 x 8 gray values are the test set of UCI's "Optical Recognition of
    Handwritten Digits" (Alpaydin and Kaynak, 1998), as shipped in `sklearn.datasets`. The
    split is this project's own and fixed: within each class, images are ordered by a hash of
    their index; the first `per_class` train, the next `per_class` validate, all others test.
    So a larger `per_class` holds every training image of a smaller one, or of its validation.

    Args:
        per_class: training (and validation) images a class, 1..80.

    Returns:
        Samples with uint8 items of shape (1797, 8, 8, 1), values 0..255 (strokes are bright),
        classes "0".."9", and splits.
    """
    if not 1 <= per_class <= 80:
        raise DataError(f"digits@{per_class}: expected 1 to 80 images a class (174 are there).")
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    splits: np.ndarray = np.full(len(images), "test", dtype="U5")
    for label in range(10):
        members = sorted(np.flatnonzero(data.target == label).tolist(), key=_shuffled)
        splits[members[:per_class]] = "train"
        splits[members[per_class : 2 * per_class]] = "val"
    return from_arrays(
        images,
        data.target.astype(np.int64),
        [str(label) for label in range(10)],
        splits=splits.tolist(),
        keys=[f"digits/{i:04d}" for i in range(len(images))],
        root="builtin:digits" if per_class == 10 else f"builtin:digits@{per_class}",
    )


def _shuffled(index: int) -> bytes:
    return hashlib.blake2b(f"digits/{index}".encode(), digest_size=8).digest()
