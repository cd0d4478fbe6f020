"""One job: a cell, how to run it, and where its record goes. `run_job` is what every executor calls."""

from __future__ import annotations

import datetime
import hashlib
import platform
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import cell_id
from bench.interrupts import finishing
from bench.locks import acquired
from bench.records import SCHEMA, RecordError, load_record, record_path, write_record
from bench.safe_text import clean_record

if TYPE_CHECKING:
    from bench.trial.runner import Options

Record = dict[str, Any]
Progress = Callable[[int, dict[str, float | None]], None]


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
    replace: bool = False  # run it although there is a finished record (`--force`)
    before: str | None = None  # checksum of its record when the run was planned, "" for none; None: when the job begins

    @property
    def id(self) -> str:
        return cell_id(self.cell)


class Adopted(Record):
    """The record of a job that another `bench run` on the same folder finished while this one waited for it."""


class NoRecord(Exception):
    """A cell has no record, by a fault of its surroundings, and is to be run again. `record` is what was to be saved, if any."""

    record: Record | None = None


class SaveError(NoRecord, OSError):
    """A record could not be saved, so its cell does not count as done."""

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
    say: Callable[[str], None] = warnings.warn,
) -> Record:
    """Run a cell, save its record, drop its checkpoint, return the record.

    One process at a time works on a cell: a second one waits, tells so by `say`, and returns as `Adopted` what the first one
    wrote. `guard` enforces the time limit on methods that never return (`bench.schedule.limits`). Raises `NoRecord` when data
    are missing or the record cannot be written, `Stopped` between epochs once `stop` is set; any other fault is a record with
    its reason.
    """
    from bench.trial.runner import forget_checkpoint

    before = known_before(job)
    with _locked(job, stop, say):
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
    from bench.trial.runner import DataError, run_cell
    from bench.trial.task import TimeLimit

    begin = datetime.datetime.now(datetime.UTC)
    try:
        with guard(job):
            return run_cell(job.cell, job.options, on_epoch)
    except DataError as error:  # the machine's fault: a failed record would have to be told from those of the method
        advice = "Put the data right and run the suite again: only what has no record is run."
        raise NoRecord(f"on {socket.gethostname()}, {error}. {advice}") from error
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


def known_before(job: Job) -> str:
    """The checksum of the record that was there when the job was planned, or else is there now; "" for none."""
    if job.before is not None:
        return job.before
    record = written_since(job, "")
    return record["checksum"] if record is not None else ""


def written_since(job: Job, before: str) -> Record | None:
    """The job's record if it is valid and not the one of the checksum `before`. Content tells: machines may see other inodes."""
    try:
        record = load_record(record_path(Path(job.folder), job.id))
    except RecordError:
        return None
    return record if record["checksum"] != before else None


def _finished_record(job: Job, before: str) -> Record | None:
    """A record that makes this job superfluous: any written since it was planned, or a finished one."""
    record = written_since(job, before)
    if record is None and not job.replace:
        record = written_since(job, "")
        if record is not None and record["status"] != "done":
            return None
    return record


@contextmanager
def _locked(job: Job, stop: threading.Event | None, say: Callable[[str], None]) -> Iterator[None]:
    """Hold `<work folder>/<id>.lock` inside of the block; nothing where there is no work folder."""

    def waiting() -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    waiting()
    lock = None
    if job.options.work_folder:
        path = Path(job.options.work_folder) / f"{job.id}.lock"
        try:
            lock = acquired(path, waiting, lambda message: say(f"{job.label}: {message}"))
        except OSError as error:
            raise SaveError.of(path, error) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _stoppable(on_epoch: Progress | None, stop: threading.Event | None) -> Progress:
    def report(epoch: int, values: dict[str, float | None]) -> None:
        if on_epoch is not None:
            on_epoch(epoch, values)
        if stop is not None and stop.is_set():
            raise Stopped

    return report


def _unguarded(_: Job) -> AbstractContextManager[None]:
    return nullcontext()
