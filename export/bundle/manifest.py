"""Make and parse the manifest of a bundle, in a form that other programs may rely on.

manifest.json (schema 1), UTF-8:

    schema      1; a reader refuses what is newer
    name, task  of the model; task is the name of one of `tl_keras.tasks`
    classes     names of the outputs, in output order
    modality    what goes in: the name of one of `tl_keras.modalities`
    settings    of the modality, as decided for the data it was trained on
    inputs      name, shape, dtype of a file's content and what the values are, for each input
    steps       what is done to a file before, in order: step and, by its name, every choice in it
    input       the first of them, with what is done to a file before ("resize")
    resize_in_graph    whether the files take images of any size in uint8 and do the step "resize"
                themselves; "shape" is then what they resize to
    word_pieces whether .tflite files carry the vocabulary as MediaPipe's text tasks read it
    output      name, shape, values, whether the highest numbers are the answer, and for tags the
                thresholds from which each is given
    originals   whose the whole files in golden.json are: "own" (of the data set), "none" (nobody's:
                made to prove a step) or "given"; how many of them are of the data set or given
    default     name of the variant to take when nothing else is known
    variants    name, format, recipe, file, input_dtype, output_dtype, bytes, sha256, verdict,
                attempts, notes, latencies (milliseconds), facts
    files       path, bytes and sha256 of every file but the manifest, in order of their paths
    versions, data, metrics, facts    of what made it, of the samples, of the trained model
    images      which samples do what, in words with their number: figures, choice, calibration
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from export.source import NONE, OWN, Source
from export.variant import Variant
from tl_keras import modalities, tasks
from tl_keras.errors import BundleError, ExportError, TLKerasError

__all__ = ["MANIFEST", "SCHEMA", "as_json", "make_manifest", "model_file", "parse_manifest"]

SCHEMA = 1
MANIFEST = "manifest.json"
_LIFTED = ("versions", "data", "metrics", "images")
# A FlatBuffer, and an ONNX file without external data, ends there.
_LARGEST = 2**31
_MOST_VALUES, _MOST_AXES = 2**26, 8
"""Of one sample: an image of 4096 x 4096 has fewer."""
_DTYPES = ("uint8", "int32", "int64", "float32")
# What bundles do not say that were written when there were images alone.
_BEFORE = {"modality": "image", "settings": {}}


def model_file(variant: Variant) -> str:
    """Where a variant's model lies within the bundle."""
    return f"models/{variant.name}.{variant.format}"


def make_manifest(
    source: Source,
    variants: Sequence[Variant],
    files: Sequence[Mapping[str, Any]],
    default: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a bundle.

    Args:
        source: what the variants were made from.
        variants: in the order in which they are shown.
        files: path, bytes and sha256 of every other file.
        default: name of one of the variants.
        facts: for the record; `versions`, `data` and `metrics` have a place of their own.

    Raises:
        ExportError: if there is no variant, two have one name, or none is the default.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) != len(names) or default not in names:
        raise ExportError(
            f"Got variants {', '.join(names) or 'none'} with default {default!r}; "
            "expected names that differ, the default among them."
        )
    inputs = [
        {"name": name, "shape": list(spec.shape), "dtype": spec.dtype, "values": spec.values}
        for name, spec in source.signature.inputs.items()
    ]
    made = {
        "schema": SCHEMA,
        "name": source.name,
        "task": source.task,
        "classes": list(source.class_names),
        "modality": source.modality.name,
        "settings": source.modality.settings,
        "input": {**inputs[0], "resize": source.modality.preparation},
        "inputs": inputs,
        "steps": source.modality.describe_steps(source.signature.inputs),
        "resize_in_graph": source.resize_in_graph,
        **({} if source.modality.word_pieces is None else {"word_pieces": True}),
        "output": {
            "name": source.signature.output,
            "shape": [len(source.class_names)],
            "values": source.kind.output_values,
            "ranked": source.kind.ranked,
            **({"thresholds": facts["thresholds"]} if facts.get("thresholds") else {}),
        },
        "originals": {"from": source.originals if source.originals in (OWN, NONE) else "given"},
        "default": default,
        "variants": [_describe_variant(variant) for variant in variants],
        "files": [dict(file) for file in files],
        **{key: _drop_root(facts.get(key, {})) for key in _LIFTED},
        "facts": {
            key: value for key, value in facts.items() if key not in (*_LIFTED, "thresholds")
        },
    }
    return made


def _describe_variant(variant: Variant) -> dict[str, Any]:
    record = asdict(variant)
    del record["path"]
    record["verdict"]["drop"] = variant.verdict.drop
    return {"name": variant.name, "file": model_file(variant), **record}


def _drop_root(facts: Any) -> Any:
    """Leave out where the data lay: a bundle is given to others."""
    return {key: value for key, value in dict(facts).items() if key != "root"}


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return readable JSON: keys as they come, numbers of NumPy as plain ones."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=_simplify)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _simplify(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def parse_manifest(contents: bytes, name: str) -> dict[str, Any]:
    """Read a manifest and check that all a reader relies on is there.

    Args:
        contents: of manifest.json.
        name: of the bundle, for messages.

    Raises:
        BundleError: if it does not read, lacks something, or has a newer schema.
    """
    try:
        record = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{name}: {MANIFEST} does not read ({error}); get the bundle anew."
        ) from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BundleError(f"{name}: {MANIFEST} has no schema; expected what tl-export wrote.")
    if schema > SCHEMA:
        raise BundleError(
            f"{name} has schema {schema}, this version reads up to {SCHEMA}; update tl_keras."
        )
    if wrong := _find_wrong(record := {**_BEFORE, "inputs": [record.get("input")], **record}):
        raise BundleError(f"{name}: {wrong} in {MANIFEST} is missing or wrong; get it anew.")
    return record


def _find_wrong(record: Mapping[str, Any]) -> str:  # noqa: PLR0911 (one line a rule)
    """Name the first part of a manifest that is not as it should be."""
    forms = (("name", str), ("task", str), ("default", str), ("classes", list), ("input", dict))
    more = (("modality", str), ("settings", dict), ("inputs", list))
    for key, kind in (*forms, *more, ("variants", list), ("files", list)):
        if not isinstance(record.get(key), kind):
            return key
    if record["task"] not in tasks.names():
        return "task"
    if not all(isinstance(name, str) for name in record["classes"]):
        return "classes"
    if not _is_modality(record["modality"], record["settings"]):
        return "modality"
    if not record["inputs"] or not all(map(_is_input, (record["input"], *record["inputs"]))):
        return "input.shape"
    if not all(_is_file(file) for file in record["files"]):
        return "files"
    listed = {file["path"]: file["sha256"] for file in record["files"]}
    if len(listed) != len(record["files"]):
        return "files"
    if not record["variants"] or not all(_is_variant(v, listed) for v in record["variants"]):
        return "variants"
    names = [variant["name"] for variant in record["variants"]]
    return "" if record["default"] in names and len(set(names)) == len(names) else "default"


def _is_modality(name: str, settings: dict[str, Any]) -> bool:
    try:
        modalities.get(name, settings)
    except (TLKerasError, TypeError):
        return False
    return True


def _is_input(value: Any) -> bool:
    shape = value.get("shape") if isinstance(value, dict) else None
    return (
        isinstance(shape, list)
        and 0 < len(shape) <= _MOST_AXES
        and all(isinstance(side, int) and 0 < side <= _MOST_VALUES for side in shape)
        and math.prod(shape) <= _MOST_VALUES
        and isinstance(value.get("name", ""), str)
        and value.get("dtype", "uint8") in _DTYPES
    )


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("path"), str)
        and isinstance(value.get("bytes"), int)
        and 0 <= value["bytes"] <= _LARGEST
        and isinstance(value.get("sha256"), str)
    )


def _is_variant(value: Any, listed: Mapping[str, str]) -> bool:
    texts = ("name", "format", "recipe", "file", "input_dtype", "output_dtype", "sha256")
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in texts)
        and value["format"] in ("tflite", "onnx")
        and value["file"].endswith(f".{value['format']}")
        and listed.get(value["file"]) == value["sha256"]
    )
