"""By how much each row of a learning suite beats a base row (cross-entropy) at the last epoch, seeds paired by data and noise.

    python tests/benchmarks/learning_margins.py [results/learning-baselines] [--base "MTaDCS: without LC"] [--only mtadcs]

`worst AUC` is the noise AUC of the group on which it is lowest.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.api import load_records


def values(record: Mapping[str, Any]) -> dict[str, float]:
    """What is compared, in percent, at the last epoch."""
    found = {"accuracy": record["metrics"]["test_acc_last"]}
    for name, key in (("worst group", "worst_group_acc_last"), ("noise AUC", "noise_auc_last")):
        if record["metrics"].get(key) is not None:
            found[name] = record["metrics"][key]
    groups = [auc for auc in record["detail"].get("group_noise_auc_last", {}).values() if auc is not None]
    if groups:
        found["worst AUC"] = min(groups)
    return {name: 100 * value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results/learning-baselines"))
    parser.add_argument("--base", default="erm")
    parser.add_argument("--only", default="", help="rows whose label contains this")
    options = parser.parse_args()
    records = load_records(options.folder)
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, float]]]] = {}
    for entry in json.loads((options.folder / "plan.json").read_text())["entries"]:
        record = records.get(entry["id"])
        if record is not None and record["status"] == "done":
            setting = found.setdefault((entry["dataset"], entry["noise"]), {})
            setting.setdefault(entry["method"], {})[entry["seed"]] = values(record)
    print(f"points above {options.base}, mean and sample deviation over paired seeds; * the mean is not outside the deviation")
    for (dataset, noise), rows in found.items():
        base = rows.get(options.base, {})
        for metric in ("accuracy", "worst group", "noise AUC", "worst AUC"):
            own = [of[metric] for of in base.values() if metric in of]
            if not own:
                continue
            print(f"\n{dataset}, {noise}, {metric}: {options.base} {statistics.fmean(own):.1f}")
            for label, seeds in rows.items():
                both = [(of, base[seed]) for seed, of in seeds.items() if metric in of and metric in base.get(seed, {})]
                gains = [of[metric] - against[metric] for of, against in both]
                if label == options.base or options.only not in label or not gains:
                    continue
                mean, spread = statistics.fmean(gains), statistics.stdev(gains) if len(gains) > 1 else float("nan")
                print(f"  {label:26s} {mean:+6.1f} +- {spread:4.1f}  n={len(gains)}{' *' if not abs(mean) > spread else ''}")


if __name__ == "__main__":
    main()
