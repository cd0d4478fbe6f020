"""How long each CIFAR-10 noise takes that needs no network, beside the target of one second.

Labels and pixels are CIFAR-10's where `--data DIR` (or BENCH_DATA) has them, else 50 000 random pictures under balanced
labels: the work is the same. Each noise is drawn `--repeat` times, as an artefact with its matrix and hash; the fastest
counts. Kinds that need files (`human`, `file`) are timed where the files are. Run: python tests/benchmarks/noise_speed.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import bench.data
from bench.data.cifar import CIFAR10_CLASSES, Cifar10
from bench.fields import FieldError
from bench.noise import NoiseInput, draw, plan_noise
from bench.noise.tools import FORMATS, export

TARGET = 1.0
ROWS = (0.6 * np.eye(10) + 0.04).tolist()
NOISES: list[Any] = [
    "none",
    *({"kind": "symmetric", "rate": 0.5, "touched": t} for t in ("exact", "per-class", "coin")),
    *({"kind": "symmetric", "rate": 0.5, "touched": t, "own_class": False} for t in ("exact", "per-class", "coin")),
    {"kind": "symmetric", "rate": 0.5, "targets": "frequency", "own_class": False},
    *({"kind": "asymmetric", "rate": 0.4, "touched": t} for t in ("exact", "per-class", "coin", "sequential")),
    {"kind": "asymmetric", "rate": 0.4, "map": "blocks"},
    "pairflip@0.45",
    {"kind": "matrix", "rows": ROWS},
    *(f"dividemix-seed@{rate}" for rate in (0.2, 0.9)),
    {"kind": "dividemix-seed", "rate": 0.9, "variant": "scanmix"},
    {"kind": "dividemix-seed", "rate": 0.4, "mode": "asym"},
    *({"kind": "instance-ptd", "rate": 0.4, "input": i} for i in ("normalised", "raw", "unit")),
    {"kind": "instance-ptd", "rate": 0.4, "touched": "exact"},
    "longtail@0.01",
    "longtail@0.1 + symmetric@0.4",
    {"kind": "open-set", "rate": 0.6, "open": 0.5},
    "human@worse",
    {"kind": "human", "labels": "worse", "twin": True},
]  # fmt: skip


def cifar10(root: Path) -> tuple[NoiseInput, str]:
    """The real data set, or one of its shape."""
    more: dict[str, Any] = {"root": root, "source_size": lambda slug: 50_000}
    try:
        data = bench.data.load({"name": "cifar10", "revision": Cifar10.revision}, root)
        return replace(NoiseInput.of(data, "cifar10", root=root), source_size=lambda slug: 50_000), f"from {root}"
    except bench.data.DataError:
        images = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
        labels = np.random.Generator(np.random.PCG64(1)).permutation(np.arange(50_000) % 10)
        statistics = lambda: ((0.49, 0.48, 0.45), (0.2, 0.2, 0.2))  # noqa: E731
        given = NoiseInput(
            labels, 10, dict(Cifar10.confusions), CIFAR10_CLASSES, dataset="cifar10", pixels=images.__getitem__,
            statistics=statistics, **more,
        )  # fmt: skip
        return given, "random pictures of its shape"


def seconds(noise: Any, data: NoiseInput, repeat: int, folders: tuple[Path, ...] = ()) -> tuple[float, float]:
    """(seconds of the fastest, measured rate)."""
    planned = plan_noise(noise, folders)
    data = replace(data, files=planned.files)
    best, rate = float("inf"), 0.0
    for seed in range(repeat):
        begin = time.perf_counter()
        result = draw(planned.identity, data, {"name": "cifar10", "revision": "1"}, seed)
        assert result.sha256
        best, rate = min(best, time.perf_counter() - begin), result.rate
    return best, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="data folder; default: BENCH_DATA, else data")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    data, what = cifar10(bench.data.data_root(arguments.data))
    print(f"CIFAR-10, {what}; target {TARGET:g} s each")
    print(f"{'noise':<58} {'seconds':>8} {'target':>7} {'share':>7}   measured rate")
    late = 0

    def row(name: str, noise: Any, folders: tuple[Path, ...] = ()) -> None:
        nonlocal late
        try:
            took, rate = seconds(noise, data, arguments.repeat, folders)
        except (FieldError, bench.data.DataError) as error:
            print(f"{name:<58} not measured: {str(error)[:60]}")
            return
        late += took > TARGET
        verdict = "" if took <= TARGET else "  LATE"
        print(f"{name:<58} {took:>8.3f} {TARGET:>7.1f} {took / TARGET:>7.2f}   {100 * rate:.2f} %{verdict}")

    for noise in NOISES:
        row(plan_noise(noise).label, noise)
    with tempfile.TemporaryDirectory() as folder:
        made = draw(plan_noise("symmetric@0.5").identity, data, {"name": "cifar10", "revision": "1"}, 0)
        for form, suffix in FORMATS.items():
            Path(folder, f"{form}{suffix}").write_bytes(export(made, form))
            row(f"file ({form})", f"file@{form}{suffix}", (Path(folder),))
    print("all within the target" if not late else f"{late} above the target")


if __name__ == "__main__":
    main()
