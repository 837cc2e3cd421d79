"""Reads a `.safetensors` file as NumPy arrays, without torch and without copying it.

The library `safetensors` checks the header; the arrays are views of the mapped file, so that only
what is looked at is read from the disk. The format:
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.utils.files import irregular

__all__ = ["LARGEST", "read_safetensors"]

LARGEST = 4 * 2**30
"""Bytes of the largest file that is read: more than any base here holds."""

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip

_PICKLES = (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
"""How files of torch.save begin: a zip, or a pickle of protocol 2 to 5."""


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file by their names.

    Args:
        path: A `.safetensors` file of at most `LARGEST` bytes.

    Returns:
        Name to array, in the file's own order and shapes: read-only views of the mapped file of
        the dtype they are stored in. bfloat16, which NumPy lacks, comes as a float32 copy.

    Raises:
        ModelError: The file is missing, too large, cut short, no safetensors file, or its header
            does not describe what follows it.
    """
    path = Path(path).expanduser()
    _check_file(path)
    header, start = _header(path)
    if not header:
        raise ModelError(f"{path} holds no tensors; give the file with the model's weights")
    held = np.memmap(path, np.uint8, "r")
    return {name: _array(held, start, entry) for name, entry in header.items()}


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = irregular(path) or "no such file"
        raise ModelError(f"got {str(path)!r}: {what}; expected a .safetensors file")
    size = path.stat().st_size
    if size > LARGEST:
        raise ModelError(
            f"{path} has {size / 2**30:.1f} GB; weights of a base here have at most "
            f"{LARGEST / 2**30:.0f} GB: give the file of a smaller model")
    with path.open("rb") as stream:
        begin = stream.read(9)
    length_fits = int.from_bytes(begin[:8], "little") < size and begin[8:] == b"{"
    if not length_fits and begin.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a PyTorch file (a pickle, which may run any program when it is read); "
            "save its tensors where they were made: safetensors.torch.save_file("
            "torch.load(FILE, weights_only=True), 'weights.safetensors')")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """What the checked header says of each tensor, and where their bytes begin."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as opened:
            names = opened.keys()
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries = json.loads(stream.read(length))
        header = {name: entries[name] for name in names}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        raise ModelError(
            f"{path} is no safetensors file, or damaged or cut short "
            f"({' '.join(str(error).split())[:200]}); fetch or save it again") from error
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ModelError(
                f"{path} holds {name!r} as {entry['dtype']}; expected one of "
                f"{', '.join(_DTYPES)}: save it as float32")
    return dict(sorted(header.items(), key=lambda one: one[1]["data_offsets"])), 8 + length


def _array(held: np.ndarray, start: int, entry: dict[str, Any]) -> np.ndarray:
    begin, end = entry["data_offsets"]
    values: np.ndarray = held[start + begin : start + end].view(_DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(entry["shape"])
