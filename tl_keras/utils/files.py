"""Write a file or a folder whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tl_keras.errors import StorageError
from tl_keras.utils.limits import name_full_disk
from tl_keras.utils.locks import LOCK, try_lock

__all__ = [
    "atomic_files", "atomic_path", "irregular", "is_within", "read_small", "refuse_file",
    "remove_leavings", "scratch_folder", "unwritable",
    "write_atomically",
]  # fmt: skip

_PREFIX = ".tl_keras-"
_REPLACED = "replaced"
_LONGEST_NAME = 255  # on nearly every disk


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write a file beside its place and rename it, so that a reader never sees half of it.

    Args:
        path: The target; its folder is made if missing, an older file is replaced.
        content: What to write.

    Returns:
        The path.

    Raises:
        StorageError: The disk is full or the folder cannot be written; what was there stays.
    """
    with atomic_path(path) as made:
        made.write_bytes(content)
    return Path(path)


@contextlib.contextmanager
def atomic_path(path: str | Path, *, replace_folder: bool = False) -> Iterator[Path]:
    """Yield a place to write a file or a folder at, which is moved to `path` at the end.

    The place has the same name, in a folder beside the target that takes other temporary files
    too. When anything goes wrong the target is as it was.

    Args:
        path: The target; its folder is made if missing, a file that is there is replaced.
        replace_folder: Whether a folder that is there and not empty is replaced too.

    Raises:
        StorageError: The disk is full or the target cannot be written.
    """
    path = Path(path).absolute()
    with contextlib.ExitStack() as stack:
        with _refusals_named(path):
            folder = stack.enter_context(scratch_folder(path.parent))
        with name_full_disk(path.parent):
            yield folder / path.name
        with _refusals_named(path):
            _move(folder / path.name, path, folder / _REPLACED if replace_folder else None)


def _move(made: Path, path: Path, aside: Path | None) -> None:
    if aside is not None and os.path.lexists(path):
        aside.mkdir()
        os.replace(path, aside / path.name)
    try:
        os.replace(made, path)
    except OSError:
        if aside is not None:
            _put_back(aside, path.parent)
        raise


def _put_back(aside: Path, parent: Path) -> None:
    for old in aside.iterdir() if aside.is_dir() else ():
        if not os.path.lexists(parent / old.name):
            os.replace(old, parent / old.name)


@contextlib.contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a place to write files at, which are moved into `folder` together at the end.

    Files of other names that are there stay; when anything goes wrong, all do.

    Args:
        folder: The target, made if missing.

    Raises:
        StorageError: The disk is full or the target cannot be written.
    """
    folder = Path(folder).absolute()
    with contextlib.ExitStack() as stack:
        with _refusals_named(folder):
            made = stack.enter_context(scratch_folder(folder.parent)) / folder.name
            made.mkdir()
        with name_full_disk(folder.parent):
            yield made
        with _refusals_named(folder):
            folder.mkdir(exist_ok=True)
            for file in sorted(made.iterdir()):
                os.replace(file, folder / file.name)


@contextlib.contextmanager
def scratch_folder(parent: str | Path) -> Iterator[Path]:
    """Yield a new folder on the disk of `parent`, which goes away at the end.

    One that a killed process could not remove goes with the next start, see
    :func:`remove_leavings`.

    Raises:
        OSError: It cannot be made.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_once(str(parent.absolute()))
    folder, lock = _claimed(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _claimed(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            lock = try_lock(folder / LOCK)
        except FileNotFoundError:
            continue  # taken for a leaving before it was locked
        except OSError:
            return folder, None  # a disk without locks
        if lock is not None:
            return folder, lock


def remove_leavings(parent: str | Path) -> None:
    """Remove the scratch folders in `parent` whose writers are dead.

    What was being replaced when its writer was killed is put back.
    """
    for folder in Path(parent).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not (folder / LOCK).exists() and any(folder.iterdir()):
                continue  # not ours
            lock = try_lock(folder / LOCK)
            if lock is not None:
                try:
                    _put_back(folder / _REPLACED, folder.parent)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


_remove_once = functools.cache(remove_leavings)
"""Where many files are written to one folder, it is looked through once."""


@contextlib.contextmanager
def _refusals_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}). Is there space and "
            "permission? Choose another folder or free some space."
        ) from error


_IRREGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular(path: str | os.PathLike[str]) -> str:
    """Say what a path is that is no regular file and may make its reader wait forever.

    Returns:
        "a named pipe", "a socket", "a device" or "a folder"; "" for a regular file and for
        what does not exist or cannot be asked, which opening it will tell.
    """
    try:
        return _IRREGULAR.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except (OSError, ValueError):
        return ""


def read_small(path: str | os.PathLike[str], most: int = 2**28) -> bytes:
    """Read a whole file of records, wherever it comes from: no wait and no end of the memory.

    Args:
        path: The file.
        most: The largest that is read, in bytes.

    Raises:
        OSError: It is missing, cannot be read, is no regular file, or is larger.
    """
    if kind := irregular(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
    with open(path, "rb") as stream:
        contents = stream.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", os.fspath(path))
    return contents


def is_within(
    path: str | os.PathLike[str], *folders: str | os.PathLike[str] | None
) -> str | os.PathLike[str] | None:
    """Return the first of some folders that a path lies in, links followed; None for none."""
    place = os.path.realpath(path)
    for folder in folders:
        if folder and os.path.isdir(folder):
            within = os.path.realpath(folder)
            if place != within and os.path.commonpath([within, place]) == within:
                return folder
    return None


def unwritable(path: str | os.PathLike[str]) -> str:
    """Say why nothing can be written at a path; "" if something can."""
    path = Path(path)
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        return f"a name of more than {_LONGEST_NAME} bytes"
    places = (path, *path.absolute().parents)
    place = next(one for one in places if os.path.lexists(one) and one != Path())
    try:
        if not place.is_dir() and place != path:
            return f"{place} is no folder"
        # Permissions do not tell of read-only disks: only a try does.
        with scratch_folder(place if place.is_dir() else place.absolute().parent):
            return ""
    except OSError as error:
        return f"{place}: {error.strerror}"


def refuse_file(
    path: Path, suffix: str, *inputs: str | os.PathLike[str] | None, option: str = "--out"
) -> None:
    """Check before any work that a file can be written, and that no input suffers by it.

    Args:
        path: Where it is to be; a file of that kind which is there would be replaced.
        suffix: What its name must end in, such as ".json".
        *inputs: What is read: a folder of samples must not come to hold what is written.
        option: Its option, for messages.

    Raises:
        StorageError: It cannot be written, has another kind, or lies within an input.
    """
    why = ""
    if path.suffix.lower() != suffix:
        why = f"its name should end in {suffix}"
    elif os.path.lexists(path) and not path.is_file():
        why = f"it is {irregular(path) or 'a link to nowhere'}"
    elif data := is_within(path, *inputs):
        why = f"it lies within {data}, which is read"
    if why := why or unwritable(path):
        raise StorageError(f"{option} {str(path)!r} cannot be written: {why}; choose another")
