"""Locks of files between processes. The kernel releases one when its holder dies, on Linux also over NFS.

Where a file system has no such locks nobody waits: a mere marker file would outlive a holder that was killed, and then hold
up everyone for ever. Who goes on without a lock does at worst what another does too, with the same result.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.25
PATIENCE = 10.0  # seconds of waiting before a word is said
_NONE = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def acquired(path: Path, waiting: Callable[[], None], say: Callable[[str], None] = lambda message: None) -> Any:
    """The held lock `path`, to be released by the caller; None where there are no locks. Raises `OSError`.

    While another process holds it `waiting` is called again and again, and may raise; `say` is told once, after `PATIENCE`.
    The file stays: removing it would let a third process lock a new file while a second one waits for the old.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, begin, said = FileLock(path), time.monotonic(), False
    while True:
        try:
            lock.acquire(timeout=0)
            return lock
        except Timeout:
            if not isinstance(lock, FileLock):  # it has become a marker file
                return None
        except NotImplementedError:  # older versions of filelock, in place of the marker file
            return None
        except OSError as error:
            if error.errno in _NONE:
                return None
            raise
        waiting()
        if not said and time.monotonic() - begin >= PATIENCE:
            said = True
            say(
                f"waiting for {path}, which another process holds; this goes on when that one is done or ends. If no other run "
                f"is meant to go on, here or on a machine that shares the folder, end the process that `fuser {path}` names"
            )
        time.sleep(POLL_SECONDS)
