"""The middle of `bench run`: which cells are to be run, their jobs, the executor and the MLflow mirror that hears of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.outcome import WORK, EnvironmentProblem, RunReport, Say
from bench.records import RecordError, load_record, record_path, write_atomic

if TYPE_CHECKING:
    from bench.plan import Entry, Plan, Scan
    from bench.schedule import Job
    from bench.suite import Suite

LEFTOVER_SECONDS = 3600.0


def make_writable(folder: Path) -> None:
    import tempfile

    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        _remove_leftovers(folder)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write to the results folder {folder}: {error.strerror}; choose another with --results DIR"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Half-written files of processes that were killed; young ones may belong to a run that is going on."""
    import time

    for place in (folder, folder / WORK):
        for name in os.listdir(place):
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(OSError):
                    if time.time() - (place / name).stat().st_mtime > LEFTOVER_SECONDS:
                        (place / name).unlink()


def check_device(suite: Suite, executor: str) -> None:
    """Without this every cell would fail and leave a record. Under Ray the cluster is asked, by the scheduler."""
    resources = suite.resources
    if executor == "inline" and (resources.gpu > 0 or any(share.gpu for share in resources.methods.values())):
        import torch

        if not torch.cuda.is_available():
            raise EnvironmentProblem(f"{suite.name} asks for a GPU (resources.gpu), and torch sees none here")


def to_run(plan: Plan, before: Scan, *, force: bool, retry_failed: bool) -> list[Entry]:
    again = {"missing"}
    if retry_failed:
        again |= {"failed", "diverged"}
    if force:
        again |= {"done", "failed", "diverged", "corrupt"}
    chosen: dict[str, Entry] = {}
    for entry in plan.entries:
        if not entry.skip and before.states[entry.id] in again:
            chosen.setdefault(entry.id, entry)
    return list(chosen.values())


def adopt(todo: list[Entry], root: Path, folder: Path, statuses: Sequence[str], watched: AbstractSet[str]) -> frozenset[str]:
    """Copy finished records of the same cells from other suites' folders, of the first of `statuses` that there is; a cell is
    never run twice, unless this suite watches what no record of it shows."""
    if not todo:
        return frozenset()
    elsewhere: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/*.json")):
        if path.parent != folder:
            elsewhere.setdefault(path.stem, []).append(path)
    adopted = []
    for entry in todo:
        ranks = [(_rank(path, statuses, watched), path) for path in elsewhere.get(entry.id, ())]
        rank, found = min(ranks, default=(len(statuses), folder), key=lambda item: item[0])
        if rank < len(statuses):
            try:
                write_atomic(record_path(folder, entry.id), found.read_bytes())
            except OSError as error:
                raise EnvironmentProblem(f"cannot write to {folder}: {error.strerror}") from error
            adopted.append(entry.id)
    return frozenset(adopted)


def _rank(path: Path, statuses: Sequence[str], watched: AbstractSet[str]) -> int:
    """Place of a record's status among `statuses`; their number where it cannot be used."""
    try:
        record = load_record(path)
    except RecordError:
        return len(statuses)  # reported by the suite that owns it
    usable = record["status"] in statuses and watched <= set(record.get("watched") or {})
    return statuses.index(record["status"]) if usable else len(statuses)


def execute(
    plan: Plan, todo: list[Entry], before: Scan, folder: Path, data: str | Path | None, cache: Path, executor: str,
    address: str | None, tracking: str | None, force: bool, report: RunReport, say: Say, interactive: bool,
) -> None:  # fmt: skip
    from bench.progress import make_listener
    from bench.schedule import NoRecord, ResourceError, run_jobs

    known = {entry.id: before.records.get(entry.id, {}).get("checksum", "") for entry in todo}
    jobs = [job_of(plan, entry, folder, data, cache, executor, force, known[entry.id]) for entry in todo]
    _make_checkpoint_dir(jobs[0].options.checkpoint_dir)
    if plan.suite.resources.memory == "measured":
        jobs = packed_jobs(jobs, folder.parent)
    mirror = _open_mirror(tracking, folder, plan.suite.name, report, say)
    listener = make_listener(jobs, mirror, say, interactive, folder / WORK)
    try:
        with listener:
            run_jobs(
                jobs, executor=executor, listener=listener, address=address,
                max_concurrent=plan.suite.resources.max_concurrent,
            )  # fmt: skip
    except KeyboardInterrupt as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # the second one: leave now
            raise
        report.interrupted = True
    except (ResourceError, NoRecord) as error:
        raise EnvironmentProblem(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise EnvironmentProblem("Ray is not installed: install it, or use --executor inline") from error
    finally:
        report.ran += listener.finished_count - listener.counts["lost"]
        report.lost += listener.counts["lost"]
        report.warnings += listener.warnings
        if mirror is not None:
            report.warnings += [mirror.warning] if mirror.warning else []
            report.mirrored = mirror.warning is None
            mirror.close()


def job_of(
    plan: Plan, entry: Entry, folder: Path, data: str | Path | None, cache: Path, executor: str, force: bool,
    before: str | None = None,
) -> Job:  # fmt: skip
    from bench.engine import Engine
    from bench.schedule import Job
    from bench.trial.runner import Options

    resources = plan.suite.resources
    cpu, gpu, memory = resources.share(entry.cell["method"]["name"], entry.method)
    options = Options(
        suite=plan.suite.name,
        method_path=entry.method_path,
        data_root=str(Path(data).resolve()) if data else None,
        work_folder=str(folder / WORK),
        executor=executor,
        device="cuda" if gpu > 0 else "cpu",
        engine=Engine(
            resources.precision, resources.channels_last, resources.compile, resources.deterministic, resources.tf32
        ),
        time_limit=resources.time_limit,
        checkpoint_seconds=resources.checkpoint_seconds,
        checkpoint_epochs=tuple(epoch - 1 for epoch in resources.checkpoint_epochs),
        checkpoint_dir=_checkpoint_dir(resources.checkpoint_dir, plan.suite.name),
        threads=max(1, int(cpu)),
        noise_files=tuple(sorted(entry.noise_files.items())),
        cache=str(cache),
        watch=plan.suite.watched(),
    )
    size = (memory or 0) * 2**30
    return Job(
        entry.cell, options, entry.label(), str(folder), cpus=cpu, gpus=gpu, memory=size, replace=force, before=before
    )  # fmt: skip


def packed_jobs(jobs: list[Job], results: Path) -> list[Job]:
    """Jobs that set aside the memory that records below `results` say they need (resources.memory: measured)."""
    import torch

    from bench.records import load_summaries, record_files
    from bench.schedule.resources import measured_peaks, packed

    paths = [path for folder in sorted(results.glob("*")) for path in record_files(folder)]
    peaks = measured_peaks(record for _, record, _ in load_summaries(paths, dict) if record)
    total = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    return packed(jobs, peaks, total)


def _checkpoint_dir(place: str | None, suite: str) -> str | None:
    """A folder of the suite below the place that it names; its records may be elsewhere, and other suites share the place."""
    if place is None:
        return None
    return f"{place.rstrip('/')}/{suite}" if "://" in place else str(Path(place).expanduser().resolve() / suite)


def _make_checkpoint_dir(place: str | None) -> None:
    """Made here, so that workers on other machines can tell by it whether they see it."""
    if place and "://" not in place:
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"cannot make the folder of checkpoints {place}: {error.strerror}") from error


def _open_mirror(tracking: str | None, folder: Path, suite: str, report: RunReport, say: Say) -> Any:
    """The MLflow mirror, or None. A server that was asked for and does not answer is an environment problem."""
    if tracking == "none":
        return None
    from bench.track import Mirror, TrackError, default_artifacts, default_uri

    try:
        if tracking is None:
            return Mirror.open(default_uri(folder.parent), suite, default_artifacts(folder.parent))
        return Mirror.open(tracking, suite, default_artifacts(folder.parent))
    except TrackError as error:
        if tracking is not None:
            raise EnvironmentProblem(str(error)) from error
        report.warnings.append(f"{error}; records are complete without MLflow")
        return None


def mirror_files(tracking: str | None, plan: Plan, folder: Path, report: RunReport, say: Say) -> None:
    """Tables, figures and noise artefacts go to the suite's run of the MLflow mirror; what fails is a warning."""
    from bench.noise import artefact_name

    noise = {artefact_name(entry.cell["noise"], entry.cell["dataset"], entry.seed) for entry in plan.entries}
    places = {".png": "figures", ".svg": "figures", ".pdf": "figures"}
    files = [(path, places.get(path.suffix, "tables")) for path in report.files]
    files += [(folder / WORK / "noise" / name, "noise") for name in sorted(noise)]
    try:
        mirror = _open_mirror(tracking, folder, plan.suite.name, report, say)
    except EnvironmentProblem as error:
        report.warnings.append(str(error))
        return
    if mirror is not None:
        mirror.log_files(files)
        report.warnings += [mirror.warning] if mirror.warning else []
        mirror.close()
