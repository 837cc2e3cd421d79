"""Write into a .tflite file what its readers need: labels, and how a sample is given to it.

The form is the metadata schema of TensorFlow Lite ("TFLITE_METADATA", identifier "M001"), which
MediaPipe Tasks reads: a FlatBuffer inside the model, and a zip with the labels behind it.
https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from export.convert.tflite import add_unread_inputs
from export.source import Signature
from tl_keras.errors import ExportError
from tl_keras.modalities.base import InputSpec
from tl_keras.tasks.base import Task

if TYPE_CHECKING:
    from flatbuffers import Builder
    from flatbuffers.table import Table

__all__ = ["LABELS", "METADATA", "VOCABULARY", "format_labels", "add_metadata"]

LABELS = "labels.txt"
VOCABULARY = "vocab.txt"
METADATA = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
# Readers of the model may demand this of the weights in it, wherever they lie in memory.
_ALIGNMENT = 16
# Places of fields in the schemas' tables, and codes of their unions and enumerations.
_MODEL_FIELDS, _MODEL_BUFFERS, _MODEL_METADATA = 10, 4, 6
_FEATURE, _IMAGE, _RGB = 1, 2, 1
_NORMALIZATION, _BERT_TOKENIZER = 1, 4
_AXIS_LABELS, _VOCABULARY = 2, 5
# What MediaPipe's text tasks call a model's inputs, the ids first.
_BERT_INPUTS = {
    "ids": "ids of tokens, 0 for none", "mask": "not read", "segment_ids": "not read",
}  # fmt: skip


def format_labels(class_names: Sequence[str]) -> str:
    """One class a line, in output order; a line break within a name becomes a space."""
    return "".join((" ".join(name.splitlines()).strip() or "?") + "\n" for name in class_names)


def add_metadata(
    contents: bytes,
    class_names: Sequence[str],
    signature: Signature,
    task: Task,
    *,
    name: str,
    vocabulary: bytes | None = None,
) -> bytes:
    """Add to a .tflite file what goes in and out, as MediaPipe's classifiers read it.

    The file's bytes stay as they are: the new parts go before and behind them, so that weights
    keep their alignment. A model that takes floats is told not to scale: it takes RGB 0..255
    itself (mean 0, standard deviation 1).

    Args:
        contents: of a .tflite file with one output, without metadata.
        class_names: one per output, in output order.
        signature: what goes in and comes out.
        task: says what the outputs are.
        name: what to call the model.
        vocabulary: of a model that takes ids of word pieces, the contents of its vocab.txt. The
            file gets two inputs that it does not read: MediaPipe's `text.TextClassifier` gives
            every BERT a mask and segments, too.

    Returns:
        The contents of the new file; the same for the same arguments.

    Raises:
        ExportError: if the contents are no such file, or have metadata already.
    """
    import flatbuffers
    from ai_edge_litert.schema_py_generated import Model, TensorType

    if contents[4:8] != b"TFL3":
        raise ExportError(f"Got {contents[:8]!r}...; expected a .tflite file.")
    if vocabulary is not None:
        contents = add_unread_inputs(contents, list(_BERT_INPUTS)[1:])
    contents = bytes(contents) + bytes(-len(contents) % _ALIGNMENT)
    model = Model.GetRootAs(contents)
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    if any(entry.Name() == METADATA.encode() for entry in entries):
        raise ExportError("The .tflite file has metadata already; expected one without.")
    floats = {
        one: tensor.Type() == TensorType.FLOAT32 for one, tensor in _inputs(model).items()
    }
    builder = flatbuffers.Builder(2 * len(contents))
    _prefill(builder, contents)
    in_pieces = vocabulary is not None
    described = _describe(len(class_names), signature, task, name, floats, in_pieces)
    _finish(builder, model._tab, len(contents), described)
    labels = format_labels(class_names).encode("utf-8", "backslashreplace")
    files = {LABELS: labels} | ({} if vocabulary is None else {VOCABULARY: vocabulary})
    return _with_files(bytes(builder.Output()), files)


def _prefill(builder: Builder, contents: bytes) -> None:
    """Take a finished buffer as what was built so far: a builder works from back to front."""
    builder.head = builder.Head() - len(contents)
    builder.Bytes[builder.head :] = contents


def _finish(builder: Builder, model: Table, length: int, described: bytes) -> None:
    """Write a second root before the first, which shares all parts of it but two lists."""
    kept = {
        field: length - model.Indirect(model.Pos + model.Offset(4 + 2 * field))
        for field in range(1, _MODEL_FIELDS)
        if model.Offset(4 + 2 * field)
    }
    name = builder.CreateString(METADATA)
    data = _bytes(builder, described)
    buffer = _table(builder, 1, {0: data})
    old = _offsets(model, _MODEL_BUFFERS, length)
    buffers = _vector(builder, [*old, buffer])
    entry = _table(builder, 2, {0: name}, {1: len(old)})
    entries = _vector(builder, [*_offsets(model, _MODEL_METADATA, length), entry])
    kept |= {_MODEL_BUFFERS: buffers, _MODEL_METADATA: entries}
    version = _version(model)
    root = _table(builder, _MODEL_FIELDS, kept, {0: version})
    builder.minalign = max(builder.minalign, _ALIGNMENT)
    builder.Finish(root, b"TFL3")


def _version(model: Table) -> int:
    from flatbuffers.number_types import Uint32Flags

    place = model.Offset(4)
    return model.Get(Uint32Flags, model.Pos + place) if place else 0


def _offsets(model: Table, field: int, length: int) -> list[int]:
    """Where the tables of a list lie, counted from the end of the file."""
    place = model.Offset(4 + 2 * field)
    if not place:
        return []
    start = model.Vector(place)
    return [length - model.Indirect(start + 4 * i) for i in range(model.VectorLen(place))]


def _inputs(model: Any) -> dict[str, Any]:
    """Return the input tensors by their names in the signature, in the graph's own order."""
    graph, known = model.Subgraphs(0), model.SignatureDefs(0)
    maps = [known.Inputs(index) for index in range(known.InputsLength())]
    names = {one.TensorIndex(): one.Name().decode() for one in maps}
    places = [graph.Inputs(index) for index in range(graph.InputsLength())]
    # What nothing reads is in no signature.
    return {names[place]: graph.Tensors(place) for place in places if place in names}


def _describe(
    outputs: int, signature: Signature, task: Task, name: str, floats: Mapping[str, bool],
    in_pieces: bool = False,
) -> bytes:  # fmt: skip
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    taken = {key: signature.inputs[key] for key in floats}
    if in_pieces:
        taken = {key: InputSpec((), "int32", words) for key, words in _BERT_INPUTS.items()}
    inputs = [_input(builder, key, spec, floats.get(key, False)) for key, spec in taken.items()]
    scores = [_output(builder, outputs, signature.output, task)]
    lists = {2: _vector(builder, inputs), 3: _vector(builder, scores)}
    if in_pieces:
        lists[5] = _vector(builder, [_tokenizer(builder)])
    graph = _table(builder, 10, lists)
    words = f"{task.kind.capitalize()}. Made by tl_keras."
    facts = {
        0: builder.CreateString(name, errors="backslashreplace"),
        1: builder.CreateString(words),
        3: _vector(builder, [graph]),
        7: builder.CreateString(_PARSER),
    }
    builder.Finish(_table(builder, 8, facts), _IDENTIFIER)
    return bytes(builder.Output())


def _input(builder: Builder, name: str, spec: InputSpec, in_float: bool) -> int:
    is_image = spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[2] == 3
    words = {0: builder.CreateString(name), 1: builder.CreateString(spec.values)}
    if not is_image:
        content = _table(builder, 3, {1: _table(builder, 0, {})}, bytes_={0: _FEATURE})
        return _table(builder, 7, {**words, 3: content})
    properties = _table(builder, 2, {}, bytes_={0: _RGB})
    facts = {**words, 3: _table(builder, 3, {1: properties}, bytes_={0: _IMAGE})}
    if in_float:
        mean, deviation = _floats(builder, [0.0]), _floats(builder, [1.0])
        options = _table(builder, 2, {0: mean, 1: deviation})
        unit = _table(builder, 2, {1: options}, bytes_={0: _NORMALIZATION})
        facts |= {4: _vector(builder, [unit])}
    return _table(builder, 7, {**facts, 5: _range(builder, 255.0)})


def _tokenizer(builder: Builder) -> int:
    """Return the step that makes ids of a text by the vocabulary in the file."""
    words = {
        0: builder.CreateString(VOCABULARY),
        1: builder.CreateString("One piece a line; its line is its id."),
    }
    file = _table(builder, 5, words, bytes_={2: _VOCABULARY})
    options = _table(builder, 1, {0: _vector(builder, [file])})
    return _table(builder, 2, {1: options}, bytes_={0: _BERT_TOKENIZER})


def _range(builder: Builder, most: float) -> int:
    low, high = _floats(builder, [0.0]), _floats(builder, [most])
    return _table(builder, 2, {0: high, 1: low})


def _output(builder: Builder, outputs: int, name: str, task: Task) -> int:
    words = f"{outputs} numbers in the order of the labels: {task.output_values}"
    names = {0: builder.CreateString(LABELS), 1: builder.CreateString("One label a line.")}
    file = _table(builder, 5, names, bytes_={2: _AXIS_LABELS})
    content = _table(builder, 3, {1: _table(builder, 0, {})}, bytes_={0: _FEATURE})
    facts = {
        0: builder.CreateString(name),
        1: builder.CreateString(words),
        3: content,
        6: _vector(builder, [file]),
    }
    if task.ranked:
        facts |= {5: _range(builder, 1.0)}
    return _table(builder, 7, facts)


def _table(
    builder: Builder,
    fields: int,
    offsets: dict[int, int],
    numbers: dict[int, int] | None = None,
    bytes_: dict[int, int] | None = None,
) -> int:
    builder.StartObject(fields)
    for field, offset in sorted(offsets.items()):
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in (numbers or {}).items():
        builder.PrependUint32Slot(field, value, 0)
    for field, value in (bytes_ or {}).items():
        builder.PrependUint8Slot(field, value, 0)
    return builder.EndObject()


def _vector(builder: Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: Builder, values: Sequence[float]) -> int:
    return builder.CreateNumpyVector(np.asarray(values, np.float32))


def _bytes(builder: Builder, contents: bytes) -> int:
    # The reader asks that the metadata start at a multiple of 16.
    builder.StartVector(1, len(contents), _ALIGNMENT)
    builder.head = builder.Head() - len(contents)
    builder.Bytes[builder.Head() : builder.Head() + len(contents)] = contents
    return builder.EndVector()


def _with_files(contents: bytes, files: Mapping[str, bytes]) -> bytes:
    """Append an uncompressed zip, which leaves the FlatBuffer before it readable."""
    stream = io.BytesIO(contents)
    # A fixed date: the same files give the same bytes.
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, held in files.items():
            archive.writestr(zipfile.ZipInfo(name), held)
    return stream.getvalue()
