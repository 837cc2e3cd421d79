"""A model runs over samples the same way whoever asks: any range, any interruption, any inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_models import coloured, small_model

from tl_keras.errors import DataError, ModelError, StorageError
from tl_keras.features.backends import prefix_function
from tl_keras.features.extract import collect, fill, predict, read_ahead
from tl_keras.features.store import FeatureFile


class Numbers:
    """Reads the number of each sample, and remembers which were asked for."""

    def __init__(self, count: int = 10, stop: int | None = None) -> None:
        self.count, self.stop, self.asked, self.varied = count, stop, [], False

    def __len__(self) -> int:
        return self.count

    def read(self, indices, views=0):
        if self.stop is not None and self.stop in indices:
            raise DataError(f"sample {self.stop} is gone")
        self.asked.append(list(indices))
        return {"number": np.asarray(indices, np.float32)}


def rows_of(batch):
    return [np.stack([np.full((2, 3), number, np.float32) + 0.5 for number in batch["number"]])]


EXPECTED = rows_of({"number": np.arange(10)})[0]


def test_what_is_read_is_what_was_computed_and_nothing_is_computed_twice(tmp_path: Path) -> None:
    file, told, reader = FeatureFile(tmp_path / "a.bin", 10, (2, 3)), [], Numbers()
    options = {"batch_size": 4, "progress": lambda *a: told.append(a)}
    assert fill([file], rows_of, reader, **options) == 10
    np.testing.assert_array_equal(file.open(), EXPECTED)
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert fill([file], rows_of, reader, **options) == 0
    assert len(reader.asked) == 3


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_the_bytes_cost_half_the_digits(tmp_path: Path, dtype: str, error: float) -> None:
    values = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
    file = FeatureFile(tmp_path / "a.bin", 10, (2, 3), dtype)
    fill([file], lambda batch: [values[batch["number"].astype(int)]], Numbers())
    assert file.path.stat().st_size == 10 * 6 * 2
    assert np.allclose(np.asarray(file.open(), np.float32), values, rtol=error, atol=1e-7)


def test_what_float16_cannot_hold_is_refused_and_bfloat16_holds_it(tmp_path: Path) -> None:
    def large(batch):
        return [np.full((len(batch["number"]), 1), 70000.0, np.float32)]

    with pytest.raises(StorageError, match="is 70000, and float16 ends at 65504.*bfloat16"):
        fill([FeatureFile(tmp_path / "a.bin", 10, (1,), "float16")], large, Numbers())
    file = FeatureFile(tmp_path / "b.bin", 10, (1,), "bfloat16")
    fill([file], large, Numbers())
    assert np.allclose(np.asarray(file.open(), np.float32), 70000, rtol=2**-8)


def test_an_interrupted_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "a.bin", 10, (2, 3))
    with pytest.raises(DataError, match="sample 9 is gone"):
        fill([file], rows_of, Numbers(stop=9), batch_size=4)
    with open(file.partial, "ab") as handle:
        handle.write(b"half a row")
    assert not file.path.exists()
    assert file.done() == 8
    reader = Numbers()
    assert fill([file], rows_of, reader, batch_size=4) == 2
    assert reader.asked == [[8, 9]]
    np.testing.assert_array_equal(file.open(), EXPECTED)


@pytest.mark.parametrize("borders", [(32,), (50,), (1, 33, 64, 99)])
def test_ranges_of_rows_give_the_bits_of_the_whole(tmp_path: Path, borders) -> None:
    """Convolutions round otherwise in batches of another size: the batches must be the whole's."""
    model, samples = small_model(), coloured(100, 0)
    whole = predict(model, samples)
    edges = [0, *borders, 100]
    ranges = [range(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    parts = [predict(model, samples, rows=rows) for rows in ranges]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    run, reader = prefix_function(model, "float32"), samples.reader(model)
    files = [FeatureFile(tmp_path / f"{r.start}", len(r), (3,), first=r.start) for r in ranges]
    assert [fill([file], run, reader) for file in files] == [len(r) for r in ranges]
    np.testing.assert_array_equal(np.concatenate([file.open() for file in files]), whole)


def test_the_next_batch_is_read_while_one_is_used() -> None:
    reader = Numbers(12)
    batches = read_ahead(reader, np.split(np.arange(12), 4))
    next(batches)
    next(batches)
    for _ in range(200):
        if len(reader.asked) == 3:
            break
        __import__("time").sleep(0.01)
    assert reader.asked == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    batches.close()


def two_inputs():
    """Numbers and token ids, fed under other names in the other order."""
    import keras

    keras.utils.set_random_seed(3)
    ids = keras.Input((5,), dtype="int32", name="ids")
    numbers = keras.Input((2,), name="numbers")
    told = keras.layers.Flatten()(keras.layers.Embedding(2**24 + 3, 1)(ids))
    outputs = keras.layers.Dense(3)(keras.layers.Concatenate()([told, numbers]))
    return keras.Model([ids, numbers], [outputs, told])


@pytest.mark.parametrize("engine", ["float32", "onnxruntime"])
def test_inputs_keep_their_dtypes_and_find_their_names(engine: str) -> None:
    """2**24 + 1 is no float32: ids that went through one would be those of a neighbour."""
    model, run = two_inputs(), prefix_function(two_inputs(), engine)
    ids = np.array([[2**24 + 1, 0, 1, 2, 3], [2**24 + 2, 4, 5, 6, 7]])
    numbers = np.ones((2, 2), np.uint8)
    expected = [np.asarray(one) for one in model([ids.astype(np.int32), numbers.astype("f4")])]
    for batch in ({"numbers": numbers, "ids": ids}, {"a": ids, "b": numbers}, [ids, numbers]):
        for got, wanted in zip(run(batch), expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-6)
    with pytest.raises(ModelError, match="got 1 arrays for the inputs ids, numbers"):
        run(ids)


def test_of_no_samples_there_are_no_outputs() -> None:
    assert predict(small_model(), coloured(6, 0).take([])).shape == (0, 3)
    assert collect(rows_of, Numbers(0)) == []


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tl_keras.errors import StorageError
from tl_keras.features.extract import fill
from tl_keras.features.store import FeatureFile
sys.path.insert(0, "tests")
from test_features_extract import Numbers
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
file = FeatureFile(Path(sys.argv[1]) / "a.bin", 1000, (64,))
try:
    fill([file], lambda batch: [np.zeros((len(batch["number"]), 64), np.float32)], Numbers(1000))
except StorageError as error:
    print("told:", error)
"""


def test_a_disk_that_is_full_is_named_with_the_way_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "told: the disk is full" in done.stdout, done.stderr
    assert "cache_dtype=float16" in done.stdout
    assert not (tmp_path / "a.bin").exists()
