"""What a suite on real images learnt, as the Markdown tables of docs/real-runs.md: accuracy, gap, noise AUC, published numbers.

    python tests/benchmarks/real_runs.py results/cifar10-small

Means over the seeds that finished. `best - last`: how much the best epoch (chosen on the test set) is above the last one,
which is what memorised labels cost. `difference`: ours minus the published number at the same kind of epoch, where a paper
printed one for the method and the noise; the published numbers are those of the leaderboard, and stand beside no run on a part
of the images.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.api import load_records
from bench.report.published import quotes


def difference(quote: str, last: float, best: float) -> str:
    """'-18.2 best, +3.3 last (scanmix table1)' for '79.4 best, 57.9 last (scanmix table1)'; others: last."""
    ours = {"best": best, "last": last, "accuracy": last}
    return re.sub(r"([\d.]+) (best|last|accuracy)", lambda found: f"{ours[found[2]] - float(found[1]):+.1f} {found[2]}", quote)


def rows(records: Mapping[str, Mapping[str, Any]], entries: list[dict[str, Any]], noise: str) -> Iterator[list[str]]:
    for method in dict.fromkeys(entry["method"] for entry in entries):
        cells = [entry for entry in entries if entry["noise"] == noise and entry["method"] == method]
        found = [records[entry["id"]] for entry in cells if records.get(entry["id"], {}).get("status") == "done"]
        if not found:
            yield [cells[0]["title"], "not run", *[""] * 6]
            continue
        mean = {
            key: statistics.fmean(100 * record["metrics"][key] for record in found)
            for key in ("test_acc_last", "test_acc_best_oracle", "noise_auc_last")
        }
        last, best = mean["test_acc_last"], mean["test_acc_best_oracle"]
        lows = sorted(100 * record["metrics"]["test_acc_last"] for record in found)
        part = found[0]["cell"]["protocol"].get("train_fraction", 1) < 1  # papers train on all images
        quoted = [] if part else quotes(found[0]["cell"]["dataset"]["name"], found[0]["cell"]["noise"], method)
        seconds = statistics.fmean(record["cost"]["train_seconds"] + record["cost"]["eval_seconds"] for record in found)
        yield [
            cells[0]["title"], f"{last:.1f}", f"{lows[0]:.1f} to {lows[-1]:.1f}" if len(lows) > 1 else "1 seed",
            f"{best - last:.1f}", f"{mean['noise_auc_last']:.1f}", f"{seconds:.0f}", "; ".join(quoted),
            "; ".join(difference(quote, last, best) for quote in quoted),
        ]  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/cifar10-small")
    records, entries = load_records(folder), json.loads((folder / "plan.json").read_text())["entries"]
    for noise in dict.fromkeys(entry["noise"] for entry in entries):
        print(f"\n### {noise}\n")
        print("| method | last | seeds | best - last | noise AUC | s | published | difference |")
        print("| :-- " + "| --: " * 5 + "| :-- | :-- |")
        for row in rows(records, entries, noise):
            print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
