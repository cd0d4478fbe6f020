"""What Tune says about trials, turned into what a listener hears about jobs. Knows nothing of Ray's modules."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from bench.interrupts import finishing
from bench.schedule import Listener
from bench.schedule.job import Adopted, Job, Record, SaveError, failed_record, known_before, save_record, written_since
from bench.schedule.limits import grace
from bench.schedule.limits import reason as time_limit_reason

_LOST_MACHINE = re.compile(r"node has died\.\s*Node Id:\s*(\w+)", re.IGNORECASE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
ATTEMPTS = 2  # a job whose worker process died is repeated once; anything else that fails is a record


class Bridge:
    """Turns what Tune says about trials into what the listener hears about jobs, and keeps what is still open.

    A fault in here or in the listener must not be taken for a fault of a trial: the first one is kept in `error`.
    """

    def __init__(self, jobs: Sequence[Job], listener: Listener, stop: threading.Event | None) -> None:
        self.jobs, self.listener, self.stop = jobs, listener, stop
        self.open = dict.fromkeys(range(len(jobs)))
        self.before = [known_before(job) for job in jobs]
        self.begun: dict[int, float] = {}
        self.died: dict[int, str] = {}
        self.lost_machines: set[str] = set()  # each allows one more attempt: its jobs are not to blame
        self.error: BaseException | None = None
        self.cluster_lost = False  # what runs is cut off, and nothing that ends now says anything about its cell

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()  # Tune pickles its callbacks into files that nobody reads, and ships them to workers

    @property
    def stopping(self) -> bool:
        return self.error is not None or self.cluster_lost or (self.stop is not None and self.stop.is_set())

    @contextlib.contextmanager
    def keep_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def started(self, number: int) -> None:
        self.begun[number] = time.monotonic()
        self.listener.started(self.jobs[number])

    def reported(self, number: int, result: dict[str, Any]) -> None:
        job = self.jobs[number]
        if "values" in result:
            self.listener.epoch(job, result.pop("epoch"), result.pop("values"))
        elif "said" in result:
            warnings.warn(result.pop("said"), stacklevel=1)
        elif "record" in result and number in self.open:
            record, unsaved = result.pop("record"), result.pop("unsaved", None)
            with finishing():
                self._close(number, record, unsaved, adopted=result.pop("adopted", False))

    def failed(self, number: int, error: BaseException | None, *, died: bool = True) -> None:
        """The trial ended without a result: its worker died, or raised where `run_job` catches nothing."""
        if self.stopping or number not in self.open:  # after the record of a cell that cost it the GPU, a worker raises
            return
        job, limit = self.jobs[number], self.jobs[number].options.time_limit
        elapsed = time.monotonic() - self.begun.get(number, time.monotonic())
        record = written_since(job, self.before[number])
        if record is not None:  # written by its watchdog, or just before it died
            self._close(number, record)
        elif limit and elapsed > limit + grace(limit):
            self._close(number, failed_record(job, time_limit_reason(job)))
        elif not died:  # it would be raised again
            text = _ANSI.sub("", str(error))
            self._close(number, failed_record(job, f"the cell could not be run: {_why(error)}", traceback=text))
        else:
            self.died[number] = _why(error)
            self.lost_machines.update(_LOST_MACHINE.findall(str(error)))

    def finish(self) -> None:
        """After the last attempt: raise what went wrong in the driver, and give up the jobs that are still open."""
        if self.error is not None:
            raise self.error
        for number in [] if self.stopping else list(self.open):
            why = self.died.get(number, "Ray ended the trial without saying why")
            self._close(number, failed_record(self.jobs[number], f"worker process died ({ATTEMPTS} attempts; {why})"))

    def _close(self, number: int, record: Record | None, unsaved: str | None = None, *, adopted: bool = False) -> None:
        job = self.jobs[number]
        del self.open[number]
        try:
            if record is not None and written_since(job, "" if adopted else self.before[number]) is None:
                save_record(job, record)
                unsaved = None
        except SaveError as error:
            unsaved = unsaved or str(error)
        if record is None or unsaved:
            self.listener.lost(job, unsaved or "no record came back")
        else:
            self.listener.finished(job, Adopted(record) if adopted else record)


def _why(error: BaseException | None) -> str:
    """One line out of Ray's account of a dead actor or of an exception in it."""
    if error is None:
        return "Ray gave no reason"
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {cause}"[:300]
    text = " ".join(str(error).split())
    detail = re.search(r"Worker exit type: .*?(?= Some common causes| There are some potential|$)", text)
    if detail is None:
        return text[:300] or type(error).__name__
    return f"killed from outside, out of memory, or a crash in native code; Ray says: {detail.group(0)[:200]}"
