"""Write a file or a folder whole or not at all."""

from __future__ import annotations

import contextlib
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
    "atomic_path", "irregular", "remove_leavings", "scratch_folder",
    "write_atomically",
]  # fmt: skip

_PREFIX = ".tl_keras-"
_REPLACED = "replaced"


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
