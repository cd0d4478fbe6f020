"""Seconds and memory of a leaderboard over 1 000, 10 000 and 100 000 synthetic records. Target: 100 000 in 15 s and 1.5 GB.

Valid records of some 4 kB (a curve of 60 epochs, a noise matrix of ten classes; one suite has 1 000 cells: 10 groups of 20
methods and 5 seeds) are written to a temporary folder and removed. Each size is measured in a process of its own, which reads and
checks all records and writes all pages; caches of the file system are warm.
Run: python tests/benchmarks/leaderboard_scale.py [--sizes N ...] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cell import cell_id
from bench.outputs import manifest_text
from bench.records import SCHEMA, dumps

CHILD = """
import json, os, resource, sys, time
from pathlib import Path
from bench.report.leaderboard_files import pages, stale, write_pages
began = time.perf_counter()
board, texts = pages(Path(sys.argv[1]))
read = time.perf_counter() - began
write_pages(texts, stale(texts))
own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
processor = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
print(json.dumps({"cpu": processor, "records": board.records, "groups": len(board.groups), "seconds": time.perf_counter() - began,
                  "peak": (own.ru_maxrss + min(4, os.cpu_count()) * children.ru_maxrss) * 1024,
                  "bytes": sum(map(len, texts.values()))}))
"""
METHODS, SEEDS, GROUPS = 20, 5, 10
TRAINING = {
    "epochs": 60, "batch_size": 64, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0005,
    "schedule": "cosine", "milestones": [], "gamma": 0.1, "min_lr": 0.0, "lr_warmup_epochs": 0, "augment": "none",
}  # fmt: skip


def record(suite: str, dataset: str, rate: float, method: int, seed: int, rng: random.Random) -> dict[str, Any]:
    cell = {
        "dataset": {"name": dataset, "revision": "1"},
        "noise": {"kind": "symmetric", "version": 1, "rate": rate, "touched": "exact", "own_class": True},
        "model": {"name": "tiny-cnn", "widths": [8, 16, 32]},
        "method": {"name": f"method-{method}", "version": 1, "params": {"q": 0.7, "k": method, "warmup": 10}},
        "training": TRAINING, "protocol": {"version": 1, "val_fraction": 0.1, "validation": "auto", "last_k": 10}, "seed": seed,
    }  # fmt: skip
    protocols = ("last", "best_oracle", "selected", "last_k")
    curve = {"epoch": list(range(60))} | {k: [round(rng.random(), 6) for _ in range(60)] for k in ("test_acc", "val_acc", "lr")}
    draw = random.Random(f"{dataset} {rate} {seed}")
    return {
        "schema": SCHEMA, "id": cell_id(cell), "suite": suite, "cell": cell, "status": "done", "reason": None,
        "metrics": {f"{metric}_{p}": rng.random() for metric in ("test_acc", "val_acc") for p in protocols},
        "curve": curve,
        "noise": {"rate": draw.random(), "nominal": rate, "sha256": f"{draw.getrandbits(256):064x}", "definition": "synthetic",
                  "matrix": [[round(draw.random(), 4) for _ in range(10)] for _ in range(10)]},
        "data": {"fingerprint": f"{draw.getrandbits(256):064x}", "canonical": True, "n_train": 1299, "n_val": 143, "n_test": 355,
                 "validation": "hold-out, noisy labels"},
        "cost": {"setup_seconds": 0.01, "train_seconds": round(rng.random(), 4), "eval_seconds": 0.1, "networks": 1,
                 "forward_images": 109119, "backward_images": 77940, "stage_seconds": 0},
        "provenance": {"bench": "0.1.0", "git_commit": "0" * 40, "git_dirty": False, "code": "0" * 16, "device": "cpu",
                       "started": "2026-01-01T00:00:00+00:00", "finished": f"2026-01-01T00:00:{seed:02d}+00:00"},
        "warnings": [],
    }  # fmt: skip


def write_suite(folder: Path, number: int) -> None:
    rng = random.Random(number)
    folder.mkdir()
    entries = []
    for group in range(GROUPS):
        dataset, rate = f"data-{number}", round(0.05 + group / 20, 2)
        for method in range(METHODS):
            for seed in range(SEEDS):
                made = record(folder.name, dataset, rate, method, seed, rng)
                (folder / f"{made['id']}.json").write_text(dumps(made))
                entries.append(
                    {"id": made["id"], "dataset": dataset, "noise": f"symmetric@{rate:g}", "method": f"method-{method}",
                     "seed": seed, "title": f"Method {method}", "needs": [], "networks": 1, "skip": None}
                )  # fmt: skip
    (folder / "plan.json").write_text(manifest_text({"schema": 1, "suite": folder.name, "sources": {}, "entries": entries}))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--folder", help="where the temporary folder is made")
    options = parser.parse_args()
    per_suite = METHODS * SEEDS * GROUPS
    done, last = 0, {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = Path(folder) / "results"
        results.mkdir()
        for size in sorted(options.sizes):
            began = time.perf_counter()
            while done < size:
                write_suite(results / f"suite-{done // per_suite:04d}", done // per_suite)
                done += per_suite
            written = time.perf_counter() - began
            out = subprocess.run([sys.executable, "-c", CHILD, str(results)], capture_output=True, text=True, check=True).stdout
            last = json.loads(out)
            print(
                f"{last['records']:7d} records, {last['groups']:5d} tables: {last['seconds']:6.2f} s, "
                f"{last['cpu']:6.2f} s of processors, "
                f"{1e6 * last['seconds'] / last['records']:5.0f} us each, peak {last['peak'] / 1e6:6.0f} MB, "
                f"pages {last['bytes'] / 1e6:5.1f} MB (writing the records took {written:.0f} s)",
                flush=True,
            )
    return int(last["records"] >= 100_000 and (last["seconds"] > 15 or last["peak"] > 1.5e9))


if __name__ == "__main__":
    sys.exit(main())
