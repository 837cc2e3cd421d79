"""A finished run compressed: files, each with its verdict, in a folder of their own."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from export.agreement import measure_agreement, predict_all
from export.bundle.metadata import label_lines
from export.compress.fine_tune import FineTune
from export.compress.keras2.load import load_tfmot
from export.compress.methods import CLUSTERS, SPARSITY, Compressed, check_method, compress
from export.convert import tflite
from export.runtime.runtimes import KerasRuntime, load
from export.source import Source, from_run
from export.variant import Verdict
from tl_keras.errors import ExportError
from tl_keras.utils.files import atomic_path
from tl_keras.utils.progress import Progress, silent

__all__ = ["Made", "Wanted", "compress_run"]

SCHEMA = 1
KERAS, TFLITE = "model.keras", "model.tflite"


@dataclass(frozen=True)
class Wanted:
    """What to do with a run.

    Attributes:
        method: a name in `export.compress.methods.METHODS`.
        how: the fine-tune of each step.
        sparsity: share of all kernels' weights that "prune" sets to zero.
        clusters: different weights that "cluster" leaves in each layer.

    Raises:
        ExportError: if the method is unknown.
    """

    method: str
    how: FineTune
    sparsity: float = SPARSITY
    clusters: int = CLUSTERS

    def __post_init__(self) -> None:
        """Refuse an unknown method."""
        check_method(self.method)


@dataclass(frozen=True)
class Made:
    """One file that was written.

    Attributes:
        file: its name.
        bytes: its size.
        zipped: its size when deflated, as in a zip.
        of_fp32: `zipped` over the size of the run's own .tflite in float32.
        verdict: how it answers beside the run's model.
        left_in_float: layers that quantization-aware training left in float.
    """

    file: str
    bytes: int
    zipped: int
    of_fp32: float
    verdict: Verdict
    left_in_float: tuple[str, ...] = ()


def compress_run(
    run: str | os.PathLike[str],
    wanted: Wanted,
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> list[Made]:
    """Compress a finished run's model with a short fine-tune on the run's own pictures.

    Written are `model.tflite`, without QAT also `model.keras`, `labels.txt` and
    `compress.json`; all of it or nothing.

    Args:
        run: a run directory.
        wanted: method, fine-tune and amounts.
        out: the folder to write; must not exist.
        data: where the run's pictures are now, when they moved.
        progress: told (what is being done, how much is done, of how much).

    Raises:
        RunError: if the run is missing, damaged or not complete.
        DataError: if the pictures are not where they were.
        ExportError: if `out` exists, tfmot is missing, or a layer cannot be compressed.
        StorageError: if `out` cannot be written.
    """
    target = Path(out)
    if os.path.lexists(target):
        raise ExportError(f"{target} exists already and was not changed; choose another --out.")
    source = from_run(run, data=data)
    load_tfmot()
    if source.data is None:
        raise ExportError("The run has no training pictures to fine-tune on.")
    # Before the training: a place that cannot be written would lose it.
    with atomic_path(target) as folder:
        folder.mkdir()
        given = compress(
            source.model, source.data, wanted.method, wanted.how, wanted.sparsity, wanted.clusters
        )
        made = _written(folder, given, source, progress)
        _record(folder, source, wanted, made)
    return made


def _written(
    folder: Path, given: Compressed, source: Source, progress: Progress
) -> list[Made]:
    (folder / TFLITE).write_bytes(given.tflite)
    if given.model is not None:
        given.model.save(folder / KERAS)
    whole = len(tflite.convert(source.model))
    truth = predict_all(KerasRuntime(source.model), source.pictures, progress, "Keras")
    made = []
    for name in (TFLITE, KERAS):
        if (folder / name).exists():
            found = predict_all(load(folder / name), source.pictures, progress, name)
            contents = (folder / name).read_bytes()
            zipped = len(zlib.compress(contents, 9))
            proof = measure_agreement(truth, found, source)
            made.append(
                Made(name, len(contents), zipped, zipped / whole, proof, given.left_in_float)
            )
    return made


def _record(folder: Path, source: Source, wanted: Wanted, made: list[Made]) -> None:
    how = {key: value for key, value in vars(wanted.how).items() if key != "progress"}
    record = {
        "schema": SCHEMA,
        "name": source.name,
        "method": wanted.method,
        "sparsity": wanted.sparsity,
        "clusters": wanted.clusters,
        "fine_tune": how,
        "classes": list(source.class_names),
        "files": [asdict(one) for one in made],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "compress.json").write_bytes(text.encode("utf-8", "backslashreplace"))
    labels = label_lines(source.class_names)
    (folder / "labels.txt").write_bytes(labels.encode("utf-8", "backslashreplace"))
