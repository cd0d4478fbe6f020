"""Ctrl-C while something is being written: the first one waits until it is, a second one does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def finishing() -> Iterator[None]:
    """Delay the first `KeyboardInterrupt` to the end of the block; the second is raised at once.

    Only in the main thread, where Python delivers signals, and only where Ctrl-C raises `KeyboardInterrupt` at all.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is not signal.default_int_handler:
        yield
        return
    asked = 0

    def note(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if asked == 1:
            raise KeyboardInterrupt
