"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from tl_keras.errors import StorageError

__all__ = ["irregular", "write_atomically"]


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Writes beside the target and renames, so that a reader never sees half a file.

    Args:
        path: the target; its folder is made if missing, an older file is replaced.
        content: what to write.

    Returns:
        The path.

    Raises:
        StorageError: the disk is full or the folder cannot be written; what was there stays.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)  # mkstemp makes it private
            stream.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}). Is there space and "
            "permission? Choose another folder or free some space."
        ) from error
    return path


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
