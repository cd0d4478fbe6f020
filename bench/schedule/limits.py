"""The hard time limit, for methods that never come back to the harness; others it stops between blocks of batches."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.schedule.job import Job, failed_record, save_record

#: exit status of a worker that its watchdog ended
EXIT_STATUS = 78
MINIMUM_GRACE = 5.0


def grace(limit: float) -> float:
    """Seconds beyond the limit in which the harness may still end a cell in good order, with its curve and costs."""
    return max(MINIMUM_GRACE, 0.2 * limit)


def reason(job: Job) -> str:
    limit = job.options.time_limit or 0.0
    return f"exceeded the time limit of {limit:g} s per cell (resources.time_limit); the method did not return by itself"


@contextmanager
def alarm(job: Job) -> Iterator[None]:
    """Raise `TimeLimit` in the main thread when the grace is over; no effect in other threads.

    It cannot interrupt a call into C that never returns. It rings again every few seconds for methods that swallow it.
    """
    from bench.trial.task import TimeLimit

    limit = job.options.time_limit
    if not limit or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: object) -> None:
        raise TimeLimit(reason(job))

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit + grace(limit), MINIMUM_GRACE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def watchdog(job: Job) -> Iterator[None]:
    """End this process when the grace is over, after writing the failed record with the place where the method hangs.

    Only for worker processes. A method that never gives up the interpreter lock stops the watchdog's thread as well;
    `faulthandler`, which needs no lock, then ends the process later and the driver writes the record.
    """
    limit = job.options.time_limit
    if not limit:
        yield
        return
    finished, thread_id = threading.Event(), threading.get_ident()

    def bark() -> None:
        if finished.wait(limit + grace(limit)):
            return
        with suppress(Exception):  # whatever fails here, the process must end; the driver knows the job
            frame = sys._current_frames().get(thread_id)
            where = "".join(traceback.format_stack(frame)[-8:]) if frame else None
            save_record(job, failed_record(job, reason(job), traceback=where))
        os._exit(EXIT_STATUS)

    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(limit + 2 * grace(limit), exit=True, file=nowhere)
        threading.Thread(target=bark, name="bench-watchdog", daemon=True).start()
        try:
            yield
        finally:
            finished.set()
            faulthandler.cancel_dump_traceback_later()
