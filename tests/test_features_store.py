"""Features are kept exactly, and an interrupted file goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tl_keras.errors import StorageError
from tl_keras.features.store import FeatureFile, fill


def _rows(indices: np.ndarray) -> list[np.ndarray]:
    return [np.stack([np.full((2, 3), i, np.float32) + 0.5 for i in indices])]


def test_what_is_read_is_what_was_computed(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "a.bin", 10, (2, 3))
    assert fill([file], _rows, 4) == 10
    assert np.array_equal(file.open(), _rows(np.arange(10))[0])


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_the_bytes_cost_half_the_digits(tmp_path: Path, dtype: str, error: float) -> None:
    values = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
    file = FeatureFile(tmp_path / "a.bin", 10, (2, 3), dtype)
    fill([file], lambda indices: [values[indices]], 4)
    assert file.path.stat().st_size == 10 * 6 * 2
    assert np.allclose(np.asarray(file.open(), np.float32), values, rtol=error, atol=1e-7)


def test_what_float16_cannot_hold_is_refused_and_bfloat16_holds_it(tmp_path: Path) -> None:
    def large(indices: np.ndarray) -> list[np.ndarray]:
        return [np.full((len(indices), 1), 70000.0, np.float32)]

    with pytest.raises(StorageError, match="is 70000, and float16 ends at 65504.*bfloat16"):
        fill([FeatureFile(tmp_path / "a.bin", 10, (1,), "float16")], large, 4)
    file = FeatureFile(tmp_path / "b.bin", 10, (1,), "bfloat16")
    fill([file], large, 4)
    assert np.allclose(np.asarray(file.open(), np.float32), 70000, rtol=2**-8)


def test_an_interrupted_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, asked = FeatureFile(tmp_path / "a.bin", 10, (2, 3)), []

    def stops(indices: np.ndarray) -> list[np.ndarray]:
        if indices[0] == 8:
            raise KeyboardInterrupt
        return _rows(indices)

    with pytest.raises(KeyboardInterrupt):
        fill([file], stops, 4)
    with open(file.partial, "ab") as handle:
        handle.write(b"half a row")
    assert not file.path.exists()
    assert file.done(4) == 8
    fill([file], lambda indices: asked.append(list(indices)) or _rows(indices), 4)
    assert asked == [[8, 9]]
    assert np.array_equal(file.open(), _rows(np.arange(10))[0])


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "a.bin", 10, (2, 3))
    fill([file], _rows, 4)

    def must_not(indices: np.ndarray) -> list[np.ndarray]:
        raise AssertionError(indices)

    assert fill([file], must_not, 4) == 0


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from tl_keras.errors import StorageError
from tl_keras.errors import StorageError
from tl_keras.features.store import FeatureFile, fill
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
file = FeatureFile(Path(sys.argv[1]) / "a.bin", 1000, (64,))
try:
    fill([file], lambda i: [np.zeros((len(i), 64), np.float32)], 10)
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
