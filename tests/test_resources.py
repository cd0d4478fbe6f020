"""What jobs occupy: shares per method, parts of a GPU, memory measured in earlier records, folders of other machines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from finished import finish, made_up_record
from test_schedule import Log, make_job, needs_ray

from bench.api import read_plan
from bench.api import run as bench_run
from bench.execute import job_of, packed_jobs
from bench.outcome import EnvironmentProblem
from bench.records import write_record
from bench.schedule import Job, ResourceError, run_jobs
from bench.schedule.resources import check, measured_peaks, packed, request
from bench.suite import Resources
from bench.yaml_source import SuiteError

GIB = 2**30
SUITE = "datasets: digits\nnoises: [none]\nmethods: [erm, {method: gce, label: GCE}]\nseeds: 2\ntraining: {epochs: 1}\n"


def with_device(job: Job, device: str) -> Job:
    return dataclasses.replace(job, options=dataclasses.replace(job.options, device=device))


def test_parts_of_a_gpu_and_whole_ones(tmp_path: Path) -> None:
    nodes = [{"CPU": 2.0, "GPU": 2.0}, {"CPU": 8.0}]
    for gpus in (0.25, 1, 2):
        check([make_job(tmp_path, gpus=gpus)], nodes)
    assert request(make_job(tmp_path, gpus=0.25)) == {"CPU": 1.0, "GPU": 0.25}
    with pytest.raises(ResourceError, match="asks for 1.5 GPU; it can be a part of one, such as 0.25, or whole ones"):
        check([make_job(tmp_path, gpus=1.5)], nodes)
    with pytest.raises(ResourceError, match="asks for 4 CPU and 1 GPU, but .* 8 CPU and 2 GPU"):  # on no one machine
        check([make_job(tmp_path, gpus=0.5), make_job(tmp_path, cpus=4, gpus=1)], nodes)


def test_memory_is_asked_for_but_never_more_than_there_is(tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path), memory=3 * GIB)
    assert request(job) == {"CPU": 1.0, "memory": 3.0 * GIB}
    assert request(job, 2 * GIB)["memory"] == 2 * GIB
    assert "memory" not in request(job, 0.0) and "memory" not in request(make_job(tmp_path))
    check([job], [{"CPU": 1.0, "memory": 1.0}])  # an estimate refuses nothing


def record_of(job: Job, peak: int | None, device: str = "cpu", status: str = "done") -> dict[str, Any]:
    made = made_up_record(job.cell, job.id, "suite", status=status)
    made["cost"] |= {"peak_memory_bytes": peak, "device_memory": device}
    return made


def test_measured_peaks_become_requests(tmp_path: Path) -> None:
    job, other = make_job(tmp_path, 0), make_job(tmp_path, 1)
    elsewhere = dataclasses.replace(job, cell={**job.cell, "model": {"name": "cnn6"}})
    records = [record_of(job, 2 * GIB), record_of(other, GIB), record_of(job, 64 * GIB, status="failed"), record_of(job, None)]
    peaks = measured_peaks([*records, record_of(job, 10 * GIB, "cuda")])
    made = packed([job, elsewhere], peaks)
    assert made[0].memory == 2.5 * GIB, "the highest of the method, data and model, and a quarter more"
    assert made[1] == elsewhere, "nothing is known of another model"
    on_gpu = with_device(dataclasses.replace(job, gpus=0.1), "cuda")
    assert packed([on_gpu], peaks)[0] == on_gpu, "the size of the GPU is unknown"
    (made_gpu,) = packed([on_gpu], peaks, 50 * GIB)
    assert made_gpu.gpus == pytest.approx(0.25, abs=1e-4) and made_gpu.gpus >= 0.25 and made_gpu.memory == 0
    assert packed([dataclasses.replace(on_gpu, gpus=0.5)], peaks, 50 * GIB)[0].gpus == 0.5
    assert packed([on_gpu], peaks, 5 * GIB)[0].gpus == 1.0
    assert packed([dataclasses.replace(on_gpu, gpus=2)], peaks, 5 * GIB)[0].gpus == 2


def test_a_suite_gives_methods_their_own_share(tmp_path: Path) -> None:
    suite = tmp_path / "shares.yaml"
    own = "{cpu: 2, memory: 1.5, methods: {gce: {gpu: 0.5}, GCE: {cpu: 4}}}"
    suite.write_text(SUITE + f"resources: {own}\n")
    plan = read_plan(suite)
    jobs = [job_of(plan, entry, tmp_path, None, tmp_path, "ray", False) for entry in plan.entries]
    shares = {(j.cell["method"]["name"], j.cpus, j.gpus, j.memory, j.options.device, j.options.threads) for j in jobs}
    assert shares == {("erm", 2, 0, 1.5 * GIB, "cpu", 2), ("gce", 4, 0.5, 1.5 * GIB, "cuda", 4)}
    plain = tmp_path / "plain.yaml"
    plain.write_text(SUITE)
    assert [e.id for e in read_plan(plain).entries] == [e.id for e in plan.entries], "no resource enters a cell's identity"
    with pytest.raises(EnvironmentProblem, match="torch sees none here"):
        bench_run(suite, executor="inline", tracking="none", results=tmp_path / "results", say=None)


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ("{methods: {dividemix: {gpu: 0.5}}}", "resources.methods.dividemix.*no cell has the method 'dividemix'"),
        ("{methods: {erm: {gpus: 1}}}", "unknown key 'gpus'"),
        ("{memory: 0}", "resources.memory"),
    ],
)
def test_a_wrong_share_is_refused(tmp_path: Path, resources: str, problem: str) -> None:
    suite = tmp_path / "wrong.yaml"
    suite.write_text(SUITE + f"resources: {resources}\n")
    with pytest.raises(SuiteError, match=problem):
        read_plan(suite)


def test_whole_numbers_are_sizes_too() -> None:
    assert Resources.model_validate({"memory": 2}).share("erm") == (1.0, 0.0, 2.0)
    assert Resources.model_validate({"memory": "measured"}).share("erm") == (1.0, 0.0, None)


def test_earlier_records_of_all_suites_are_read(tmp_path: Path) -> None:
    suite, results = tmp_path / "packed.yaml", tmp_path / "results"
    suite.write_text(SUITE + "resources: {memory: measured}\n")
    plan = read_plan(suite)
    finish(suite, results)
    erm = plan.entries[0]
    write_record(results / "another", record_of(Job(erm.cell, None, "", ""), 4 * GIB))  # type: ignore[arg-type]
    (results / "another" / f"{'0' * 16}.json").write_text("damaged")
    jobs = [job_of(plan, entry, tmp_path, None, tmp_path, "ray", False) for entry in plan.entries]
    memory = {job.cell["method"]["name"]: job.memory for job in packed_jobs(jobs, results)}
    assert memory == {"erm": 5 * GIB, "gce": 1.25}


# -- on another machine --------------------------------------------------------------------------------------------
@needs_ray
def test_a_machine_reads_its_own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.schedule.relocate import with_data_here

    root, here = tmp_path / "driver", tmp_path / "here"
    files = (("a", f"{root}/noise/labels.npz#key"), ("b", "/elsewhere/labels.npy"))
    job = make_job(tmp_path)
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, data_root=str(root), noise_files=files))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    assert with_data_here(job) == job, "without a folder of its own it is told that the driver's is missing"
    monkeypatch.setenv("BENCH_DATA", str(here))
    moved = with_data_here(job).options
    assert moved.data_root == str(here)
    assert moved.noise_files == (("a", f"{here}/noise/labels.npz#key"), ("b", "/elsewhere/labels.npy"))
    root.mkdir()
    assert with_data_here(job).options == moved, "the mount point of a disk that is not mounted"
    (root / "cifar").mkdir()
    assert with_data_here(job) == job, "a folder that both see wins"


# -- under Ray -----------------------------------------------------------------------------------------------------
@pytest.mark.faults
@pytest.mark.slow
@needs_ray
def test_ray_keeps_the_order_of_the_suite_shares_gpus_and_counts_memory(tmp_path: Path) -> None:
    """A cluster with two pretended GPUs and 4 GiB: placement is real, the computing is not."""
    import ray

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    ray.init("local", num_cpus=8, num_gpus=2, _memory=4 * GIB, **quiet)
    try:
        log = Peak()
        jobs = [make_job(tmp_path, tag, seconds=0.3, gpus=0.25) for tag in range(12)]
        run_jobs(jobs, executor="ray", listener=log)
        assert len(log.records) == 12 and 4 < log.peak <= 8, "eight quarters of a GPU"
        log = Peak()
        jobs = [dataclasses.replace(make_job(tmp_path, 20 + tag, seconds=0.3), memory=1.9 * GIB) for tag in range(5)]
        run_jobs(jobs, executor="ray", listener=log)
        assert len(log.records) == 5 and log.peak == 2, "two of 1.9 GiB in 4 GiB, though there are eight CPUs"
        order = Peak()
        jobs = [make_job(tmp_path, 40 + tag, gpus=tag % 2, cpus=1 + tag % 3) for tag in range(8)]
        run_jobs(jobs, executor="ray", listener=order, max_concurrent=1)
        assert order.peak == 1 and list(order.starts) == [job.label for job in jobs], "one at a time, in the suite's order"
    finally:
        ray.shutdown()


class Peak(Log):
    """Counts jobs that run at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.running, self.peak = 0, 0

    def started(self, job: Job) -> None:
        super().started(job)
        self.running += 1
        self.peak = max(self.peak, self.running)

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        super().finished(job, record)
        self.running -= 1
