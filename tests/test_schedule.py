"""The scheduler on real cells: inline, under Ray, and with everything going wrong that a method or a folder can do."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from bench import locks
from bench.records import load_record, load_records, write_record
from bench.schedule import Adopted, Job, Listener, NoRecord, ResourceError, SaveError, limits, run_job, run_jobs
from bench.schedule.bridge import Bridge
from bench.schedule.job import Stopped, failed_record
from bench.stages import Built, StageStore
from bench.trial.runner import Options

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
ROOT = Path(__file__).resolve().parent.parent
FAKE = str(Path(__file__).parent / "fakes" / "fake.py")


def make_cell(tag: int = 0, epochs: int = 1, **params: Any) -> dict[str, Any]:
    return {
        "dataset": {"name": "digits", "revision": "1"},
        "noise": {"kind": "none", "version": 1},
        "method": {"name": "fake", "version": 1, "params": {"tag": tag, **params}},
        "model": {"name": "mlp"},
        "training": {"epochs": epochs},
        "protocol": {"version": 1},
        "seed": 0,
    }


def make_job(folder: Path, tag: int = 0, *, epochs: int = 1, limit: float | None = None, **params: Any) -> Job:
    fields = {name: params.pop(name) for name in ("cpus", "gpus", "replace") if name in params}
    options = Options("suite", method_path=FAKE, work_folder=str(folder / "work"), time_limit=limit)
    return Job(make_cell(tag, epochs, **params), options, f"job {tag}", str(folder / "suite"), **fields)


class Log(Listener):
    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.epochs: list[tuple[str, int]] = []
        self.records: dict[str, dict[str, Any]] = {}
        self.losses: dict[str, str] = {}

    def started(self, job: Job) -> None:
        self.starts[job.label] += 1

    def epoch(self, job: Job, epoch: int, values: dict[str, float | None]) -> None:
        self.epochs.append((job.label, epoch))

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        assert job.label not in self.records, "a job finishes once"
        self.records[job.label] = record

    def lost(self, job: Job, reason: str) -> None:
        self.losses[job.label] = reason


def saved(job: Job) -> dict[str, Any]:
    return load_record(Path(job.folder) / f"{job.id}.json")


# -- one job -------------------------------------------------------------------------------------------------------
def test_a_job_leaves_a_valid_record_and_no_checkpoint(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=2)
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, checkpoint_seconds=0.0))
    record = run_job(job)
    assert record["status"] == "done" and not isinstance(record, Adopted)
    assert saved(job)["curve"]["epoch"] == [0, 1]
    assert list((tmp_path / "work").glob("*.ckpt")) == []


def test_a_finished_record_is_adopted_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    job = make_job(tmp_path, notes=str(tmp_path))
    run_job(job)
    again = run_job(job)
    assert isinstance(again, Adopted) and again["status"] == "done"
    assert not isinstance(run_job(dataclasses.replace(job, replace=True)), Adopted)
    assert len(list(tmp_path.glob("0-0-*"))) == 1  # same process, same name
    before = saved(job)["provenance"]["started"]
    assert again["provenance"]["started"] <= before


def test_a_record_that_was_written_while_waiting_is_adopted_whatever_it_says(tmp_path: Path) -> None:
    job = make_job(tmp_path, replace=True)
    write_record(Path(job.folder), failed_record(job, "to be replaced"))
    (tmp_path / "work").mkdir()
    results: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: results.append(run_job(job)))
    with FileLock(tmp_path / "work" / f"{job.id}.lock"):
        waiting.start()
        time.sleep(0.2)  # it has looked at the old record by now
        write_record(Path(job.folder), failed_record(job, "by the other run"))
    waiting.join(60)
    assert isinstance(results[0], Adopted) and results[0]["reason"] == "by the other run"


def test_a_failed_record_from_before_is_run_again(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    write_record(Path(job.folder), failed_record(job, "out of luck"))
    assert run_job(job)["status"] == "done"


def test_a_record_that_was_written_since_the_run_was_planned_is_adopted(tmp_path: Path) -> None:
    """Another run may have repaired the cell long before this one comes to it; forced or not, its record is as fresh."""
    old = make_job(tmp_path)
    write_record(Path(old.folder), failed_record(old, "out of luck"))
    job = dataclasses.replace(old, before=saved(old)["checksum"])
    write_record(Path(job.folder), failed_record(job, "by the other run"))
    for replace in (False, True):
        found = run_job(dataclasses.replace(job, replace=replace))
        assert isinstance(found, Adopted) and found["reason"] == "by the other run"
    bridge = Bridge([job], log := Log(), None)
    bridge.started(0)
    bridge.reported(0, {"record": failed_record(job, "by a machine that sees nothing of this folder")})
    assert saved(job)["reason"] == "by the other run" and len(log.records) == 1


# -- locks ---------------------------------------------------------------------------------------------------------
def test_waiting_for_a_lock_is_said_once_and_ends_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    job, stop, said = make_job(tmp_path), threading.Event(), []
    path = tmp_path / "work" / f"{job.id}.lock"
    path.parent.mkdir()
    threading.Timer(0.5, stop.set).start()
    with FileLock(path), pytest.raises(Stopped):
        run_job(job, stop=stop, say=said.append)
    assert len(said) == 1 and said[0].startswith(f"job 0: waiting for {path}, which") and f"`fuser {path}`" in said[0]
    with pytest.warns(UserWarning, match="job 0: waiting"):
        Bridge([job], Log(), None).reported(0, {"said": said[0]})


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
@pytest.mark.filterwarnings("ignore:.*flock")
def test_nobody_waits_where_a_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    job = make_job(tmp_path)
    path = tmp_path / "work" / f"{job.id}.lock"
    path.parent.mkdir()
    path.write_text("1\nanother-host\n")  # the marker of a run that was killed there
    monkeypatch.setattr(fcntl, "flock", no_locks)
    timer = threading.Timer(20, (stop := threading.Event()).set)
    timer.start()
    try:
        assert run_job(job, stop=stop)["status"] == "done"
        stage = StageStore(tmp_path).get({"name": "toy"}, lambda: Built({"zero": torch.zeros(1)}), waiting=pytest.fail)
        assert stage[1].built
    finally:
        timer.cancel()


# -- missing data --------------------------------------------------------------------------------------------------
def without_data(folder: Path, tag: int = 0) -> Job:
    job = make_job(folder, tag)
    options = dataclasses.replace(job.options, data_root=str(folder / "empty"))
    return dataclasses.replace(job, cell={**job.cell, "dataset": {"name": "cifar10", "revision": "1"}}, options=options)


def test_a_cell_without_its_data_has_no_record(tmp_path: Path) -> None:
    jobs = [without_data(tmp_path), without_data(tmp_path, 1), make_job(tmp_path, 2), without_data(tmp_path, 3)]
    log = Log()
    run_jobs(jobs, executor="inline", listener=log)
    assert set(log.records) == {"job 2"} and set(log.losses) == {"job 0", "job 1", "job 3"}
    assert set(load_records(tmp_path / "suite")) == {jobs[2].id}
    assert "empty/cifar-10-batches-py" in log.losses["job 0"] and "run the suite again" in log.losses["job 0"]
    with pytest.raises(NoRecord, match="3 cells in a row left no record. The last: on .*CIFAR-10 is missing .*bench data get"):
        run_jobs([without_data(tmp_path, tag) for tag in range(5)], executor="inline", listener=Log())


def test_a_record_that_is_no_json_becomes_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path)
    bad = {**failed_record(job, ""), "metrics": {"x": float("nan")}}
    monkeypatch.setattr("bench.trial.runner.run_cell", lambda *_: bad)
    assert run_job(job)["status"] == "failed"
    assert "cannot be written" in saved(job)["reason"]


@pytest.mark.faults
@pytest.mark.parametrize("place", ["suite", "work"])
def test_an_unwritable_folder_is_an_error_that_names_the_file(tmp_path: Path, place: str) -> None:
    (tmp_path / place).write_text("a file in place of the folder")
    job = make_job(tmp_path)
    with pytest.raises(SaveError, match=f"{place}/{job.id}"):
        run_job(job)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB with nothing left on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system here")
    try:
        (disk / "suite").mkdir()
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1024)
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.faults
def test_a_full_disk_is_an_error_and_leaves_no_half_record(tmp_path: Path, full_disk: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path), folder=str(full_disk / "suite"))
    with pytest.raises(SaveError, match="No space left on device.*only what has no record is run"):
        run_job(job)
    assert list((full_disk / "suite").iterdir()) == []
    (full_disk / "filler").unlink()
    assert run_job(job)["status"] == saved(job)["status"] == "done"


# -- inline --------------------------------------------------------------------------------------------------------
@pytest.mark.faults
def test_inline_runs_all_and_faults_of_one_cell_stay_its_own(tmp_path: Path) -> None:
    jobs = [
        make_job(tmp_path, 0, epochs=2),
        make_job(tmp_path, 1, fault="raise"),
        make_job(tmp_path, 2, fault="exit"),
        make_job(tmp_path, 3, fault="nan"),
        make_job(tmp_path, 4),
    ]
    log = Log()
    run_jobs(jobs, executor="inline", listener=log)
    assert [log.records[f"job {i}"]["status"] for i in range(5)] == ["done", "failed", "failed", "diverged", "done"]
    assert "this method is broken" in log.records["job 1"]["reason"]
    assert "SystemExit(3)" in log.records["job 2"]["reason"]
    assert log.epochs[:2] == [("job 0", 0), ("job 0", 1)]
    assert {i: r["status"] for i, r in load_records(tmp_path / "suite").items()} == {
        job.id: log.records[job.label]["status"] for job in jobs
    }


@pytest.mark.faults
def test_inline_stops_a_method_that_never_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINIMUM_GRACE", 0.3)
    jobs = [make_job(tmp_path, 0, fault="hang", limit=0.5), make_job(tmp_path, 1)]
    handler = signal.getsignal(signal.SIGALRM)
    log = Log()
    run_jobs(jobs, executor="inline", listener=log)
    assert log.records["job 0"]["status"] == "failed" and "time limit of 0.5 s" in log.records["job 0"]["reason"]
    assert log.records["job 1"]["status"] == "done"
    assert signal.getsignal(signal.SIGALRM) is handler and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_inline_stops_between_epochs_when_asked(tmp_path: Path) -> None:
    stop = threading.Event()

    class StopAtOnce(Log):
        def epoch(self, job: Job, epoch: int, values: dict[str, float | None]) -> None:
            super().epoch(job, epoch, values)
            stop.set()

    log = StopAtOnce()
    run_jobs([make_job(tmp_path, i, epochs=3) for i in range(2)], executor="inline", listener=log, stop=stop)
    assert log.epochs == [("job 0", 0)] and log.records == {} and log.losses == {}


@pytest.mark.faults
def test_saving_that_keeps_failing_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "suite").write_text("a file in place of the folder")
    log = Log()
    with pytest.raises(NoRecord, match="3 cells in a row left no record. The last: cannot save .*/suite/"):
        run_jobs([make_job(tmp_path, i) for i in range(5)], executor="inline", listener=log)
    assert set(log.losses) == {"job 0", "job 1", "job 2"} and log.records == {}


def test_inline_ends_with_the_cell_that_cost_it_the_gpu(tmp_path: Path) -> None:
    jobs = [make_job(tmp_path, 0), make_job(tmp_path, 1, fault="device", at=1, epochs=2), make_job(tmp_path, 2)]
    log = Log()
    with pytest.raises(ResourceError, match="job 1: RuntimeError: CUDA error.*were not run; run the suite again"):
        run_jobs(jobs, executor="inline", listener=log)
    assert [record["status"] for record in log.records.values()] == ["done", "failed"]
    assert saved(jobs[1])["curve"]["epoch"] == [0] and log.starts["job 2"] == 0


def test_an_unknown_executor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ray, inline"):
        run_jobs([make_job(tmp_path)], executor="slurm", listener=Log())


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from test_schedule import Listener, make_job
from bench.schedule import Adopted, run_jobs

class Say(Listener):
    def started(self, job): print("started", job.label, flush=True)
    def finished(self, job, record):
        print("adopted" if isinstance(record, Adopted) else "finished", job.label, flush=True)

folder = Path({folder!r})
jobs = [make_job(folder, tag, notes=str(folder), seconds={seconds}, epochs={epochs}) for tag in range({count})]
try:
    run_jobs(jobs, executor={executor!r}, listener=Say())
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder: Path, executor: str, *, count: int, seconds: float, epochs: int = 1) -> subprocess.Popen[str]:
    script = SCRIPT.format(
        root=str(ROOT),
        tests=str(ROOT / "tests"),
        folder=str(folder),
        seconds=seconds,
        epochs=epochs,
        count=count,
        executor=executor,
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}  # as a user has it
    environment = {**own, "OMP_NUM_THREADS": "1", "BENCH_TEST_FOLDER": str(folder), "HOME": str(folder / "home")}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=environment, start_new_session=True, preexec_fn=listens,
    )  # fmt: skip


def listens() -> None:
    """A process that was started in the background may have been told to ignore Ctrl-C, and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.faults
def test_two_runs_on_one_folder_share_the_work(tmp_path: Path) -> None:
    count = 6
    runs = [start(tmp_path, "inline", count=count, seconds=0.3) for _ in range(2)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    lines = [line for output, _ in outputs for line in output.splitlines() if not line.startswith("started")]
    kinds = Counter(line.split()[0] for line in lines)
    assert kinds == {"finished": count, "adopted": count}, "every cell is computed once and reported by both"
    assert len(list(tmp_path.glob("[0-9]-0-*"))) == count
    assert len(load_records(tmp_path / "suite")) == count


# -- Ray -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    from bench.schedule import ray

    with ray.connected():
        yield


@pytest.mark.faults
@needs_ray
def test_ray_survives_every_fault_of_a_cell(tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]) -> None:
    notes = str(tmp_path)
    jobs = [
        make_job(tmp_path, 0, notes=notes, fault="kill"),
        make_job(tmp_path, 1, notes=notes, fault="hang", limit=2.0),
        make_job(tmp_path, 2, notes=notes, fault="kill-once"),
        make_job(tmp_path, 3, notes=notes, fault="raise"),
        make_job(tmp_path, 4, notes=notes, fault="exit"),
        make_job(tmp_path, 5, notes=notes, fault="nan", cpus=0.5),
        make_job(tmp_path, 6, notes=notes, epochs=2),
        make_job(tmp_path, 7, notes=notes, seconds=2.2, epochs=2),
    ]
    (tmp_path / "blocked").write_text("a file in place of the folder")
    unsaved = dataclasses.replace(make_job(tmp_path, 8), folder=str(tmp_path / "blocked"))
    log = Log()
    run_jobs([*jobs, unsaved], executor="ray", listener=log)
    status = [log.records[job.label]["status"] for job in jobs]
    assert status == ["failed", "failed", "done", "failed", "failed", "diverged", "done", "done"]
    reasons = [log.records[job.label]["reason"] for job in jobs]
    assert "worker process died" in reasons[0]
    assert "time limit of 2 s" in reasons[1] and "time.sleep(0.01)" in log.records["job 1"]["traceback"]
    assert "this method is broken" in reasons[3] and "SystemExit(3)" in reasons[4]
    assert all(saved(job)["status"] == expected for job, expected in zip(jobs, status, strict=True))
    # Only a dead process is tried again: what a method does wrong it would do wrong again.
    assert [log.starts[job.label] for job in jobs] == [2, 1, 2, 1, 1, 1, 1, 1]
    assert ("job 7", 0) in log.epochs
    assert set(log.losses) == {"job 8"} and f"blocked/{unsaved.id}.json" in log.losses["job 8"]
    assert capfd.readouterr() == ("", ""), "Ray says nothing of its own"
    assert not (tmp_path / "work" / "ray").exists()


@pytest.mark.faults
@needs_ray
def test_ray_uses_no_process_again_that_has_lost_its_gpu(tmp_path: Path, cluster: None) -> None:
    jobs = [make_job(tmp_path, tag, notes=str(tmp_path), fault="device" if tag == 1 else "none") for tag in range(4)]
    log = Log()
    run_jobs(jobs, executor="ray", listener=log, max_concurrent=1)
    assert [log.records[job.label]["status"] for job in jobs] == ["done", "failed", "done", "done"]
    assert "CUDA error: device-side assert" in saved(jobs[1])["reason"] and saved(jobs[1])["provenance"]["code"]
    assert log.starts["job 1"] == 1 and log.losses == {}
    before, lost, *after = [next(tmp_path.glob(f"{tag}-0-*")).name.split("-")[-1] for tag in range(4)]
    assert before == lost and lost not in after and after[0] == after[1]


@needs_ray
def test_ray_refuses_what_no_machine_can_run(tmp_path: Path, cluster: None) -> None:
    log = Log()
    with pytest.raises(ResourceError, match="asks for 1000 CPU"):
        run_jobs([make_job(tmp_path, 0), make_job(tmp_path, 1, cpus=1000)], executor="ray", listener=log)
    assert not log.starts


@needs_ray
def test_ray_stops_when_asked(tmp_path: Path, cluster: None) -> None:
    stop = threading.Event()

    class StopAfterFirst(Log):
        def finished(self, job: Job, record: dict[str, Any]) -> None:
            super().finished(job, record)
            stop.set()

    log = StopAfterFirst()
    jobs = [make_job(tmp_path, i, seconds=0.2, epochs=1 if i == 0 else 1000) for i in range(4)]
    run_jobs(jobs, executor="ray", listener=log, stop=stop)
    assert set(log.records) == {"job 0"} and set(load_records(tmp_path / "suite")) == {jobs[0].id}
    assert log.losses == {}, "a job that was cut off is not lost"


def test_a_fault_of_the_listener_is_no_fault_of_the_cell(tmp_path: Path) -> None:
    class Broken(Log):
        def epoch(self, job: Job, epoch: int, values: dict[str, float | None]) -> None:
            raise ZeroDivisionError("the listener is broken")

    with pytest.raises(ZeroDivisionError):
        run_jobs([make_job(tmp_path)], executor="inline", listener=Broken())
    assert load_records(tmp_path / "suite") == {}


def test_a_fault_of_the_listener_stops_a_run_under_ray_and_is_raised(tmp_path: Path) -> None:
    """Within a callback Ray would take it for a fault of the trial."""

    class Broken(Log):
        def finished(self, job: Job, record: dict[str, Any]) -> None:
            raise ZeroDivisionError("the listener is broken")

    job = make_job(tmp_path)
    bridge = Bridge([job, make_job(tmp_path, 1)], Broken(), None)
    with bridge.keep_error():
        bridge.reported(0, {"record": run_job(job)})
    assert bridge.stopping
    with pytest.raises(ZeroDivisionError):
        bridge.finish()
    assert not (tmp_path / "suite" / f"{bridge.jobs[1].id}.json").exists(), "the other job is missing, not failed"


@needs_ray
def test_records_come_back_without_a_shared_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's side with a marker that it does not see, then the driver's side: no cluster is needed for this."""
    from ray import tune

    from bench.schedule import ray

    job = make_job(tmp_path)
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    monkeypatch.setattr(ray, "_fetch", lambda ref: [job])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "remote"))
    ray._trial(None, 0, ".marker-that-is-not-there")
    assert not Path(job.folder).exists() and not Path(job.options.work_folder or "").exists()
    log = Log()
    Bridge([job], log, None).reported(0, reports[-1])
    assert log.records["job 0"]["status"] == saved(job)["status"] == "done"

    job = dataclasses.replace(make_job(tmp_path, 1, fault="device"), before="")
    with pytest.raises(RuntimeError, match="CUDA error") as caught:
        ray._trial(None, 0, ".marker-that-is-not-there")
    bridge = Bridge([job], log, None)
    bridge.reported(0, reports[-1])
    bridge.failed(0, caught.value, died=False)
    bridge.finish()
    assert "done" not in reports[-1] and log.records["job 1"]["reason"] == saved(job)["reason"]

    job = without_data(tmp_path, 2)
    ray._trial(None, 0, ".marker-that-is-not-there")
    Bridge([job], log, None).reported(0, reports[-1])
    assert "CIFAR-10 is missing" in log.losses["job 2"] and not (Path(job.folder) / f"{job.id}.json").exists()


def test_a_machine_of_its_own_looks_at_its_own_records(tmp_path: Path) -> None:
    """What the driver's folder held when the run was planned says nothing about the folder of another machine."""
    from bench.schedule.relocate import on_this_machine

    assert on_this_machine(make_job(tmp_path)).before is None
    assert on_this_machine(dataclasses.replace(make_job(tmp_path), before="")).before is None


def alive(folder: Path) -> list[str]:
    """Processes that descend from a run in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"BENCH_TEST_FOLDER={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
        except OSError:
            continue
    return [command for command in found if command]


@pytest.mark.faults
@needs_ray
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(tmp_path: Path) -> None:
    run = start(tmp_path, "ray", count=40, seconds=0.3)
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("finished"):
            break
    os.killpg(run.pid, signal.SIGINT)  # what a terminal does: everyone in the group gets it
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    records = load_records(tmp_path / "suite")
    assert 0 < len(records) < 40
    assert {(record["status"], record["reason"]) for record in records.values()} == {("done", None)}
    deadline = time.monotonic() + 15
    while alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(tmp_path) == []
    assert not (tmp_path / "home").exists(), "nothing is written to the user's home"
