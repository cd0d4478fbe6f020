"""One job: a cell, how to run it, and where its record goes. `run_job` is what every executor calls."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import cell_id
from bench.records import SCHEMA, RecordError, load_record, record_path, write_record
from bench.safe_text import clean_record
from bench.schedule.interrupts import finishing

if TYPE_CHECKING:
    from bench.trial.runner import Options

Record = dict[str, Any]
Progress = Callable[[int, dict[str, float | None]], None]

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Job:
    """One cell to run. `folder` is the absolute path of results/<suite>; `cpus`, `gpus` and `memory` are what it occupies."""

    cell: dict[str, Any]
    options: Options
    label: str
    folder: str
    cpus: float = 1
    gpus: float = 0
    memory: float = 0  # bytes of the machine that Ray sets aside; 0: not counted
    replace: bool = False  # run it although a record exists (`--force`, `--retry-failed`)

    @property
    def id(self) -> str:
        return cell_id(self.cell)


class Adopted(Record):
    """The record of a job that another `bench run` on the same folder finished while this one waited for it."""


class SaveError(OSError):
    """A record could not be saved, so its cell does not count as done. `record` is what was to be saved, if any."""

    record: Record | None = None

    @classmethod
    def of(cls, path: Path, error: OSError, record: Record | None = None) -> SaveError:
        fault = cls(
            f"cannot save {path}: {error.strerror or error}. Free space or correct the permissions, then run the suite "
            "again: only what has no record is run."
        )
        fault.record = record
        return fault


class ResourceError(Exception):
    """A job asks for more than any machine of the cluster has (exit code 3)."""


class Stopped(BaseException):
    """The run was asked to stop: no record. Not an `Exception`, so that no cell takes it for a fault of its own."""


def run_job(
    job: Job,
    on_epoch: Progress | None = None,
    *,
    guard: Callable[[Job], AbstractContextManager[None]] | None = None,
    stop: threading.Event | None = None,
) -> Record:
    """Run a cell, save its record, drop its checkpoint, return the record.

    One process at a time works on a cell: a second one waits, and returns what the first one wrote as `Adopted`.
    `guard` enforces the time limit on methods that never return (`bench.schedule.limits`). Raises `SaveError` when the
    record cannot be written, `Stopped` between epochs once `stop` is set; any other fault is a record with its reason.
    """
    from bench.trial.runner import forget_checkpoint

    before = signature(job)
    with _Lock(job, stop):
        found = _finished_record(job, before)
        if found is not None:
            return Adopted(found)
        record = _run(job, _stoppable(on_epoch, stop), guard or _unguarded)
        with finishing():
            save_record(job, record)
            with suppress(OSError):  # the record is safe; what is left is a file too many
                forget_checkpoint(job.options, job.id)
    return record


def _run(job: Job, on_epoch: Progress, guard: Callable[[Job], AbstractContextManager[None]]) -> Record:
    from bench.trial.runner import run_cell
    from bench.trial.task import TimeLimit

    begin = datetime.datetime.now(datetime.UTC)
    try:
        with guard(job):
            return run_cell(job.cell, job.options, on_epoch)
    except TimeLimit as error:  # the alarm rang outside the part that turns exceptions into records
        return failed_record(job, str(error), begin=begin)
    except SystemExit as error:
        return failed_record(job, f"the method ended the process: SystemExit({error.code})", begin=begin)
    except Exception as error:
        return failed_record(job, f"{type(error).__name__}: {error}", begin=begin)


def save_record(job: Job, record: Record) -> None:
    """Write the record into the job's folder. Raises `SaveError`; a record that is no valid JSON is saved as failed."""
    clean_record(record)
    try:
        try:
            write_record(Path(job.folder), record)
        except (ValueError, TypeError) as error:  # NaN or infinity in it, or a value that JSON does not know
            record.update(failed_record(job, f"its record cannot be written: {error}"))
            write_record(Path(job.folder), record)
    except OSError as error:
        raise SaveError.of(record_path(Path(job.folder), job.id), error, record) from error


def failed_record(job: Job, reason: str, *, traceback: str | None = None, begin: datetime.datetime | None = None) -> Record:
    """A record for a cell whose own process could not write one."""
    import bench
    from bench.provenance import git_state

    now = datetime.datetime.now(datetime.UTC)
    commit, dirty = git_state()
    provenance = {
        "bench": bench.__version__, "git_commit": commit, "git_dirty": dirty, "code": None, "torch": None,
        "python": platform.python_version(), "device": job.options.device, "executor": job.options.executor,
        "host": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8],
        "platform": f"{platform.system()}-{platform.machine()}",
        "started": (begin or now).isoformat(timespec="seconds"), "finished": now.isoformat(timespec="seconds"),
    }  # fmt: skip
    record: Record = {
        "schema": SCHEMA, "id": job.id, "suite": job.options.suite, "cell": job.cell, "status": "failed",
        "reason": reason, "metrics": {}, "curve": {}, "noise": None, "data": None, "cost": None,
        "provenance": provenance, "warnings": [],
    }  # fmt: skip
    return {**record, "traceback": traceback} if traceback else record


def signature(job: Job) -> tuple[int, int] | None:
    """What changes whenever the job's record file is written; None where there is no file."""
    try:
        status = os.stat(record_path(Path(job.folder), job.id))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def written_since(job: Job, before: tuple[int, int] | None) -> Record | None:
    """The job's record if it is valid and its file is not the one that `before` describes."""
    if signature(job) in (None, before):
        return None
    try:
        return load_record(record_path(Path(job.folder), job.id))
    except (RecordError, OSError):
        return None


def _finished_record(job: Job, before: tuple[int, int] | None) -> Record | None:
    """A record that makes this job superfluous: any written while it waited for the lock, or a finished one."""
    record = written_since(job, before)
    if record is None and not job.replace:
        record = written_since(job, None)
        if record is not None and record["status"] != "done":
            return None
    return record


class _Lock:
    """`<work folder>/<id>.lock`, released by the kernel when its process dies; nothing where there is no work folder.

    The file stays: removing it would let a third process lock a new file while a second one waits for the old.
    """

    def __init__(self, job: Job, stop: threading.Event | None) -> None:
        self._stop, self._lock = stop, None
        if job.options.work_folder:
            from filelock import FileLock

            self._path = Path(job.options.work_folder) / f"{job.id}.lock"
            self._lock = FileLock(self._path)

    def __enter__(self) -> None:
        if self._lock is None:
            return
        from filelock import Timeout

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while not (self._stop and self._stop.is_set()):
                try:
                    self._lock.acquire(timeout=0)
                    return
                except Timeout:
                    time.sleep(POLL_SECONDS)
        except OSError as error:
            raise SaveError.of(self._path, error) from error
        raise Stopped

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()


def _stoppable(on_epoch: Progress | None, stop: threading.Event | None) -> Progress:
    def report(epoch: int, values: dict[str, float | None]) -> None:
        if on_epoch is not None:
            on_epoch(epoch, values)
        if stop is not None and stop.is_set():
            raise Stopped

    return report


def _unguarded(_: Job) -> AbstractContextManager[None]:
    return nullcontext()
