"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tl_keras.errors import StorageError

__all__ = ["write_atomically"]


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
