"""One process, one job after another: for debuggers, notebooks and machines without Ray."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.interrupts import finishing
from bench.records import first_line
from bench.schedule import Listener
from bench.schedule.job import Job, NoRecord, Progress, ResourceError, Stopped, run_job
from bench.schedule.limits import alarm


def run_jobs(jobs: Sequence[Job], listener: Listener, stop: threading.Event | None = None) -> None:
    """See `bench.schedule.run_jobs`. `KeyboardInterrupt` passes through; the running cell keeps its last checkpoint."""
    from bench.trial.runner import DeviceLost

    for job in jobs:
        if stop is not None and stop.is_set():
            return
        listener.started(job)
        try:
            record = run_job(job, _epoch(listener, job), guard=alarm, stop=stop)
        except NoRecord as error:
            listener.lost(job, str(error))
        except Stopped as error:
            if error.__cause__ is not None:
                raise error.__cause__ from None
            return
        else:
            with finishing():
                listener.finished(job, record)
            if isinstance(record, DeviceLost):
                raise ResourceError(
                    f"{job.label}: {first_line(record['reason'], 200)}. After this the process cannot use its GPU any more, so "
                    "the cells that follow were not run; run the suite again for them"
                )


def _epoch(listener: Listener, job: Job) -> Progress:
    def report(epoch: int, values: dict[str, float | None]) -> None:
        try:
            listener.epoch(job, epoch, values)
        except Exception as error:  # must not become the reason why the cell failed
            raise Stopped from error

    return report
