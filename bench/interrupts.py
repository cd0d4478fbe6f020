"""Ctrl-C and `kill` while something is being written: the first one waits until it is, a second one does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop(number: int, frame: FrameType | None) -> None:
    """What SIGTERM does inside of `stoppable`."""
    raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, which `kill`, batch systems and containers send, acts like Ctrl-C inside of the block.

    A shell that starts a command in the background lets it ignore Ctrl-C; this is how such a run is stopped.
    """
    if threading.current_thread() is not threading.main_thread():  # only there does Python deliver signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def handler_kept() -> Iterator[None]:
    """What a library sets for SIGTERM inside of the block does not outlive it, where `stoppable` had set something."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is stop:
            signal.signal(signal.SIGTERM, stop)


@contextmanager
def finishing() -> Iterator[None]:
    """Delay the first `KeyboardInterrupt` to the end of the block; the second is raised at once.

    Only in the main thread, where Python delivers signals, and only for signals that raise `KeyboardInterrupt` at all.
    """
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number in SIGNALS if previous[number] in (signal.default_int_handler, stop)]
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return
    asked = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, previous[number])
        if asked == 1:
            raise KeyboardInterrupt


def interrupted(error: BaseException) -> bool:
    """Whether an interrupt stands behind an error: what was being written when it came may complain while it is torn down."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind is not None
