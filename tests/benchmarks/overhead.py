"""What scheduling and mirroring cost beyond the work itself. Run on two idle cores: python tests/benchmarks/overhead.py

Ray: 64 cells whose method sleeps for 0.05 s. The cost of a cell is measured after each of two workers has run its first
one, per worker: seconds * 2 / cells - 0.05. The fixed start is the rest of the whole run: import of Ray, start of the
cluster, start of the workers with their import of torch, shutdown; not the import of torch in the driver, which planned.

MLflow: the mirror of records with 60 epochs of five metrics and about 40 parameters, into a SQLite file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from bench.cell import cell_id  # noqa: E402
from bench.schedule import Job, Listener, run_jobs  # noqa: E402
from bench.track import Mirror, default_artifacts, default_uri  # noqa: E402

FAKE = str(Path(__file__).resolve().parents[1] / "fakes" / "fake.py")
CELLS, WORK, SLOTS = 64, 0.05, 2


class Clock(Listener):
    """When jobs began and ended, in seconds since the clock was made."""

    def __init__(self) -> None:
        self.zero = time.perf_counter()
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.records: list[dict[str, Any]] = []

    def started(self, job: Job) -> None:
        self.begun.append(time.perf_counter() - self.zero)

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        self.ended.append(time.perf_counter() - self.zero)
        self.records.append(record)


def cell(seed: int) -> dict[str, Any]:
    return {
        "dataset": {"name": "digits", "revision": "1"},
        "noise": {"kind": "none", "version": 1},
        "method": {"name": "fake", "version": 1, "params": {"seconds": WORK}},
        "model": {"name": "mlp"},
        "training": {"epochs": 1},
        "protocol": {"version": 1},
        "seed": seed,
    }


def jobs(folder: Path, count: int, executor: str) -> list[Job]:
    from bench.trial.runner import Options

    options = Options("overhead", method_path=FAKE, work_folder=str(folder / "work"), executor=executor)
    return [Job(cell(seed), options, f"cell {seed}", str(folder / "overhead")) for seed in range(count)]


def timed(executor: str, count: int) -> tuple[Clock, float]:
    with tempfile.TemporaryDirectory() as folder:
        chosen = jobs(Path(folder), count, executor)
        clock = Clock()
        run_jobs(chosen, executor=executor, listener=clock, max_concurrent=SLOTS)
        total = time.perf_counter() - clock.zero
    failed = [record["reason"] for record in clock.records if record["status"] != "done"]
    if failed or len(clock.records) != count:
        raise SystemExit(f"{count - len(clock.records)} cells are missing, failures: {failed[:3]}")
    return clock, total


def line(name: str, value: float, unit: str, target: float | None = None) -> None:
    verdict = "" if target is None else f"   target <= {target:g} {unit}   {'ok' if value <= target else 'MISSED'}"
    print(f"{name:<52}{value:9.3f} {unit}{verdict}", flush=True)


def ray_overhead() -> None:
    import torch  # noqa: F401  the driver has imported it when it planned the run

    inline, _ = timed("inline", 12)
    alone = statistics.median(b - a for a, b in zip(inline.ended[1:], inline.ended[2:], strict=False))
    clock, total = timed("ray", CELLS)
    warm = clock.ended[SLOTS - 1 :]  # from the moment when every worker has imported all it needs
    per_slot = (warm[-1] - warm[0]) * SLOTS / (len(warm) - 1)
    line("cell of 0.05 s inline: the harness's own work", alone - WORK, "s")
    line("Ray: start until the first cell begins", clock.begun[0], "s")
    line("Ray: the first cell of a worker (imports)", clock.ended[0] - clock.begun[0] - alone, "s")
    line("Ray: shutdown", total - clock.ended[-1], "s")
    line("Ray: fixed start (all that does not grow with cells)", total - CELLS * per_slot / SLOTS, "s", 8.0)
    line("Ray: per cell beyond the sleep", per_slot - WORK, "s", 0.15)
    line("Ray: per cell beyond the same cell inline", per_slot - alone, "s")
    line(f"Ray: {CELLS} cells, all included", total, "s")


def record(seed: int) -> dict[str, Any]:
    epochs = 60
    made = cell(seed)
    made["training"] = {f"setting_{i}": i for i in range(30)}
    series = {name: [0.5 + e / 1000 for e in range(epochs)] for name in ("test_acc", "val_acc", "noise_auc", "loss", "lr")}
    return {
        "schema": 1, "id": cell_id(made), "suite": "overhead", "cell": made, "status": "done", "reason": None,
        "metrics": {f"metric_{i}": 0.5 for i in range(16)}, "curve": {"epoch": list(range(epochs)), **series},
        "noise": {"train_rate": 0.5}, "cost": {"train_seconds": 1.0}, "provenance": {"git_commit": "0" * 40},
        "warnings": [],
    }  # fmt: skip


def mirror_overhead(count: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        mirror = Mirror.open(default_uri(Path(folder)), "overhead", default_artifacts(Path(folder)))
        line("MLflow: import and creation of the database", time.perf_counter() - begin, "s")
        records = [record(seed) for seed in range(count + 1)]
        mirror.log(records[0])
        seconds: list[float] = []
        processor = time.process_time()
        for one in records[1:]:
            begin = time.perf_counter()
            assert mirror.log(one)
            seconds.append(time.perf_counter() - begin)
        processor = time.process_time() - processor
        begin = time.perf_counter()
        assert not any(mirror.log(one) for one in records)
        line("MLflow: skip a record that is mirrored", 1000 * (time.perf_counter() - begin) / len(records), "ms")
    line("MLflow: per cell, mean", 1000 * statistics.mean(seconds), "ms", 20.0)
    line("MLflow: per cell, processor time", 1000 * processor / count, "ms")
    line("MLflow: per cell, 95th percentile", 1000 * sorted(seconds)[int(0.95 * count)], "ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("ray", "mlflow"))
    only = parser.parse_args().only
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f} (the machine should be idle)")
    if only != "mlflow":
        ray_overhead()
    if only != "ray":
        mirror_overhead()


if __name__ == "__main__":
    main()
