"""Write a bundle: models, labels, proof and programs, in a folder or a zip."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from export.bundle.card import card, task_words
from export.bundle.figures import plot_variants
from export.bundle.golden import make_golden_files
from export.bundle.manifest import MANIFEST, as_json, make_manifest, model_file
from export.bundle.metadata import format_labels
from export.bundle.originals import ORIGINALS, PROBE
from export.bundle.report import report
from export.source import Source
from export.variant import Variant
from tl_keras.errors import ExportError
from tl_keras.utils.files import atomic_path

__all__ = ["write_bundle"]

_PROGRAMS = Path(__file__).resolve().parents[1] / "device"


def write_bundle(
    source: Source,
    variants: Sequence[Variant],
    out: Path,
    *,
    default: str,
    facts: Mapping[str, Any],
    more: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Write a bundle, whole or not at all.

    The same arguments give the same bytes: nothing in a bundle tells when it was written.

    Args:
        source: what the variants were made from; `Source` of the stage is one.
        variants: each with its file, verdict and latencies, in the order to show them.
        out: must not exist; a zip if it ends in .zip, else a folder.
        default: name of the variant to take when nothing else is known.
        facts: for the record, as JSON allows: `versions` (package to version), `data` (such as
            `fingerprint`; `root` is left out), `metrics` of the Keras model, `base`, `license`
            and what else there is to say.
        more: contents of other files, by their path in the bundle.

    Returns:
        `out`.

    Raises:
        ExportError: if `out` exists, or the variants do not go together.
        StorageError: if it cannot be written.
    """
    out = Path(out)
    if os.path.lexists(out):
        raise ExportError(f"{out} exists already; name another place with --out.")
    with atomic_path(out) as made:
        content = made.with_name("content") if out.suffix == ".zip" else made
        _fill(content, source, variants, default, facts, more)
        if content != made:
            _zip(content, made)
    return out


def _fill(
    folder: Path,
    source: Source,
    variants: Sequence[Variant],
    default: str,
    facts: Mapping[str, Any],
    more: Mapping[str, bytes],
) -> None:
    """Write all files; the manifest last, as it describes the others."""
    described = make_manifest(source, variants, (), default, facts)
    golden = make_golden_files(source, variants)
    whole = [name for name in golden if name.startswith(f"{ORIGINALS}/")]
    probes = sum(name.startswith(f"{ORIGINALS}/{PROBE}") for name in whole)
    described["originals"] |= {"count": len(whole) - probes, "probes": probes}
    for variant in variants:
        _copy(variant.path, folder / model_file(variant))
    agreement = task_words(described)["agreement"]
    plot = plot_variants(variants, agreement, folder.with_name("plot.png"))
    texts = {
        "labels.txt": format_labels(source.class_names),
        "README.md": card(described, variants),
        "report.html": report(described, variants, plot),
    }
    files = {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}
    for program in sorted(_PROGRAMS.glob(f"run_{source.modality.name}.*")):
        files[f"run{program.suffix}"] = program.read_bytes()
    reading = {**source.modality.files, **source.modality.programs}
    for name, contents in {**files, **reading, **golden, **more}.items():
        _write(folder / name, contents)
    described["files"] = _list_contents(folder)
    _require_unchanged(described)
    _write(folder / MANIFEST, as_json(described))


def _require_unchanged(described: Mapping[str, Any]) -> None:
    found = {file["path"]: file["sha256"] for file in described["files"]}
    for variant in described["variants"]:
        if found[variant["file"]] != variant["sha256"]:
            raise ExportError(
                f"The file of {variant['name']} has SHA-256 {found[variant['file']]}; expected "
                f"{variant['sha256']}, that of the file that was compared with Keras."
            )


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _write(file: Path, contents: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(contents)


def _list_contents(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "path": file.relative_to(folder).as_posix(),
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in _find_files(folder)
    ]


def _find_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _zip(folder: Path, target: Path) -> Path:
    """Pack a folder with sorted names and a fixed date."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in _find_files(folder):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, file.read_bytes(), compresslevel=9)
    return target
