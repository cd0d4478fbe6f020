"""One process, one job after another: for debuggers, notebooks and machines without Ray."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bench.schedule import Listener
from bench.schedule.job import Job, SaveError, Stopped, run_job
from bench.schedule.limits import alarm


def run_jobs(jobs: Sequence[Job], listener: Listener, stop: threading.Event | None = None) -> None:
    """See `bench.schedule.run_jobs`. `KeyboardInterrupt` passes through; the running cell keeps its last checkpoint."""
    for job in jobs:
        if stop is not None and stop.is_set():
            return
        listener.started(job)
        try:
            record = run_job(job, lambda epoch, values, job=job: listener.epoch(job, epoch, values), guard=alarm, stop=stop)
        except SaveError as error:
            listener.lost(job, str(error))
        except Stopped:
            return
        else:
            listener.finished(job, record)
