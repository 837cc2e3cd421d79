"""Reads the tensors of a file of `torch.save` without unpickling it.

Such a file is a pickle, and a pickle is a program. Its instructions are read here by
`pickletools.genops`, which runs nothing, and followed by an interpreter that knows the few which
a dictionary of tensors needs and the names of four things of torch. Anything else is refused.

The layout is the one of torch before 1.6 (`_legacy_save` in torch/serialization.py): three
pickles that say what it is, one with the dictionary, one with the order of the storages; then
each storage as an int64, its length, and its raw values. It is what the packages of
`tl_keras.models.backbones.packages` carry. Newer files are zips; there is no need of them here.
"""

from __future__ import annotations

import io
import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_keras.errors import ModelError
from tl_keras.utils.files import irregular

__all__ = ["LARGEST", "read_torch_archive"]

LARGEST = 2**28
"""Bytes of the largest file that is read."""

_RECORDS = 2**23
_INSTRUCTIONS = 2**18
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_DICTIONARY, _REBUILD = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_STORAGES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}

_PUSHED = {"BININT", "BININT1", "BININT2", "BINUNICODE", "LONG1"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _RefusedError(ValueError):
    """What a file holds that is not followed."""


@dataclass(frozen=True)
class _Name:
    """A global of the allow-list, never the thing itself."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Where a tuple or a list of items begins on the stack."""


def read_torch_archive(path: str | Path) -> dict[str, np.ndarray]:
    """Read a dictionary of tensors by their names.

    Args:
        path: A file of `torch.save(model.state_dict(), path)` by torch before 1.6.

    Returns:
        Name to array: read-only views of the mapped file, float32 or int64.

    Raises:
        ModelError: The file is missing, too large or cut short, or holds an instruction, a name
            or a length other than a dictionary of tensors needs.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: {irregular(path) or 'no such file'}")
    size = path.stat().st_size
    if size > LARGEST:
        raise ModelError(f"{path} has {size >> 20} MB; at most {LARGEST >> 20} are read")
    try:
        with path.open("rb") as stream:
            records = io.BytesIO(stream.read(_RECORDS))
        tensors, order = _read_records(records)
        storages = _read_storages(path, records.tell(), order, tensors)
        return {name: _view(storages, tensor) for name, tensor in tensors.items()}
    except (ValueError, OSError) as error:  # of genops too, for what is no pickle
        why = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} is not read: it holds something else than tensors, or is damaged ({why}); "
            "install the package anew, or give another file") from error


def _read_records(records: io.BytesIO) -> tuple[dict[str, _Tensor], list[str]]:
    """The tensors by name, and the keys of the storages in the order in which they follow."""
    if (_interpret(records), _interpret(records)) != (_MAGIC, _PROTOCOL):
        raise _RefusedError("it does not begin as torch before 1.6 began its files")
    system = _interpret(records)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("it was not written by a little-endian machine")
    tensors, order = _interpret(records), _interpret(records)
    if not isinstance(tensors, dict) or not tensors:
        raise _RefusedError("no dictionary was found")
    for name, tensor in tensors.items():
        if not isinstance(tensor, _Tensor):
            raise _RefusedError(f"{name!r} is no tensor")
    wanted = {tensor.storage.key for tensor in tensors.values()}
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(wanted):
        raise _RefusedError("the storages that follow are not those of the tensors")
    return tensors, order


def _read_storages(
    path: Path, start: int, order: list[str], tensors: dict[str, _Tensor]
) -> dict[str, np.ndarray]:
    """Each storage as a view of the file, whose end must be that of the last one."""
    held = np.memmap(path, np.uint8, "r")
    known: dict[str, _Storage] = {}
    for tensor in tensors.values():
        if known.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise _RefusedError(f"storage {tensor.storage.key!r} is described in two ways")
    found: dict[str, np.ndarray] = {}
    for key in order:
        storage = known[key]
        length = held[start : start + 8].tobytes()
        begin = start + 8
        start = begin + storage.length * np.dtype(storage.dtype).itemsize
        if int.from_bytes(length, "little") != storage.length or start > held.size:
            raise _RefusedError(f"storage {key!r} does not hold {storage.length} values")
        found[key] = held[begin:start].view(storage.dtype)
    if start != held.size:
        raise _RefusedError(f"{held.size - start} bytes follow the last storage")
    return found


def _view(storages: dict[str, np.ndarray], tensor: _Tensor) -> np.ndarray:
    values = storages[tensor.storage.key][tensor.offset :]
    steps = [step * values.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, steps, writeable=False)


def _interpret(records: io.BytesIO) -> Any:
    """Follow one pickle up to its end, and return what it describes."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(records)):
        if count > _INSTRUCTIONS:
            raise _RefusedError(f"more than {_INSTRUCTIONS} instructions")
        try:
            _follow(opcode.name, argument, stack, memo)
        except (IndexError, KeyError) as error:
            raise _RefusedError(f"instruction {opcode.name} finds nothing to work on") from error
    if len(stack) != 1:
        raise _RefusedError("the instructions leave more than one thing, or none")
    return stack[0]


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Do one instruction; the names are those of `pickletools`."""
    if name in _PUSHED:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name == "MARK":
        stack.append(_Mark)
    elif name == "TUPLE":
        stack.append(tuple(_to_mark(stack)))
    elif name in _TUPLES:
        items = [stack.pop() for _ in range(_TUPLES[name])]
        stack.append(tuple(reversed(items)))
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name not in ("PROTO", "STOP"):
        _change(name, argument, stack)


def _change(name: str, argument: Any, stack: list[Any]) -> None:
    """Do one of the instructions that fill or make things: where a hostile file would act."""
    if name == "GLOBAL":
        if argument not in (_DICTIONARY, _REBUILD, *_STORAGES):
            raise _RefusedError(f"it names {'.'.join(argument.split(' ', 1))!r}")
        stack.append(_Name(argument))
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _fill(stack[-1], [key, value])
    elif name == "SETITEMS":
        items = _to_mark(stack)
        _fill(stack[-1], items)
    elif name in ("APPEND", "APPENDS"):
        items = _to_mark(stack) if name == "APPENDS" else [stack.pop()]
        _expect(isinstance(stack[-1], list), "a list")
        stack[-1].extend(items)
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
        arguments, made = stack.pop(), stack.pop()
        stack.append(_make(made, arguments))
    elif name == "BUILD":  # the versions of the modules, an attribute of the dictionary
        stack.pop()
        _expect(isinstance(stack[-1], dict), "a dictionary")
    else:
        raise _RefusedError(f"instruction {name} is not one that tensors need")


def _to_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _Mark:
        items.append(item)
    return items[::-1]


def _expect(right: bool, what: str) -> None:
    if not right:
        raise _RefusedError(f"something else stands where {what} is expected")


def _fill(target: Any, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    _expect(isinstance(target, dict), "a dictionary")
    _expect(len(keys) == len(values) and all(isinstance(key, str) for key in keys), "names")
    target.update(zip(keys, values, strict=True))


def _make(made: Any, arguments: Any) -> Any:
    """What a call of one of the two names that are called gives."""
    if made == _Name(_DICTIONARY) and arguments == ():
        return {}
    _expect(made == _Name(_REBUILD) and isinstance(arguments, tuple), "the making of a tensor")
    _expect(len(arguments) == 6 and isinstance(arguments[0], _Storage), "a tensor's record")
    storage, offset, shape, strides = arguments[:4]
    _expect(_counts(shape) and _counts(strides) and _counts((offset,)), "a tensor's shape")
    _expect(len(strides) == len(shape), "a tensor's strides")
    last = offset + sum((most - 1) * step for most, step in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.length or last >= storage.length:
        raise _RefusedError(f"a tensor of shape {shape} reaches beyond its {storage.length} values")
    return _Tensor(storage, offset, shape, strides)


def _counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(
        type(one) is int and 0 <= one <= LARGEST for one in values)


def _storage(record: Any) -> _Storage:
    _expect(isinstance(record, tuple) and len(record) == 6 and record[0] == "storage",
            "a storage's record")
    _, kind, key, _, length, view = record
    _expect(isinstance(kind, _Name) and kind.name in _STORAGES, "a storage of float32 or int64")
    _expect(isinstance(key, str) and _counts((length,)) and view is None, "a storage's record")
    return _Storage(key, _STORAGES[kind.name], length)
