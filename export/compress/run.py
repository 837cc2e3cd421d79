"""Compress a finished run's model, and write it as a bundle like any other export."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.agreement import (
    compare,
    judge_trained,
    measure_agreement,
    predict_all,
    require_parity,
)
from export.bundle.originals import check_originals
from export.compress.fine_tune import FineTune
from export.compress.keras2.load import load_tfmot
from export.compress.methods import CLUSTERS, SPARSITY, Compressed, check_method, compress
from export.convert import tflite
from export.pipeline import FORMATS, ask_keras, check_destination, describe_variant, ship
from export.runtime.runtimes import KerasRuntime, load
from export.source import OWN, Source, from_run
from export.variant import Variant
from tl_keras.errors import ExportError, GateError
from tl_keras.runs.directory import RunDirectory
from tl_keras.runs.lifecycle import guard
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress, silent

__all__ = ["CompressConfig", "compress_run"]

KERAS = "models/model.keras"


@dataclass(frozen=True)
class CompressConfig:
    """What to do with a run.

    Attributes:
        method: a name in `export.compress.methods.METHODS`.
        how: the fine-tune of each step.
        sparsity: share of all kernels' weights that "prune" sets to zero.
        clusters: different weights that "cluster" leaves in each layer.
        max_drop: accuracy that may be lost, 0..1, see `export.variant.Verdict.drop`.

    Raises:
        ExportError: if the method is unknown, or the drop is no share.
    """

    method: str
    how: FineTune
    sparsity: float = SPARSITY
    clusters: int = CLUSTERS
    max_drop: float = 0.01

    def __post_init__(self) -> None:
        """Refuse an unknown method."""
        check_method(self.method)
        if not 0 <= self.max_drop <= 1:
            raise ExportError(f"Got a largest drop of {self.max_drop}; expected 0..1.")

    def describe(self) -> dict[str, Any]:
        """Return what the record says of it."""
        how = {key: value for key, value in vars(self.how).items() if key != "progress"}
        facts = {key: value for key, value in vars(self).items() if key != "how"}
        return {**facts, "fine_tune": how}


@guard()
def compress_run(
    run: str | os.PathLike[str],
    config: CompressConfig,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    originals: str = OWN,
    progress: Progress = silent,
) -> Variant:
    """Compress a finished run's model with a short fine-tune on the run's own samples.

    The .tflite file may lose `config.max_drop` on samples that it was not trained with, see
    `export.source.allot`. It is written as a bundle, without QAT with the plain Keras model beside
    it, whose answers it gives.

    Args:
        run: a run directory.
        config: method, fine-tune, amounts, and what may be lost.
        out: the bundle to write, a zip if it ends in .zip; must not exist.
        data: where the run's samples are now, when they moved.
        originals: which files the bundle carries, see `Source`.
        progress: told (what is being done, how much is done, of how much).

    Returns:
        What was written. Its facts hold "zipped" (bytes when deflated), "zipped_of_fp32" (of the
        run's own .tflite file in float32), "left_in_float" (layers that QAT did not round), and
        those of `Compressed.facts`.

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the samples are not where they were.
        GateError: if the compressed model loses too much; nothing is written then.
        ParityError: if the .tflite file differs from the compressed Keras model.
        ExportError: if `out` exists, tfmot is missing, or a layer cannot be compressed.
        StorageError: if `out` cannot be written.
    """
    target = Path(out)
    directory = RunDirectory(run)
    if not config.how.augment:
        known = directory.record.get("plan", {}).get("augment", "none")
        config = replace(config, how=replace(config.how, augment=known))
    directory.modality.check_augment(config.how.augment)
    check_destination(target, False, data or directory.fact("data", "root"))
    source = from_run(run, data=data, originals=originals)
    check_originals(source)
    load_tfmot()
    if source.data is None:
        raise ExportError("The run has no training samples to fine-tune on.")
    # Before the training: a place that cannot be written would lose it.
    with atomic_path(target) as made:
        folder = made.with_name("variants")
        folder.mkdir()
        given = compress(
            source.model, source.data, config.method, config.how, config.sparsity, config.clusters
        )
        variant, more = _prove(folder, given, source, config, progress)
        facts = {"compression": config.describe()}
        (variant,) = ship(source, [variant], made, facts=facts, more=more, progress=progress)
    return variant


def _prove(
    folder: Path, given: Compressed, source: Source, config: CompressConfig, progress: Progress
) -> tuple[Variant, dict[str, bytes]]:
    """Write the file and compare it; the variant, and other files for the bundle."""
    file = folder / "model.tflite"
    contents = FORMATS["tflite"].finish(source, given.tflite)
    file.write_bytes(contents)
    answers = predict_all(load(file), source.inputs, progress, file.name)
    more = {}
    if given.model is not None:
        given.model.save(folder / "model.keras")
        more[KERAS] = (folder / "model.keras").read_bytes()
        _require_same(folder / "model.keras", answers, source, progress)
    truth = ask_keras(source, progress)
    verdict = measure_agreement(truth, answers, source)
    decision = judge_trained(verdict, config.max_drop)
    if not decision.passed:
        raise GateError(
            f"The compressed model loses too much: {decision.why}; "
            f"{100 * config.max_drop:.2f} are allowed. Nothing was written; "
            "train it longer with --epochs, compress it less (--sparsity, --clusters), or allow "
            "more with --max-drop."
        )
    zipped = len(zlib.compress(contents, 9))
    facts = {
        "tool": "tensorflow-model-optimization",
        "zipped": zipped,
        "zipped_of_fp32": zipped / len(tflite.convert(source.model, source.signature)),
        "left_in_float": list(given.left_in_float),
        **given.facts,
    }
    in_bytes = given.model is None and source.signature.in_bytes
    dtypes = ("uint8" if in_bytes else "float32", "float32")
    recipe = config.method.replace("+", "_")
    made = describe_variant("tflite", recipe, file, verdict, facts=facts, dtypes=dtypes)
    if not decision.proven:
        note = f"not proven, these are too few to tell: {decision.why}"
        made = replace(made, proven=False, notes=(note,))
    return made, more


def _require_same(file: Path, answers: np.ndarray, source: Source, progress: Progress) -> None:
    """Let the .tflite file of a model without whole numbers pass only as that model's equal."""
    runtime = KerasRuntime(file, names=list(source.inputs))
    expected = predict_all(runtime, source.inputs, progress, file.name)
    parity = compare(expected, answers, FORMATS["tflite"].tolerance, source.task)
    require_parity(parity, "model.tflite", source.keys)
