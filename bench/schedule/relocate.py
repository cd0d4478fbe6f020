"""A job on a machine that is not its driver's: folders and data as they are there."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

from bench.schedule.job import Job


def with_data_here(job: Job) -> Job:
    """The job with this machine's data folder (`BENCH_DATA` where Ray was started) if the driver's is not here.

    An empty folder is none: that is what is left of a network disk that is not mounted.
    """
    here, root = os.environ.get("BENCH_DATA"), job.options.data_root
    if not here or (root and Path(root).is_dir() and any(Path(root).iterdir())):
        return job
    files = tuple((key, _moved(path, root, here)) for key, path in job.options.noise_files)
    return dataclasses.replace(job, options=dataclasses.replace(job.options, data_root=here, noise_files=files))


def _moved(path: str, root: str | None, here: str) -> str:
    """A file below the driver's data folder, in the folder of this machine; any other stays where it is."""
    return str(Path(here, Path(path).relative_to(root))) if root and Path(path).is_relative_to(root) else path


def on_this_machine(job: Job) -> Job:
    """The job with folders of this machine, for a worker that does not see the driver's; Ray takes the record back."""
    scratch = Path(tempfile.gettempdir()) / f"bench-{os.getuid()}" / job.options.suite
    options = dataclasses.replace(job.options, work_folder=str(scratch / "work") if job.options.work_folder else None)
    if options.cache and not Path(options.cache).is_dir():  # a cache that both machines see is shared
        options = dataclasses.replace(options, cache=str(scratch / "cache"))
    if options.checkpoint_dir and "://" not in options.checkpoint_dir and not Path(options.checkpoint_dir).is_dir():
        options = dataclasses.replace(options, checkpoint_dir=None)  # a folder of the driver's machine
    return dataclasses.replace(job, folder=str(scratch), options=options, replace=True, before=None)
