"""A real cluster of two machines on one: cells on both, a machine that sees none of our folders, a machine that is lost."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.records import load_records
from faults.commands import BENCH, ROOT

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
QUIET = {
    "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0",
    "RAY_raylet_start_wait_time_s": "240",
}  # fmt: skip

#: notes on which machine each cell ran
PLACED = '''\
import os
import time
from pathlib import Path

import torch

from bench.method import EpochMethod


class Placed(EpochMethod):
    slug = "placed"

    notes: str = ""
    seconds: float = 0.5

    def setup(self, task):
        self.seen = torch.zeros(())

    def epoch(self, epoch):
        import ray

        node = ray.get_runtime_context().get_node_id()
        Path(self.notes, f"{node}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(self.seconds)
        self.seen += 1

    def predict(self, images):
        return torch.softmax(images.flatten(1)[:, : self.task.num_classes], dim=1)
'''


def machine(address: str, tmp_path: Path, *, hide: tuple[Path, ...] = (), **environment: str) -> subprocess.Popen[bytes]:
    """A second machine of one CPU with the documented command; `hide`: folders that are empty on it."""
    start = f"exec {Path(sys.executable).parent / 'ray'} start --address={address} --num-cpus=1 --block"
    start += " --object-store-memory=100000000"
    words = ["sh", "-c", start]
    if hide:
        mounts = "".join(f"mount -t tmpfs -o size=1m none '{folder}' && " for folder in hide)
        words = ["unshare", "-m", "sh", "-c", mounts + start]
    log = (tmp_path / "machine.log").open("wb")
    everything = {**os.environ, **QUIET, "BENCH_TEST_FOLDER": f"{tmp_path}/machine", **environment}
    return subprocess.Popen(words, env=everything, stdout=log, stderr=log, start_new_session=True)


def end(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """What a power cut does: everything that runs on the second machine is gone at once."""
    mark = f"BENCH_TEST_FOLDER={tmp_path}/machine".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    process.wait(30)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The first machine, one CPU."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def write_suite(folder: Path, *, noises: str, seeds: int, seconds: float) -> Path:
    notes = folder / "notes"
    notes.mkdir()
    (folder / "placed.py").write_text(PLACED)
    (folder / "placed.yaml").write_text(
        f"datasets: digits\nnoises: {noises}\nseeds: {seeds}\nmodel: mlp\ntraining: {{epochs: 1}}\n"
        f"methods: [{{method: ./placed.py, params: {{notes: '{notes}', seconds: {seconds}}}}}]\n"
    )
    return notes


def bench_run(folder: Path, address: str, *more: str) -> subprocess.Popen[str]:
    words = [BENCH, "run", "placed.yaml", "--address", address, "--tracking", "none", *more]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def machines(notes: Path) -> Counter[str]:
    """Node -> epochs that ran on it."""
    return Counter(path.name.split("-")[0] for path in notes.iterdir())


def test_a_machine_without_our_folders_takes_part(tmp_path: Path, head: Any) -> None:
    """Its records come back through Ray, and it reads its own copy of the data folder."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0:
        pytest.skip("may not mount a file system here")
    data, local, results = tmp_path / "data", tmp_path / "local", tmp_path / "results"
    for folder in (data, local, results):
        folder.mkdir()
    labels = np.random.default_rng(0).integers(0, 10, size=1442)
    np.save(data / "labels.npy", labels)
    shutil.copy(data / "labels.npy", local)
    notes = write_suite(tmp_path, noises="[none, 'file@labels.npy']", seeds=5, seconds=0.5)
    other = machine(head.address, tmp_path, hide=(data, results), BENCH_DATA=str(local))
    try:
        wait_for(lambda: len(head.global_state.node_table()) == 2)
        run = bench_run(tmp_path, head.address, "--data", str(data))
        output, _ = run.communicate(timeout=200)
    finally:
        end(other, tmp_path)
    assert run.returncode == 0, output
    records = load_records(results / "placed")
    assert [record["status"] for record in records.values()] == ["done"] * 10, output
    assert len(machines(notes)) == 2 and machines(notes).total() == 10, machines(notes)
    assert not list((results / "placed").glob(".bench-*"))


def test_a_machine_that_is_lost_costs_nothing_but_time(tmp_path: Path, head: Any) -> None:
    notes = write_suite(tmp_path, noises="none", seeds=8, seconds=1.0)
    other = machine(head.address, tmp_path)
    try:
        wait_for(lambda: len(head.global_state.node_table()) == 2)
        run = bench_run(tmp_path, head.address)
        wait_for(lambda: len(machines(notes)) == 2, 120)
    finally:
        end(other, tmp_path)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    records = load_records(tmp_path / "results" / "placed")
    assert [record["status"] for record in records.values()] == ["done"] * 8, output
    assert "8 done" in output
    assert machines(notes).total() == 9, "the cell that was cut off has been run again, and no other"
