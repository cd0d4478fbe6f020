"""Dry run of a suite on few images: every method through all of its stages with the suite's own network, batches and settings.

    python tests/benchmarks/dry_run.py suites/real/cifar10-preact18.yaml --data DIR [--images 1200] [--device cpu] \
        [--epoch-seconds 15]

The data set is the real one, cut to its first training images (a tenth of them go to validation) and as many test images.
Nothing is recorded. Forward equivalents per training image (a backward pass counts two) are those of an epoch after the
warm-up. `--epoch-seconds` says what one epoch of training with cross-entropy takes on the machine that the suite is meant
for; it is an assumption, and the hours follow from it.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import bench.data
from bench.api import read_plan
from bench.cli_options import parse_set
from bench.data import Loaded, Split
from bench.profile import profile

PLAIN = 3.0  # forward equivalents of training on an image once: a forward and a backward pass


def cut(split: Split, images: int) -> Split:
    groups = split.groups[:images] if split.groups is not None else None
    return Split(split.images[:images], split.labels[:images], groups)


def cut_data(data: Loaded, images: int) -> Loaded:
    given = data.given_labels[:images] if data.given_labels is not None else None
    return dataclasses.replace(data, train=cut(data.train, images), test=cut(data.test, images), given_labels=given)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epoch-seconds", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `bench run`")
    options = parser.parse_args()
    load = bench.data.load

    def loaded(identity: dict[str, Any], root: Path | None = None) -> Loaded:
        return cut_data(load(identity, root), options.images)

    bench.data.load = loaded
    changes = parse_set(tuple(options.set))
    report = profile(options.suite, set=changes, device=options.device, data=options.data, figure=False, say=print)
    plan = read_plan(options.suite, data=options.data)
    hours = 0.0
    print(f"\n{'method':14s} {'cells':>5s} {'epochs':>6s} {'forward eq.':>12s} {'hours':>6s}  outcome")
    for facts in report["methods"]:
        cells = [entry for entry in plan.entries if entry.method == facts["method"]]
        epochs = sum(entry.cell["training"]["epochs"] for entry in cells)
        share = facts["forward_equivalents_per_image"] if facts["status"] == "done" else float("nan")
        taken = epochs * share / PLAIN * (options.epoch_seconds or float("nan")) / 3600
        hours += taken
        outcome = facts["status"] if facts["status"] == "done" else f"{facts['status']}: {facts.get('reason')}"
        print(f"{facts['method']:14s} {len(cells):5d} {epochs:6d} {share:12.1f} {taken:6.2f}  {outcome}")
    if options.epoch_seconds:
        print(f"about {hours:.1f} hours if an epoch of cross-entropy takes {options.epoch_seconds:g} s there (assumed)")
    return 0 if all(facts["status"] == "done" for facts in report["methods"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
