"""Start-up chatter kept away from the user: TensorFlow's, absl's, XLA's and the converters'.

Some of it is written by C++ straight to file descriptor 2, before any log level is read, so
that neither `warnings` nor `logging` nor `sys.stderr` can stop it: the descriptors themselves
are turned away for the moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TextIO

__all__ = ["CapturedOutput", "silenced", "start_tensorflow"]

_LAST_BYTES = 4000


@dataclass
class CapturedOutput:
    """What was said while silenced.

    Attributes:
        text: the end of it, as text; empty until the end.
    """

    text: str = ""

    def last_lines(self, count: int = 5) -> str:
        """Return the last `count` lines that are not blank."""
        lines = [line.rstrip() for line in self.text.splitlines() if line.strip()]
        return "\n".join(lines[-count:])


@contextlib.contextmanager
def silenced() -> Iterator[CapturedOutput]:
    """Keep everything from the terminal that this process writes to stdout and stderr.

    Holds for Python code, child processes and C++ alike, and for all threads: draw no
    progress bar meanwhile.

    Yields:
        What was said, filled in at the end, also when an exception passes through.
    """
    said = CapturedOutput()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_turned_away(file))
            copy = os.dup(file.fileno())
            text = stack.enter_context(open(copy, "w", encoding="utf-8", errors="replace"))
            stack.callback(_let_go, text)
            stack.enter_context(contextlib.redirect_stdout(text))
            stack.enter_context(contextlib.redirect_stderr(text))
            yield said
        finally:
            stack.close()
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            said.text = file.read().decode("utf-8", "replace")


def _let_go(text: TextIO) -> None:
    """Give stderr to the loggers that first spoke meanwhile and took `text` for it."""
    names = list(logging.Logger.manager.loggerDict)
    for logger in (logging.getLogger(), *map(logging.getLogger, names)):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is text:
                handler.setStream(sys.stderr)


@contextlib.contextmanager
def _turned_away(file: BinaryIO) -> Iterator[None]:
    """Point the descriptors 1 and 2 at `file`; one that is closed already stays so."""
    kept = {}
    _flush()
    for number in (1, 2):
        with contextlib.suppress(OSError):
            kept[number] = os.dup(number)
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A stream can be None (pythonw), closed, or lead to a pipe that nobody reads.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()


def start_tensorflow() -> None:
    """Import TensorFlow and Keras without a word; does nothing when they are imported."""
    if "tensorflow" in sys.modules and "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with silenced():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    # Advice on retracing and the like, which a user of a command can do nothing with.
    for name in ("tensorflow", "absl", "tf2onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
