"""Read a bundle that may come from anywhere: nothing is believed before it is checked."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from export.bundle.manifest import MANIFEST, parse_manifest
from export.bundle.metadata import LABELS, format_labels
from export.bundle.originals import read_files
from tl_keras import modalities
from tl_keras.errors import BundleError, StorageError
from tl_keras.modalities.base import InputSpec, Modality

__all__ = ["Bundle", "is_bundle", "read_bundle"]

_LARGEST_MANIFEST = 16 * 2**20
_MOST_ENTRIES = 10_000
_MOST_BYTES = 8 * 2**30
# Weights hardly shrink in a zip; of pruned ones 97 % zeros shrink to a twentieth.
_MOST_RATIO, _SMALL = 100, 16 * 2**20
_CHUNK = 2**20
# Troubles of the machine, not of the bundle.
_OUTSIDE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
# What zipfile, or a disk that takes no such name, raises on files that are damaged or made to harm;
# NotImplementedError for a compression that it lacks, RuntimeError for an entry with a password.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all there, unchanged and none besides.

    Attributes:
        folder: where they lie; for a zip a temporary one.
        manifest: the record, checked.
        name: what the bundle was called when it was opened.
    """

    folder: Path
    manifest: Mapping[str, Any]
    name: str

    def variant(self, name: str | None = None) -> Mapping[str, Any]:
        """Return the record of a variant, the default one for None.

        Raises:
            BundleError: if there is none of that name.
        """
        wanted = name or self.manifest["default"]
        records = {record["name"]: record for record in self.manifest["variants"]}
        if wanted not in records:
            raise BundleError(f"{self.name} has no {wanted!r}; it has: {', '.join(records)}.")
        return records[wanted]

    def read_samples(self, files: Sequence[str | os.PathLike[str]]) -> dict[str, np.ndarray]:
        """Read files as those that the model was trained on.

        Returns:
            By the input's name, (n, ...).

        Raises:
            DataError: if a file cannot be read, or nothing here reads files of the modality.
        """
        return read_files([os.fspath(file) for file in files], self.modality, self.specs)

    @property
    def modality(self) -> Modality:
        """What the models are shown, as decided for the data they were trained on."""
        return modalities.get(
            self.manifest["modality"], self.manifest["settings"], self.folder
        )

    @property
    def specs(self) -> dict[str, InputSpec]:
        """What one sample is for each input, by name."""
        return {
            one.get("name", self.modality.input_name): InputSpec(
                tuple(one["shape"]), one.get("dtype", "uint8"), one.get("values", "")
            )
            for one in self.manifest["inputs"]
        }

    def model(self, name: str | None = None) -> Path:
        """Return where a variant's file lies, the default one's for None."""
        return self.folder / self.variant(name)["file"]


@contextmanager
def read_bundle(bundle: str | os.PathLike[str]) -> Iterator[Bundle]:
    """Check a bundle and yield it; what a zip was unpacked to is removed afterwards.

    Sizes and hashes are those of the manifest, names stay within the bundle, and no more is
    unpacked of a file than the manifest says it has.

    Args:
        bundle: a folder or a zip.

    Raises:
        BundleError: if it is no bundle, was changed, or has a newer schema.
    """
    path = Path(bundle)
    if path.is_dir():
        yield Bundle(path, _check_folder(path), path.name)
        return
    if not path.is_file():
        raise BundleError(f"There is no bundle {path}; expected a folder or a .zip.")
    with tempfile.TemporaryDirectory(prefix="tl_keras-") as folder:
        yield Bundle(Path(folder), _unpack(path, Path(folder)), path.name)


def is_bundle(path: Path) -> bool:
    """Whether a folder or a file has the manifest of a bundle; nothing else is looked at."""
    try:
        if path.is_dir():
            with open(path / MANIFEST, "rb") as stream:
                contents = stream.read(_LARGEST_MANIFEST)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(MANIFEST) as stream:
                contents = stream.read(_LARGEST_MANIFEST)
        return bool(parse_manifest(contents, path.name))
    except (*_DAMAGE, KeyError):
        return False


def _check_folder(folder: Path) -> dict[str, Any]:
    found = {}
    for directory, folders, files in os.walk(folder):
        for file in (Path(directory, name) for name in (*folders, *files)):
            if file.is_symlink():
                raise _refuse(folder.name, file.name, "is a link")
            if not file.is_dir():
                if not file.is_file():
                    raise _refuse(folder.name, file.name, "is no plain file")
                found[file.relative_to(folder).as_posix()] = file
    if MANIFEST not in found:
        raise BundleError(f"{folder} has no {MANIFEST}; expected a bundle that tl-export wrote.")
    with open(found.pop(MANIFEST), "rb") as stream:
        manifest = parse_manifest(stream.read(_LARGEST_MANIFEST), folder.name)
    listed = _require_same_names(manifest, set(found), folder.name)
    for name, facts in listed.items():
        with open(found[name], "rb") as stream:
            _check_stream(stream, facts, folder.name, None)
    _require_labels(folder, manifest, folder.name)
    return manifest


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            return _extract(archive, path, folder)
    except BundleError:
        raise
    except _DAMAGE as error:
        if getattr(error, "errno", None) in _OUTSIDE:
            raise StorageError(
                f"{path} cannot be unpacked in {folder.parent} ({error}); free some space there, "
                "or name another place by the variable TMPDIR."
            ) from error
        raise BundleError(f"{path} is no zip, or damaged ({error}); get it anew.") from error


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path) -> dict[str, Any]:
    name = path.name
    entries = _list_entries(archive, name)
    if MANIFEST not in entries:
        raise BundleError(f"{name} has no {MANIFEST}; expected a bundle that tl-export wrote.")
    with archive.open(entries.pop(MANIFEST)) as stream:
        contents = stream.read(_LARGEST_MANIFEST)
    manifest = parse_manifest(contents, name)
    listed = _require_same_names(manifest, set(entries), name)
    packed = os.path.getsize(path)
    total = sum(facts["bytes"] for facts in listed.values())
    if total > min(_MOST_BYTES, _MOST_RATIO * packed + _SMALL):
        raise BundleError(
            f"{name} would unpack {packed / 1e6:.1f} MB to {total / 1e6:.0f} MB; expected at most "
            f"{_MOST_RATIO} times as much, and {_MOST_BYTES / 2**30:.0f} GB. Nothing of it was "
            "used; get it anew."
        )
    for file, facts in listed.items():
        if entries[file].file_size > facts["bytes"]:
            raise _refuse(name, file, f"is larger than the {facts['bytes']} bytes of the manifest")
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entries[file]) as stream, open(target, "wb") as copy:
            _check_stream(stream, facts, name, copy)
    (folder / MANIFEST).write_bytes(contents)
    _require_labels(folder, manifest, name)
    return manifest


def _list_entries(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """Return the files by name, all of which stay within a folder."""
    infos = archive.infolist()
    if len(infos) > _MOST_ENTRIES:
        raise BundleError(f"{name} has {len(infos)} entries; expected at most {_MOST_ENTRIES}.")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if reason := _find_harm(info):
            raise _refuse(name, info.orig_filename, reason)
        if info.is_dir():
            continue
        if info.filename in entries:
            raise _refuse(name, info.filename, "is there twice")
        entries[info.filename] = info
    return entries


def _find_harm(info: zipfile.ZipInfo) -> str:
    """Say why an entry must not be unpacked; "" if it may."""
    # As it stands in the file: `filename` was made to fit already.
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name) or "\0" in name:
        return "has a path outside the bundle"
    if any(part in ("", ".", "..") for part in parts):
        return "has a path outside the bundle"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no plain file"
    return "is encrypted" if info.flag_bits & 1 else ""


def _require_same_names(manifest: Mapping[str, Any], found: set[str], name: str) -> dict[str, Any]:
    listed = {file["path"]: file for file in manifest["files"]}
    if missing := sorted(listed.keys() - found):
        raise _refuse(name, missing[0], "is missing")
    if extra := sorted(found - listed.keys()):
        raise _refuse(name, extra[0], "is not in the manifest")
    return listed


def _check_stream(
    stream: IO[bytes], facts: Mapping[str, Any], name: str, copy: IO[bytes] | None
) -> None:
    """Read a file, never more than the manifest allows, and compare its hash."""
    digest, left = hashlib.sha256(), facts["bytes"]
    while chunk := stream.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            words = f"is larger than the {facts['bytes']} bytes of the manifest"
            raise _refuse(name, facts["path"], words)
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    if left or digest.hexdigest() != facts["sha256"]:
        raise _refuse(name, facts["path"], "was changed: its SHA-256 is not the manifest's")


def _require_labels(folder: Path, manifest: Mapping[str, Any], name: str) -> None:
    file = folder / LABELS
    expected = format_labels(manifest["classes"]).encode("utf-8", "backslashreplace")
    if not file.is_file() or file.read_bytes() != expected:
        raise _refuse(name, LABELS, "does not hold the classes of the manifest")


def _refuse(bundle: str, file: str, reason: str) -> BundleError:
    return BundleError(f"{bundle}: {file!r} {reason}. Nothing of it was used; get it anew.")
