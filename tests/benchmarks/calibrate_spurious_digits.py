"""The knob of `spurious-digits`: accuracy of `erm` without noise against the contrast of the background.

Chosen on `erm` alone: about 90 % or more on average and 55 to 80 % on the worst group, as on Waterbirds. The quickstart's
network and schedule, last epoch. Run: python tests/benchmarks/calibrate_spurious_digits.py [contrast ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import bench

SUITE = """
datasets: [{{name: spurious-digits, contrast: {contrast}}}]
noises: [none]
methods: [erm]
seeds: [0, 1, 2]
training: {{epochs: 30, batch_size: 64, lr: 0.05, schedule: cosine, augment: none}}
"""


def main() -> None:
    contrasts = [float(value) for value in sys.argv[1:]] or [0.2, 0.3, 0.4, 0.5, 0.7]
    print("contrast  average        worst group    (mean and deviation over 3 seeds, per cent, last epoch)")
    for contrast in contrasts:
        with tempfile.TemporaryDirectory() as folder:
            suite = Path(folder) / "calibration.yaml"
            suite.write_text(SUITE.format(contrast=contrast))
            bench.run(suite, results=folder, executor="inline", tracking="none", say=None)
            records = bench.load_records(folder).values()
        average, worst = ([100 * r["metrics"][f"{m}_last"] for r in records] for m in ("test_acc", "worst_group_acc"))
        shown = [f"{statistics.mean(v):5.1f} +- {statistics.stdev(v):4.1f} " for v in (average, worst)]
        print(f"{contrast:<9g}", *shown, flush=True)


if __name__ == "__main__":
    main()
