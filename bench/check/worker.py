"""A fresh process that runs pickled jobs, as a Ray worker does: `python -m bench.check.worker`.

Importing torch takes seconds, so one process serves a whole session. It runs a method once, so it is fresh for it.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import bench
from bench.check.miniature import registered
from bench.schedule.job import Job
from bench.trial.runner import run_cell

SECONDS = 300.0


class WorkerDied(RuntimeError):
    """The process ended, or was ended, before it answered."""


class Worker:
    """The process, seen from here. `run` raises `WorkerDied`; after that the worker is of no further use."""

    def __init__(self) -> None:
        root = str(Path(bench.__file__).resolve().parent.parent)
        paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
        # Another hash seed than ours: results must not follow the order of a set of names.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "20221116"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.check.worker"], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        atexit.register(self.close)

    def run(self, job: Job) -> dict[str, Any]:
        """Status, reason, metrics and curve of the job's record."""
        assert self.process.stdin is not None and self.process.stdout is not None
        clock = threading.Timer(SECONDS, self.process.kill)
        clock.start()
        try:
            pickle.dump(job, self.process.stdin)
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError) as error:
            status = self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise WorkerDied(f"status {status}, {last[0]}") from error
        finally:
            clock.cancel()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.alive:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with suppress(BrokenPipeError):  # the rest of a job that the process did not live to read
                stream.close()


_worker: Worker | None = None


def the_worker() -> Worker:
    """The worker of this session; started when first asked for, and again after it died."""
    global _worker
    if _worker is None or not _worker.alive:
        _worker = Worker()
    return _worker


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a method prints must not end up among the answers
    while True:
        try:
            job: Job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        with registered():
            record = run_cell(job.cell, job.options)
        pickle.dump({key: record[key] for key in ("status", "reason", "metrics", "curve")}, answers)
        answers.flush()


if __name__ == "__main__":
    main()
