"""Convert, quantize and compare a source, and only then ship it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from export.agreement import (
    compare,
    is_refuted,
    judge,
    measure_agreement,
    predict_all,
    require_parity,
)
from export.bundle.card import check_license
from export.bundle.metadata import add_metadata
from export.bundle.originals import check_originals
from export.bundle.read import is_bundle
from export.bundle.write import write_bundle
from export.convert import onnx, tflite
from export.convert.resize import check_formats, put_resize_before
from export.quantize.recipes import FLOAT, Recipe, choose_recipes
from export.quantize.search import Limits, QuantizationSearch, QuantizationTask
from export.runtime.bench import time_variants
from export.runtime.platforms import measure_platforms
from export.runtime.runtimes import KerasRuntime, load
from export.source import Source
from export.variant import Attempt, Variant, Verdict, choose_default
from tl_keras.errors import ExportError, GateError
from tl_keras.runs.lifecycle import guard
from tl_keras.utils.files import atomic_path, is_within, unwritable
from tl_keras.utils.progress import Progress, silent

__all__ = [
    "FORMATS", "ExportConfig", "Format", "Source", "ask_keras", "check_config",
    "check_destination", "describe_variant", "export", "ship",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A file format to leave as.

    Attributes:
        file: name of the float32 file.
        tolerance: largest difference from Keras that is allowed in any output, as the task
            measures it.
        convert: makes the contents of a float32 file of a source's model, or of one like it.
        finish: adds to a file what its readers want to know.
    """

    file: str
    tolerance: float
    convert: Callable[[Source, Any], bytes]
    finish: Callable[[Source, bytes], bytes] = lambda source, contents: contents


def _add_metadata(source: Source, contents: bytes) -> bytes:
    return add_metadata(
        contents, source.class_names, source.signature, source.kind, name=source.name,
        vocabulary=source.modality.word_pieces,
    )  # fmt: skip


FORMATS = {
    "tflite": Format(
        "model.tflite",
        1e-4,
        lambda source, model: tflite.convert(model, source.signature),
        _add_metadata,
    ),
    "onnx": Format(
        "model.onnx",
        1e-5,
        lambda source, model: onnx.convert(model, source.class_names, source.signature),
        lambda source, made: put_resize_before(made) if source.resize_in_graph else made,
    ),
}


@dataclass(frozen=True)
class ExportConfig:
    """What shall be made of a source.

    Attributes:
        formats: names in `FORMATS`.
        recipes: names of quantization recipes; float32 files are always made.
        limits: what a quantized file may lose, and what may be spent on it.
        fresh: whether first answers and memory are measured, in processes of their own.
        license: of the model, for its card, as a hub writes it ("apache-2.0"); empty says none.
    """

    formats: tuple[str, ...]
    recipes: tuple[str, ...] = ()
    limits: Limits = Limits()
    fresh: bool = True
    license: str = ""


def check_config(config: ExportConfig) -> tuple[list[Recipe], list[str]]:
    """Refuse what cannot be made, before any work is done.

    Returns:
        The recipes of all formats, and a note for each that one of the formats lacks.

    Raises:
        ExportError: if a format or a recipe is unknown, or none is named, or the license is odd.
    """
    check_license(config.license)
    known = ", ".join(FORMATS)
    if unknown := [name for name in config.formats if name not in FORMATS]:
        raise ExportError(f"Unknown format {unknown}; expected some of: {known}.")
    if not config.formats:
        raise ExportError(f"No format was named; expected some of: {known}.")
    return choose_recipes(config.recipes, tuple(dict.fromkeys(config.formats)))


def check_destination(
    out: Path, force: bool = False, *inputs: str | os.PathLike[str] | None
) -> None:
    """Refuse a destination before any work is done.

    Args:
        out: where the bundle is to be.
        force: whether a bundle that is there already is replaced.
        *inputs: what is read: a folder of samples must not come to hold what is written.

    Raises:
        ExportError: if something is there and `force` is not set, or it is no bundle; or it cannot
            be written, or lies among the samples.
    """
    if data := is_within(out, *inputs):
        raise ExportError(f"{out} lies within {data}, which is read; name another with --out.")
    if not os.path.lexists(out):
        if why := unwritable(out):
            raise ExportError(f"{out} cannot be written ({why}); name another place with --out.")
        return
    if not force:
        raise ExportError(
            f"{out} exists already; name another place with --out, or replace it with --force."
        )
    if not is_bundle(out) and not _is_empty(out):
        raise ExportError(
            f"{out} is no bundle, and is not replaced; name another place with --out."
        )


def _is_empty(out: Path) -> bool:
    return out.is_dir() and not any(out.iterdir())


@guard()
def export(
    source: Source,
    config: ExportConfig,
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress = silent,
) -> list[Variant]:
    """Write a bundle: a model in several formats and sizes, each compared with Keras first.

    Float32 files must give Keras' answers within their format's tolerance. Quantized ones may
    lose what `config.limits` allows on the samples of the source that decide; where one loses
    more, the strategies of `export.quantize.search` are tried. What is reported comes from other
    samples, which may only refuse a file that they refute. Everything is made in a temporary folder
    beside `out`: after a failure, `out` is as it was.

    Args:
        source: what to write, the samples to compare on, and those to calibrate with.
        config: what shall be made of it.
        out: the bundle; a zip if its name ends in .zip, else a folder.
        force: whether a bundle that is there already is replaced.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        What was written, timed; the files lie within the bundle.

    Raises:
        ParityError: if a float32 file's answers differ; nothing is written then.
        GateError: if a quantized file loses too much; nothing is written then.
        ExportError: if a conversion fails, or the destination is taken.
        StorageError: if `out` cannot be written.
    """
    out = Path(out)
    recipes, notes = check_config(config)
    check_destination(out, force)
    check_originals(source)
    if source.resize_in_graph:
        check_formats(config.formats)
    with atomic_path(out, replace_folder=force) as made:
        folder = made.with_name("variants")
        folder.mkdir()
        variants = _make_variants(source, config, recipes, folder, progress)
        facts = {"notes": notes, "license": config.license}
        return ship(source, variants, made, facts=facts, fresh=config.fresh, progress=progress)


def ship(
    source: Source,
    variants: Sequence[Variant],
    out: Path,
    *,
    facts: Mapping[str, Any],
    more: Mapping[str, bytes] = MappingProxyType({}),
    fresh: bool = True,
    progress: Progress = silent,
) -> list[Variant]:
    """Time variants and write them as a bundle.

    Args:
        source: what they were made from.
        variants: each with its file and verdict.
        out: must not exist; a zip if it ends in .zip, else a folder.
        facts: for the record, beside the source's own; what is empty is left out.
        more: contents of other files, by their path in the bundle.
        fresh: whether first answers and memory are measured, in processes of their own.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        The variants, timed.

    Raises:
        ExportError: if `out` exists, or a variant does not answer.
        StorageError: if it cannot be written.
    """
    variants = time_variants(variants, fresh, progress)
    said = {key: value for key, value in facts.items() if value}
    runtime = load(next((v for v in variants if v.recipe == FLOAT), variants[0]).path)
    if platforms := measure_platforms(source, runtime, progress):
        said["platforms"] = platforms
    versions = {**source.facts.get("versions", {}), **_read_versions(variants)}
    record = {**source.facts, "versions": versions, "images": source.describe_images(), **said}
    write_bundle(
        source, variants, out, default=choose_default(variants), facts=record, more=more
    )
    return variants


def _make_variants(
    source: Source,
    config: ExportConfig,
    recipes: Sequence[Recipe],
    folder: Path,
    progress: Progress,
) -> list[Variant]:
    keras = KerasRuntime(source.model, names=list(source.inputs))
    truth = deciding = predict_all(keras, source.inputs, progress, "Keras")
    if recipes and source.deciding is not source.shown:
        deciding = predict_all(keras, source.deciding.inputs, progress, "Keras")
    variants = []
    for name in dict.fromkeys(config.formats):
        contents, plain = _convert(name, source, truth, folder, progress)
        variants.append(plain)
        for recipe in (one for one in recipes if one.format == name):
            task = _describe_task(recipe, contents, source, deciding, folder)
            variants.append(_quantize(task, truth, config.limits, progress))
    return variants


def ask_keras(source: Source, progress: Progress) -> np.ndarray:
    """Return what a source's own model answers for its samples, float32 (n, outputs)."""
    runtime = KerasRuntime(source.model, names=list(source.inputs))
    return predict_all(runtime, source.inputs, progress, "Keras")


def _convert(
    name: str, source: Source, truth: np.ndarray, folder: Path, progress: Progress
) -> tuple[bytes, Variant]:
    """Make a float32 file; its contents without metadata, and the finished variant."""
    format_ = FORMATS[name]
    progress(f"converting to {name}", 0, 1)
    contents, file = format_.convert(source, source.model), folder / format_.file
    file.write_bytes(format_.finish(source, contents))
    given = predict_all(load(file), source.inputs, progress, format_.file)
    require_parity(compare(truth, given, format_.tolerance, source.task), format_.file, source.keys)
    verdict = measure_agreement(truth, given, source)
    dtypes = ("uint8" if source.resize_in_graph else "float32", "float32")
    return contents, describe_variant(name, FLOAT, file, verdict, dtypes=dtypes)


def _describe_task(
    recipe: Recipe, contents: bytes, source: Source, truth: np.ndarray, folder: Path
) -> QuantizationTask:
    format_ = FORMATS[recipe.format]
    return QuantizationTask(
        source=source,
        truth=truth,
        recipe=recipe,
        contents=contents,
        path=folder / recipe.file,
        convert=lambda model: format_.convert(source, model),
        finish=lambda made: format_.finish(source, made),
    )


def _quantize(
    task: QuantizationTask, truth: np.ndarray, limits: Limits, progress: Progress
) -> Variant:
    """Search for a quantized file, and see on other samples whether it is what it was taken for."""
    source, recipe, file = task.source, task.recipe, task.path
    found = QuantizationSearch(task, limits, progress).run()
    verdict = found.verdict
    if source.deciding is not source.shown:
        given = predict_all(load(file), source.inputs, progress, file.name)
        verdict = measure_agreement(truth, given, source)
    if is_refuted(verdict, limits.max_drop):
        raise GateError(
            f"{file.name} passed on the samples that decide, and loses more than "
            f"{100 * limits.max_drop:.2f} points on {len(source)} {source.origin} "
            f"({judge(verdict, limits.max_drop).why}). Nothing was written; allow more with "
            "--max-drop, take fp16, or give more samples of the kind the device sees with "
            "--unlabeled."
        )
    taken = recipe.input_dtype if source.signature.in_bytes else "float32"
    taken = "uint8" if source.resize_in_graph else taken
    facts = {"tool": recipe.tool, **found.settings.record(), "chosen_on": asdict(found.verdict)}
    made = describe_variant(
        recipe.format,
        recipe.name,
        file,
        verdict,
        facts=facts,
        attempts=found.attempts,
        dtypes=(taken, recipe.output_dtype),
    )
    if found.proven:
        return made
    return replace(made, proven=False, notes=(_warn(found.verdict, limits.max_drop),))


def _warn(verdict: Verdict, max_drop: float) -> str:
    """Say that too few samples speak for a file."""
    return (
        f"not proven: {verdict.count} images are too few to tell a loss of "
        f"{100 * max_drop:g} points from one of {200 * max_drop:g} (expected "
        f"{100 * verdict.expected_drop:.2f}, at most {100 * verdict.expected_high:.2f}). Give "
        "images of the kind the device sees with --unlabeled; until then it is never the default."
    )


def describe_variant(
    format_: str,
    recipe: str,
    file: Path,
    verdict: Verdict,
    *,
    facts: Mapping[str, Any] | None = None,
    attempts: tuple[Attempt, ...] = (),
    dtypes: tuple[str, str] = ("float32", "float32"),
) -> Variant:
    """Return the variant that a file is, by its contents.

    Args:
        format_: name in `FORMATS`.
        recipe: what was made of it.
        file: where it lies.
        verdict: how it answers.
        facts: for the record.
        attempts: what was tried for it.
        dtypes: of input and output, "float32" or "uint8".
    """
    contents = file.read_bytes()
    return Variant(
        format=format_,
        recipe=recipe,
        path=file,
        input_dtype=dtypes[0],
        output_dtype=dtypes[1],
        bytes=len(contents),
        sha256=hashlib.sha256(contents).hexdigest(),
        verdict=verdict,
        attempts=attempts,
        facts=facts or {},
    )


def _read_versions(variants: Sequence[Variant]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from tl_keras import __version__

    found = {"tl_keras": __version__, "python": platform.python_version()}
    names = ["tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert"]
    tools = (variant.facts.get("tool", "ai-edge-quantizer") for variant in variants)
    for name in dict.fromkeys([*names, *tools]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
