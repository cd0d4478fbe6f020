"""Many cells: whether a step grows faster than their number, and what the driver's memory does.

    python tests/benchmarks/many_cells.py                         plan, status and resume at 250, 500, 1000 and 2000 cells
    python tests/benchmarks/many_cells.py --plan 100000           one plan of that many cells
    python tests/benchmarks/many_cells.py --plan 100000 --rows 10000     the same, of that many rows with settings of their own
    python tests/benchmarks/many_cells.py --ray 2000              that many instant cells under Ray, with the driver's memory
    python tests/benchmarks/many_cells.py --server http://...     what the mirror of a record costs on a running MLflow server

Processor time where it says so: it depends less on what else the machine does. `ratio` is a step's time per cell at the largest
number over that at the smallest; a quadratic step would show 8.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import overhead  # noqa: E402
from finished import finish  # noqa: E402

from bench.api import read_plan  # noqa: E402
from bench.plan import scan  # noqa: E402
from bench.schedule import Job, run_jobs  # noqa: E402

NUMBERS = (250, 500, 1000, 2000)
NOISES = "[none, symmetric@0.2, symmetric@0.4, symmetric@0.6, symmetric@0.8]"
METHODS = "[erm, gce, elr, co-teaching, mixup]"


def write_suite(folder: Path, cells: int, rows: int = 0) -> Path:
    path = folder / f"cells{cells}.yaml"
    methods = METHODS
    if rows:
        methods = "".join(f"\n- {{method: gce, label: r{n}, params: {{q: {(n + 1) / (rows + 1):.6f}}}}}" for n in range(rows))
    seeds = max(1, cells // (5 * (rows or 5)))
    text = f"datasets: digits\nnoises: {NOISES}\nmethods: {methods}\nseeds: {seeds}\ntraining: {{epochs: 60}}\n"
    path.write_text(text)
    return path


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of the fastest of three calls."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def memory() -> float:
    """MB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def growth() -> None:
    steps: dict[str, list[float]] = {"plan": [], "status (scan of the records)": [], "resume (plan, scan, nothing to do)": []}
    with tempfile.TemporaryDirectory() as name:
        for cells in NUMBERS:
            suite, results = write_suite(Path(name), cells), Path(name) / "results"
            finish(suite, results)
            entries = [entry.shown() for entry in read_plan(suite).entries]
            folder = results / suite.stem
            steps["plan"].append(seconds(lambda suite=suite: read_plan(suite)))
            both = steps["status (scan of the records)"], steps["resume (plan, scan, nothing to do)"]
            both[0].append(seconds(lambda entries=entries, folder=folder: scan(entries, folder)))
            both[1].append(
                seconds(lambda suite=suite, folder=folder: scan([e.shown() for e in read_plan(suite).entries], folder))
            )
    print(f"{'processor seconds at cells':<40}" + "".join(f"{cells:>9}" for cells in NUMBERS) + "   ratio")
    for step, found in steps.items():
        ratio = (found[-1] / NUMBERS[-1]) / (found[0] / NUMBERS[0])
        print(f"{step:<40}" + "".join(f"{value:9.3f}" for value in found) + f"   {ratio:.2f}")


def plan_of(cells: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        suite = write_suite(Path(name), cells, rows)
        begin, processor = time.perf_counter(), time.process_time()
        count = len(read_plan(suite).entries)
        wall, processor = time.perf_counter() - begin, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"plan of {count} cells: {wall:.2f} s, processor {processor:.2f} s, peak {peak:.0f} MB, target 10 s")


class Curve(overhead.Clock):
    """Prints time, processor time and memory of the driver as cells finish; the records are not kept."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.count, self.processor = every, 0, time.process_time()

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        self.count += 1
        if self.count == 1 or self.count % self.every == 0:
            spent = time.process_time() - self.processor
            passed = time.perf_counter() - self.zero
            print(f"{self.count:>7} cells {passed:8.1f} s   driver {spent:6.2f} processor s {memory():8.0f} MB", flush=True)


def instant(jobs_ref: Any, number: int, *_: Any) -> None:
    """In place of a trial: a record with a curve of 60 epochs, at once."""
    from ray import tune

    import bench.schedule.ray as executor
    from bench.schedule.job import failed_record, save_record

    job = executor._fetch(jobs_ref)[number]
    curve = {"epoch": list(range(60)), **{f"series{i}": [0.5 + e / 1000 for e in range(60)] for i in range(5)}}
    record = {**failed_record(job, ""), "status": "done", "reason": None, "curve": curve}
    save_record(job, record)
    tune.report({"done": True, "record": record, "adopted": False})


def under_ray(cells: int) -> None:
    import bench.schedule.ray as executor

    executor._trial = instant
    with tempfile.TemporaryDirectory() as folder:
        jobs = overhead.jobs(Path(folder), cells, "ray")
        begin = time.perf_counter()
        run_jobs(jobs, executor="ray", listener=Curve(max(1, cells // 10)), max_concurrent=2)
        print(f"{cells} cells, all included: {time.perf_counter() - begin:.1f} s")


def on_server(address: str, count: int = 50) -> None:
    from bench.track import Mirror

    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror.open(address, f"cost-{int(time.time())}", folder)
        mirror.log(overhead.record(0))
        times = []
        for seed in range(1, count + 1):
            record, begin = overhead.record(seed), time.perf_counter()
            if not mirror.log(record):
                raise SystemExit(mirror.warning)
            times.append(time.perf_counter() - begin)
    mean = statistics.mean(times)
    share = 100 * mean / 60
    print(f"a record of 60 epochs and five curves: {1000 * mean:.0f} ms, {share:.2f} % of a trial of a minute (target 2 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=int, metavar="N")
    parser.add_argument("--rows", type=int, default=0, metavar="R")
    parser.add_argument("--ray", type=int, metavar="N")
    parser.add_argument("--server", metavar="URI")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
    if chosen.plan:
        plan_of(chosen.plan, chosen.rows)
    if chosen.ray:
        under_ray(chosen.ray)
    if chosen.server:
        on_server(chosen.server)
    if not (chosen.plan or chosen.ray or chosen.server):
        growth()


if __name__ == "__main__":
    main()
