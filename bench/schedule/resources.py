"""What a job occupies: requests to Ray, whether a cluster can meet them, and memory measured in earlier records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.cell import canonical_json
from bench.schedule.job import Job, ResourceError

HEAD_ROOM = 1.25  # of the highest measured peak
Key = tuple[str, str, str, str]


def request(job: Job, ceiling: float = float("inf")) -> dict[str, float]:
    """What Ray is asked for. Memory is an estimate, so it is never more than the largest machine has (`ceiling`, bytes)."""
    wanted = {"CPU": float(job.cpus)}
    if job.gpus:
        wanted["GPU"] = float(job.gpus)
    if job.memory and ceiling:
        wanted["memory"] = float(int(min(job.memory, ceiling)))
    return wanted


def check(jobs: Sequence[Job], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise `ResourceError` for a request that no machine of the cluster can ever meet; Ray would wait for ever."""
    met: set[tuple[float, float]] = set()  # many cells ask for the same
    for job in jobs:
        if (job.cpus, job.gpus) in met:
            continue
        if job.gpus > 1 and job.gpus != int(job.gpus):
            raise ResourceError(f"{job.label} asks for {job.gpus:g} GPU; it can be a part of one, such as 0.25, or whole ones")
        wanted = {kind: amount for kind, amount in request(job).items() if kind != "memory"}
        if not any(all(node.get(kind, 0.0) >= amount for kind, amount in wanted.items()) for node in nodes):
            largest = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
            asked = " and ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
            raise ResourceError(
                f"{job.label} asks for {asked}, but the largest machine of the cluster has {largest['CPU']:g} CPU and "
                f"{largest['GPU']:g} GPU. Lower resources.cpu or resources.gpu in the suite, or give the address of a "
                "larger cluster."
            )
        met.add((job.cpus, job.gpus))


def measured_peaks(records: Iterable[Mapping[str, Any]]) -> dict[Key, int]:
    """The highest `cost.peak_memory_bytes` of finished cells, by method, data set, model and kind of device."""
    peaks: dict[Key, int] = {}
    for record in records:
        cost = record.get("cost") or {}
        peak = cost.get("peak_memory_bytes")
        if record["status"] == "done" and peak:
            key = _key(record["cell"], cost.get("device_memory") or "cpu")
            peaks[key] = max(peak, peaks.get(key, 0))
    return peaks


def packed(jobs: Sequence[Job], peaks: Mapping[Key, int], gpu_memory: int | None = None) -> list[Job]:
    """Jobs that set aside what cells of the same method, data set and model were seen to use, with `HEAD_ROOM`.

    On the CPU that is memory of the machine. On a GPU of `gpu_memory` bytes, of which Ray keeps no account, a job that
    shares one asks for at least the same part of it as of its memory. Jobs without such a record stay as they are.
    """
    return [_packed(job, peaks, gpu_memory) for job in jobs]


def _packed(job: Job, peaks: Mapping[Key, int], gpu_memory: int | None) -> Job:
    device = job.options.device.partition(":")[0]
    need = HEAD_ROOM * peaks.get(_key(job.cell, device), 0)
    if not need:
        return job
    if device == "cpu":
        return dataclasses.replace(job, memory=max(job.memory, need))
    if gpu_memory and 0 < job.gpus < 1:
        return dataclasses.replace(job, gpus=max(job.gpus, min(1.0, round(need / gpu_memory + 5e-5, 4))))
    return job


def _key(cell: Mapping[str, Any], device: str) -> Key:
    return cell["method"]["name"], canonical_json(cell["dataset"]), canonical_json(cell["model"]), device
