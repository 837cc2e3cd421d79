"""Inspect a model file: what goes in, what comes out, how much of it is quantized."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bundle.metadata import LABELS, METADATA
from tl_keras.errors import ExportError

if TYPE_CHECKING:
    import onnx

__all__ = ["Inspected", "Tensor", "inspect_model"]

INTEGERS = ("int8", "uint8", "int16", "int4", "uint4")


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        name: its name.
        shape: sizes, and words such as "batch" for those that are open.
        dtype: such as "float32".
        scale: of whole numbers, real = (q - zero_point) * scale; None for floats.
        zero_point: the number that stands for 0.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Inspected:
    """A model file from outside.

    Attributes:
        format: "tflite" or "onnx".
        bytes: its size.
        inputs: what it takes.
        outputs: what it gives.
        operators: how many of each kind.
        integer_operators: how many of them give whole numbers of 16 bits or less; in ONNX those
            that are fed by a DequantizeLinear or are quantized themselves.
        weights: how many numbers of each type its constants have.
        metadata: what the file says about itself, by name.
        labels: names of the outputs; empty where it has none.
    """

    format: str
    bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: Mapping[str, int]
    integer_operators: int
    weights: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def quantized_operators(self) -> float:
        """Share of operators that compute with whole numbers, 0..1."""
        return self.integer_operators / max(1, sum(self.operators.values()))

    @property
    def quantized_weights(self) -> float:
        """Share of constants' numbers that are stored in 8 bits or less, 0..1."""
        small = sum(self.weights.get(kind, 0) for kind in INTEGERS if kind != "int16")
        return small / max(1, sum(self.weights.values()))


def inspect_model(path: str | os.PathLike[str]) -> Inspected:
    """Read a model file without running it.

    Raises:
        ExportError: if it is no .tflite or .onnx file, does not read, or needs a package that
            is not installed (the message names the pip command).
    """
    file = Path(path)
    if file.suffix not in (".tflite", ".onnx"):
        raise ExportError(f"{file} ends in {file.suffix!r}; expected .tflite or .onnx.")
    if not file.is_file():
        raise ExportError(f"There is no file {file}.")
    try:
        return _inspect_tflite(file) if file.suffix == ".tflite" else _inspect_onnx(file)
    except (ExportError, MemoryError):
        raise
    except ImportError as error:
        package = "ai-edge-litert" if file.suffix == ".tflite" else "onnx"
        raise ExportError(
            f"{package} cannot be imported ({error}); install it: pip install {package}"
        ) from error
    except Exception as error:  # what reading at random places can end in has no common parent
        raise ExportError(f"{file} is no {file.suffix} file, or damaged; get it anew.") from error


def _inspect_tflite(file: Path) -> Inspected:
    from ai_edge_litert import schema_py_generated as schema

    contents = file.read_bytes()
    if contents[4:8] != b"TFL3":
        raise ExportError(f"{file} is no .tflite file: it starts with {contents[:8]!r}.")
    model = schema.ModelT.InitFromPackedBuf(contents, 0)
    graph = model.subgraphs[0]
    types, kinds = _list_codes(schema.TensorType), _list_codes(schema.BuiltinOperator)
    codes = [kinds.get(max(c.builtinCode, c.deprecatedBuiltinCode)) for c in model.operatorCodes]
    tensors = graph.tensors
    constant = [t for t in tensors if _length(model.buffers[t.buffer].data)]
    made = [types[tensors[op.outputs[0]].type] for op in graph.operators]
    names = [_decode(entry.name) for entry in model.metadata or ()]
    return Inspected(
        format="tflite",
        bytes=len(contents),
        inputs=tuple(_describe_tflite(tensors[i], types) for i in graph.inputs),
        outputs=tuple(_describe_tflite(tensors[i], types) for i in graph.outputs),
        operators=dict(Counter(codes[op.opcodeIndex] for op in graph.operators)),
        integer_operators=sum(kind in INTEGERS for kind in made),
        weights=_count((types[t.type], _count_elements(t.shape)) for t in constant),
        metadata={name: "for MediaPipe Tasks" if name == METADATA else "" for name in names},
        labels=_read_labels(file),
    )


def _list_codes(enumeration: type) -> dict[int, str]:
    return {v: k.lower() for k, v in vars(enumeration).items() if isinstance(v, int)}


def _decode(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name or ""


def _length(data: Any) -> int:
    return 0 if data is None else len(data)


def _count_elements(shape: Any) -> int:
    return 1 if shape is None else int(np.prod(shape, dtype=np.int64))


def _count(pairs: Any) -> dict[str, int]:
    weights: Counter[str] = Counter()
    for kind, count in pairs:
        weights[kind] += count
    return dict(weights.most_common())


def _describe_tflite(tensor: Any, types: Mapping[int, str]) -> Tensor:
    shape = tuple(int(side) for side in (tensor.shape if tensor.shape is not None else ()))
    how = tensor.quantization
    if how is None or not _length(how.scale):
        return Tensor(_decode(tensor.name), shape, types[tensor.type])
    scale, zero = float(how.scale[0]), int(how.zeroPoint[0])
    return Tensor(_decode(tensor.name), shape, types[tensor.type], scale, zero)


def _read_labels(file: Path) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(LABELS) as stream:
            return tuple(stream.read(2**24).decode("utf-8", "replace").split("\n")[:-1])
    except (zipfile.BadZipFile, KeyError):
        return ()


def _inspect_onnx(file: Path) -> Inspected:
    import onnx

    # What lies in other files is not looked at: the model says where, and it may say anything.
    model = onnx.load(file, load_external_data=False)
    if not model.graph.node:
        raise ExportError(f"{file} is no .onnx file, or an empty one: it has no operator.")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    nodes, constants = model.graph.node, {i.name for i in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return Inspected(
        format="onnx",
        bytes=file.stat().st_size,
        inputs=tuple(map(_describe_onnx, inputs)),
        outputs=tuple(map(_describe_onnx, model.graph.output)),
        operators=dict(Counter(node.op_type for node in nodes)),
        integer_operators=_count_integer_nodes(model.graph),
        weights=_count(
            (_name_type(i.data_type), _count_elements(i.dims)) for i in model.graph.initializer
        ),
        metadata={key: value for key, value in facts.items() if key != "class_names"},
        labels=_parse_names(facts.get("class_names", "[]")),
    )


def _count_integer_nodes(graph: onnx.GraphProto) -> int:
    """Count what a runtime computes in whole numbers: all inputs come out of a DequantizeLinear."""
    floats = {name for n in graph.node if n.op_type == "DequantizeLinear" for name in n.output}
    moves = ("QuantizeLinear", "DequantizeLinear")
    fed = [n for n in graph.node if n.op_type not in moves and n.input and n.input[0] in floats]
    own = [n for n in graph.node if n.op_type in moves or n.op_type.startswith("QLinear")]
    return len(fed) + len(own)


def _name_type(code: int) -> str:
    import onnx

    return "float32" if code == 1 else onnx.TensorProto.DataType.Name(code).lower()


def _describe_onnx(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(side.dim_param or side.dim_value for side in kind.shape.dim)
    return Tensor(value.name, shape, _name_type(kind.elem_type))


def _parse_names(text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError:
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
