"""How long a finished suite takes: to decide that nothing is to be done, and each command that only reads.

    python tests/benchmarks/nothing_to_do.py

Prints the best of several measurements beside its target, and their ratio (below 1 is within the target). The records are
made up, of the size of real ones; the quickstart suite has 60 cells, the other one 48.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from finished import finish

from bench.api import read_plan
from bench.plan import scan

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = Path(sys.executable).parent / "bench"
SUITE = """\
datasets: digits
noises: [none, symmetric@0.5, asymmetric@0.4, symmetric@0.2]
methods: [erm, gce, elr, co-teaching, dividemix, llc-dro]
seeds: [0, 1]
training: {epochs: 60}
"""


def best(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call: what the code costs, without what else the machine was doing."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def command(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([BENCH, *arguments], check=True, stdout=subprocess.DEVNULL)


def show(what: str, seconds: float, target: float | None = None) -> None:
    beside = f"target {target:5.2f} s   ratio {seconds / target:.2f}" if target else ""
    print(f"{what:<48} {seconds:7.3f} s   {beside}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite, quickstart, results = folder / "finished.yaml", ROOT / "suites" / "quickstart.yaml", folder / "results"
        suite.write_text(SUITE)
        cells, places = len(finish(suite, results)), ("--results", str(results))
        finish(quickstart, results)

        def decide() -> None:
            plan = read_plan(suite)
            found = scan([entry.shown() for entry in plan.entries], results / "finished")
            assert found.counts() == {"done": cells}

        show(f"decide that {cells} cells are done, imports apart", best(decide, 10), 0.1)
        command("run", str(suite), *places)()  # renders the figure
        show(f"bench run, {cells} cells done", best(command("run", str(suite), *places), 3), 4.0)
        show("python -c 'import torch', a part of it", best(lambda: subprocess.run([sys.executable, "-c", "import torch"]), 3))
        show("bench --help", best(command("--help"), 5), 0.5)
        show("bench status, 60 cells done", best(command("status", str(quickstart), *places), 5), 1.0)
        show("bench table, 60 cells done", best(command("table", str(quickstart), *places), 5), 1.0)
        show("bench plan, 60 cells done", best(command("plan", str(quickstart), *places), 3), 4.0)


if __name__ == "__main__":
    main()
