"""Loading CIFAR-10's 60 000 images against reading the bytes of its six files. Target: a ratio of at most 2.

Without `--root` random images are written in the official layout to a temporary folder (184 MB). Both are measured in turn
from warm file caches, and their medians compared. The bytes are read whole and kept, as a loader has to; reading one file
after the other into the same memory is faster and printed beside it. What is asked for later, once per trial, is printed too:
the md5 sums (canonical or not) and the fingerprint.
Run: python tests/benchmarks/loading.py [--root DIR] [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.cifar import CIFAR10_CLASSES, Cifar10

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resident_trees import py2

TARGET = 2.0


def random_cifar10(root: Path) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    folder = root / Cifar10._folder
    folder.mkdir()
    for file in (*Cifar10._train_files, Cifar10._test_file):
        held = {
            "batch_label": file.name,
            "labels": rng.permutation(np.arange(file.rows) % 10).tolist(),
            "data": rng.integers(0, 256, (file.rows, 3072), dtype=np.uint8),
            "filenames": [f"some_longer_name_s_{i:06d}.png" for i in range(file.rows)],
        }
        (folder / file.name).write_bytes(py2(held))
    (folder / "batches.meta").write_bytes(py2({"label_names": list(CIFAR10_CLASSES)}))


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    kept = call()
    taken = time.perf_counter() - begin
    del kept
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="data folder with cifar-10-batches-py")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.root is None:
            random_cifar10(Path(scratch))
        root = arguments.root or Path(scratch)
        measure(root, arguments.repeats)


def measure(root: Path, repeats: int) -> None:
    dataset = Cifar10()
    folder = dataset.find(root)
    paths = [folder / file.name for file in (*dataset._train_files, dataset._test_file)]
    reading, loading, dropping = [], [], []
    for _ in range(repeats + 1):
        reading.append(seconds(lambda: [path.read_bytes() for path in paths]))
        dropping.append(seconds(lambda: sum(len(path.read_bytes()) for path in paths)))
        loading.append(seconds(lambda: dataset.load(root)))
    read, load = statistics.median(reading[1:]), statistics.median(loading[1:])
    data = dataset.load(root)
    print(f"bytes: {sum(path.stat().st_size for path in paths):,}, images: {len(data.train) + len(data.test):,}")
    print(f"reading the bytes {1e3 * read:7.1f} ms   (fastest {1e3 * min(reading):.1f})")
    print(f"  and not keeping {1e3 * statistics.median(dropping[1:]):7.1f} ms   (fastest {1e3 * min(dropping):.1f})")
    print(f"loading           {1e3 * load:7.1f} ms   (fastest {1e3 * min(loading):.1f})")
    print(f"md5 of all files  {1e3 * seconds(lambda: data.notes):7.1f} ms   when the record asks whether data are canonical")
    print(f"fingerprint       {1e3 * seconds(lambda: data.fingerprint):7.1f} ms   once per trial")
    ratio = load / read
    print(f"ratio {ratio:.2f}, target <= {TARGET:g}: {'met' if ratio <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
