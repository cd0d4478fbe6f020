"""Where and when cells run: under Ray Tune, or one after another in this process. What is done, the records say.

`run_jobs` hands jobs to an executor and tells a `Listener` what happens. Ray is imported only when it is the executor.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from bench.schedule.job import Adopted, Job, NoRecord, ResourceError, SaveError, run_job

__all__ = ["Adopted", "Job", "Listener", "NoRecord", "ResourceError", "SaveError", "run_job", "run_jobs"]

EXECUTORS = ("ray", "inline")
MAX_LOST = 3  # cells in a row without a record after which a run ends


class Listener:
    """Told what happens, always in the driver and never by two threads at once. Override what you need."""

    def started(self, job: Job) -> None:
        """A job begins; once more if it is repeated because its worker process died."""

    def epoch(self, job: Job, epoch: int, values: dict[str, float | None]) -> None:
        """An epoch (0-based) was evaluated. Under Ray at most one every two seconds per job, and none of short ones."""

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        """The record is in the job's folder. An instance of `Adopted` was written by another run meanwhile."""

    def lost(self, job: Job, reason: str) -> None:
        """The cell has no record, by no fault of its own (missing data, a full disk): it has to be run again."""


def run_jobs(
    jobs: Sequence[Job],
    *,
    executor: str,
    listener: Listener,
    address: str | None = None,
    max_concurrent: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run all jobs and return. Failed cells are records, not exceptions.

    `executor`: "ray" or "inline". `address`: a running Ray cluster instead of the local cores. Once `stop` is set
    nothing new begins, what runs is cut off (its checkpoint stays), and the function returns. Raises `ResourceError`
    before anything runs when a job can never be placed, or where this process cannot use its GPU any more, and `NoRecord` after
    `MAX_LOST` cells in a row without a record (single ones go to `Listener.lost`). `KeyboardInterrupt` passes through, with
    Ray shut down.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; valid: {', '.join(EXECUTORS)}")
    if not jobs:
        return
    watch = _Watch(listener, stop or threading.Event())
    if executor == "inline":
        from bench.schedule import inline

        inline.run_jobs(jobs, watch, watch.stop)
    else:
        from bench.schedule import ray

        ray.run_jobs(jobs, watch, address=address, max_concurrent=max_concurrent, stop=watch.stop)
    if watch.fault is not None:
        raise watch.fault


class _Watch(Listener):
    """Passes everything on, and stops the run when cell after cell leaves no record: more computing would be in vain."""

    def __init__(self, listener: Listener, stop: threading.Event) -> None:
        self.started, self.epoch = listener.started, listener.epoch  # type: ignore[method-assign]
        self.listener, self.stop, self.failures = listener, stop, 0
        self.fault: NoRecord | None = None

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        self.failures = 0
        self.listener.finished(job, record)

    def lost(self, job: Job, reason: str) -> None:
        self.failures += 1
        self.listener.lost(job, reason)
        if self.failures >= MAX_LOST:
            self.fault = NoRecord(f"{self.failures} cells in a row left no record. The last: {reason}")
            self.stop.set()
