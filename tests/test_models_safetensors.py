"""Files of tensors: read as they were written, refused in one line where they lie."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from tl_keras.errors import ModelError
from tl_keras.models.backbones.safetensors_file import read_safetensors


def _write(path, header, data: bytes = b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    written = {
        "conv.weight": rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "half": rng.standard_normal(5).astype(np.float16),
        "num_batches_tracked": np.array(7, np.int64),
        "mask": np.array([True, False]),
        "nothing": np.zeros((0, 3), np.float32),
    }
    save_file(written, tmp_path / "w.safetensors", {"format": "pt"})
    read = read_safetensors(tmp_path / "w.safetensors")
    assert set(read) == set(written)
    for name, array in written.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        assert np.array_equal(read[name], array)
    with pytest.raises(ValueError, match="read-only"):
        read["half"][0] = 1


def test_bfloat16_becomes_float32(tmp_path):
    header = {"a": _entry([2, 2], 0, 8, "BF16")}
    bits = struct.pack("<4H", 0x3F80, 0xC000, 0x7F80, 0x3FC0)
    values = read_safetensors(_write(tmp_path / "b.safetensors", header, bits))["a"]
    assert values.dtype == np.float32
    assert values.tolist() == [[1.0, -2.0], [float("inf"), 1.5]]


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        ({"a": _entry([2], 0, 4)}, b"abcd", "invalid shape"),
        ({"a": _entry([2], 0, 8)}, b"abcd", "not fully covered"),
        ({"a": _entry([1], 0, 4)}, b"abcdefgh", "not fully covered"),
        ({"a": _entry([1], 0, 4), "b": _entry([1], 0, 4)}, b"abcd", "invalid offset"),
        ({"a": _entry([2**62, 4], 0, 4)}, b"abcd", "overflow"),
        ({"a": _entry([-1], 0, 4)}, b"abcd", "invalid"),
        ({"a": _entry([4], 0, 4, "F8_E4M3")}, b"abcd", "save it as float32"),
        ({}, b"", "no tensors"),
        (b'{"a', b"", "invalid JSON"),
        (b"[" * 100_000, b"", "invalid JSON"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, data, said):
    path = _write(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(ModelError, match=said) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_length_beyond_the_file_an_empty_file_and_a_missing_one_are_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    for content in (b"", b"\1", struct.pack("<Q", 2**60) + b"{}", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="no safetensors file, or damaged or cut short"):
            read_safetensors(path)
    with pytest.raises(ModelError, match="no such file"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="a folder"):
        read_safetensors(tmp_path)


def test_ten_gigabytes_are_refused_before_they_are_read(tmp_path):
    size = 10 * 2**30
    path = _write(tmp_path / "big.safetensors", {"a": _entry([size // 4], 0, size)})
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size + size)
    with pytest.raises(ModelError, match=r"10\.0 GB.*smaller model"):
        read_safetensors(path)


@pytest.mark.parametrize("begin", [b"PK\3\4", b"\x80\2}q\0.", b"\x80\4\x95"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path, begin):
    path = tmp_path / "pytorch_model.safetensors"
    path.write_bytes(begin + b"\0" * 100)
    with pytest.raises(ModelError, match=r"a pickle.*save_file"):
        read_safetensors(path)
