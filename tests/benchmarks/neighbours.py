"""Exact nearest neighbours against faiss alone: time and peak memory. Targets: a ratio of at most 1.2, 200 MB more.

"faiss alone" is a flat inner-product index of rows that are normalised already: build and search. Each implementation runs
in a process of its own, whose resident memory the parent samples: faiss and torch allocate where Python does not see it.
Extra memory is all that comes on top of the features: normalised rows, index, buffers, threads, and the result itself.
On a busy machine compare processor seconds, with one thread (waiting threads spin).
Run: python tests/benchmarks/neighbours.py [--points 50000 --dim 512 --k 200 --threads 2 --repeats 3]
On a GPU, against the target of 60 s: python tests/benchmarks/neighbours.py --device cuda --points 1000000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RATIO, MEGABYTES, GPU_SECONDS = 1.2, 200, 60
SEARCHES = ("faiss alone", "knn, faiss", "knn, torch")


def features(points: int, dim: int, device: str) -> Any:
    import torch

    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(points, dim, generator=generator, device=device)


def search(which: str, given: Any, k: int) -> None:
    import faiss

    from bench.ops.neighbours import knn

    if which == "faiss alone":
        index = faiss.IndexFlatIP(given.shape[1])
        index.add(given.numpy())
        index.search(given.numpy(), k)
    else:
        knn(given, k, backend=which.split()[-1])  # type: ignore[arg-type]


def measure(which: str, arguments: argparse.Namespace) -> None:
    """In a process of its own: says when the features stand, and the seconds of each repeat, wall and processor."""
    import faiss
    import torch

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    search(which, features(500, arguments.dim, "cpu"), arguments.k)  # libraries and threads are up
    given = features(arguments.points, arguments.dim, "cpu")
    if which == "faiss alone":
        given /= given.norm(dim=1, keepdim=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(arguments.repeats):
        begin, processor = time.perf_counter(), time.process_time()
        search(which, given, arguments.k)
        print(time.perf_counter() - begin, time.process_time() - processor, flush=True)


def run(which: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds and processor seconds of the fastest repeat, and megabytes at the peak above those at the start."""
    command = [sys.executable, __file__, "--measure", which]
    for name in ("points", "dim", "k", "threads", "repeats"):
        command += [f"--{name}", str(getattr(arguments, name))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        statm = Path(f"/proc/{child.pid}/statm")

        def resident() -> float:
            fields = statm.read_text().split()
            return int(fields[1]) * resource.getpagesize() / 1e6 if len(fields) > 1 else 0.0

        start = peak = resident()
        child.stdin.write("go\n")
        child.stdin.flush()
        while child.poll() is None:
            peak = max(peak, resident())
            time.sleep(0.002)
        seconds, processor = min(tuple(map(float, line.split())) for line in child.stdout)
        return seconds, processor, peak - start


def on_gpu(arguments: argparse.Namespace) -> None:
    import torch

    from bench.ops.neighbours import knn

    given = features(arguments.points, arguments.dim, "cuda")
    knn(given[:20_000], arguments.k)
    for _ in range(arguments.repeats):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, begin = torch.cuda.memory_allocated(), time.perf_counter()
        result = knn(given, arguments.k)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        extra = (torch.cuda.max_memory_allocated() - before) / 1e6
        print(f"{seconds:.1f} s (target {GPU_SECONDS} s at 1,000,000 x 512)   {extra:.0f} MB more")
        del result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--measure", choices=SEARCHES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments)
    elif arguments.device == "cuda":
        on_gpu(arguments)
    else:
        print(f"{arguments.points:,} x {arguments.dim}, k = {arguments.k}, {arguments.threads} threads, CPU")
        baseline = 0.0
        for which in SEARCHES:
            seconds, processor, extra = run(which, arguments)
            baseline = baseline or seconds
            print(
                f"{which:<12} {seconds:6.2f} s   ratio {seconds / baseline:.2f} (target {RATIO})   "
                f"processor {processor:6.2f} s   {extra:4.0f} MB more (target {MEGABYTES})"
            )


if __name__ == "__main__":
    main()
