"""Locks on files that a process loses when it ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tl_keras.errors import RunError

__all__ = ["lock_folder", "try_lock"]

LOCK = "lock"
"""Name of the lock's file in a folder that somebody writes to."""


def try_lock(path: Path) -> int | None:
    """Take a lock for as long as the descriptor that comes back is open.

    The system lets go of it when the process ends, be it by `kill -9`, so none is ever stale.

    Args:
        path: The lock's file, made if it is missing.

    Returns:
        The open descriptor; None where somebody else holds the lock.

    Raises:
        OSError: The file cannot be made, or its disk knows no locks.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it may have removed the file after it was opened here.
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let nobody else write to a folder meanwhile; readers are not kept out.

    Raises:
        RunError: Another process, or another part of this one, writes to it.
    """
    path = folder / LOCK
    try:
        handle = try_lock(path)
    except OSError:  # a disk without locks
        yield
        return
    if handle is None:
        raise RunError(
            f"{folder} is being written by another process{_holder(path)}; wait until it has "
            "ended, or stop it"
        )
    try:
        os.truncate(handle, 0)
        os.write(handle, f"number {os.getpid()} on {os.uname().nodename}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({path.read_text(encoding='utf-8')})"
    return ""
