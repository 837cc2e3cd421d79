"""Ctrl-C and SIGTERM: work that is stopped cleans up after itself, and does stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tl_keras.utils.progress import Progress

__all__ = ["stoppable"]



@contextmanager
def stoppable() -> Iterator[Callable[[Progress], Progress]]:
    """Let SIGTERM stop work as Ctrl-C does, and let neither be lost.

    Both raise KeyboardInterrupt. Libraries may swallow that while they are imported or convert a
    model, so it is raised again at the next step.

    Yields:
        What makes a progress function one that stops the work it is told of.
    """
    asked: list[int] = []

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def stopping(progress: Progress) -> Progress:
        def told(word: str, done: int, total: int) -> None:
            if asked:
                raise KeyboardInterrupt
            progress(word, done, total)

        return told

    if threading.current_thread() is not threading.main_thread():
        yield stopping  # only the main thread may handle signals
        return
    # What the caller ignores, as nohup and shells do for work in the background, stays ignored.
    heard = [number for number in (signal.SIGINT, signal.SIGTERM)
             if signal.getsignal(number) is not signal.SIG_IGN]  # fmt: skip
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
