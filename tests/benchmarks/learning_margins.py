"""By how much each method of a learning suite beats cross-entropy at the last epoch, seeds paired by data and noise.

    python tests/benchmarks/learning_margins.py [results/learning-baselines]
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from bench.api import load_records

METRICS = {"test_acc_last": "accuracy", "worst_group_acc_last": "worst group"}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/learning-baselines")
    found: dict[tuple[str, str], dict[str, dict[int, dict]]] = {}
    for record in load_records(folder).values():
        cell = record["cell"]
        setting = found.setdefault((cell["dataset"]["name"], cell["noise"]["kind"]), {})
        setting.setdefault(cell["method"]["name"], {})[cell["seed"]] = record["metrics"]
    print("points above cross-entropy, mean and sample deviation over seeds; * the mean is not outside the deviation")
    for (dataset, noise), methods in sorted(found.items()):
        for metric, name in METRICS.items():
            base = methods["erm"]
            if any(metric not in metrics for metrics in base.values()):
                continue
            print(f"\n{dataset}, {noise}, {name}")
            for method, seeds in sorted(methods.items()):
                margins = [100 * (seeds[seed][metric] - base[seed][metric]) for seed in sorted(seeds)]
                mean, spread = statistics.mean(margins), statistics.stdev(margins)
                mark = " " if mean > spread or method == "erm" else "*"
                print(f"  {method:<18} {mean:+6.1f} +- {spread:4.1f} {mark}  " + " ".join(f"{m:+.1f}" for m in margins))


if __name__ == "__main__":
    main()
