"""Switches on what makes training repeatable, and puts it back afterwards."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

__all__ = ["repeatable"]

_KERAS = ("global_random_seed", "global_seed_generator")


@contextlib.contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Set all seeds and make operations deterministic, for a while.

    Afterwards Python, NumPy and Keras draw on as if nothing had been, TensorFlow has the seed
    it had (its stream starts anew), and its operations are as deterministic as they were.

    Args:
        seed: 0 or more.
    """
    import keras
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    before = context.global_seed(), config.is_op_determinism_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    kept = {name: global_state.get_global_attribute(name) for name in _KERAS}
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before[1]:
            config.disable_op_determinism()
        tf.random.set_seed(before[0])
        random.setstate(python)
        np.random.set_state(numpy)
        for name, value in kept.items():
            global_state.set_global_attribute(name, value)
