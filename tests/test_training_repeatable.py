from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from tl_keras.training.batches import Epochs, batches
from tl_keras.training.repeatable import repeatable


def state():
    import keras
    import tensorflow as tf
    from tensorflow.python.framework import config

    return (
        random.random(),
        np.random.random(),
        float(keras.random.uniform(())),
        keras.config.floatx(),
        config.is_op_determinism_enabled(),
        tf.compat.v1.random.get_seed(None)[0],
    )


def test_what_makes_a_run_repeatable_is_put_back_and_draws_go_on_as_if_nothing_had_been():
    import keras

    keras.utils.set_random_seed(11)
    before = [state(), state()]
    keras.utils.set_random_seed(11)
    after = [state()]
    drawn = []
    for _ in range(2):
        with repeatable(5):
            drawn.append(state())
    after.append(state())
    assert after == before
    assert drawn[0] == drawn[1] and drawn[0][4] and not after[1][4]


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_next_batch_is_read_while_the_last_one_is_used(deterministic):
    """Where reading waited for the step, the second batch would not be begun."""
    import contextlib

    import tensorflow as tf

    begun = [threading.Event() for _ in range(4)]

    def fetch(epoch, indices):
        begun[int(indices[0]) // 2].set()
        return (indices.astype(np.float32),)

    with repeatable(0) if deterministic else contextlib.nullcontext():
        spec = (tf.TensorSpec((None,), tf.float32),)
        stream = iter(batches(fetch, spec, Epochs(8, 2)))
        next(stream)
        assert begun[1].wait(30)
        assert [float(batch[0][0]) for batch in stream] == [2, 4, 6]


def test_two_readers_of_one_stream_both_get_all_of_it_in_its_order():
    import tensorflow as tf

    spec = (tf.TensorSpec((None,), tf.int64),)
    stream = batches(lambda epoch, i: (i + 100 * epoch,), spec, Epochs(5, 2, 3, 0, 2))
    first, second = iter(stream), iter(stream)
    drawn = [(next(first)[0].numpy().tolist(), next(second)[0].numpy().tolist()) for _ in range(6)]
    expected = []
    for epoch in range(2):
        order = np.random.Generator(np.random.Philox(key=[3, epoch])).permutation(5) + 100 * epoch
        expected += [order[:2].tolist(), order[2:4].tolist(), order[4:].tolist()]
    assert drawn == [(one, one) for one in expected]
    assert stream.cardinality().numpy() == 6
