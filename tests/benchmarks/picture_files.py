"""What an index of files costs in memory and time, and how fast pictures are decoded.

Run: python tests/benchmarks/picture_files.py
Index: a list of N lines as Clothing1M writes them is read in a process of its own; its resident memory before and after, and
its peak, are compared. Decoding: pictures of 341x256 (WebVision, small) and 500x375 (CUB) are turned into 224x224 crops by
`FileImages` on one and more threads, and by Pillow with torchvision's transforms in a plain loop; pictures per second of wall
time, and milliseconds of processor time per picture, which other programs on the machine disturb less.
Packs (`--packs` for these alone): the same crops from files, from packs of both forms, and from pictures that were resized and
encoded anew at quality 95, which are other pixels and therefore no form of a pack. Everything is in the page cache.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def index(count: int, folder: Path) -> None:
    """In a process of its own, whose peak is that of reading the list."""
    path = folder / "list.txt"
    numbers = np.random.Generator(np.random.PCG64(0)).integers(0, 10**8, (count, 2))
    with open(path, "w") as file:
        for one, other in numbers.tolist():
            file.write(f"images/{one % 10}/{one % 97:02d}/{one + 10**9},{other + 10**9}.jpg {one % 14}\n")
    subprocess.run([sys.executable, __file__, "--read", str(path)], check=True)


def read(path: Path) -> None:
    import bench.data._folder as common
    from bench.data.files import FileImages, Geometry

    before, start = resident(), time.perf_counter()
    listed = common.read_labelled(path, dataset="x", classes=14)
    images = FileImages(path.parent, listed.paths, Geometry(224, 256), lines=listed.lines)
    seconds = time.perf_counter() - start
    print(f"{len(images):,} lines read in {seconds:.1f} s: {resident() - before:.0f} MB more, peak {peak() - before:.0f} MB")
    print(f"    index {images.nbytes / 2**20:.0f} MB, labels {listed.labels.nbytes / 2**20:.0f} MB")
    start = time.perf_counter()
    common.refuse_duplicates(listed, "x")
    common.positions(listed.paths, listed.paths)
    seconds = time.perf_counter() - start
    print(f"    search for duplicates, join with a table of the same size: {seconds:.1f} s, peak {peak() - before:.0f} MB")


def stats(count: int, folder: Path) -> None:
    from bench.data.files import FileImages, Geometry, Paths

    for part in range(100):
        (folder / f"s{part}").mkdir()
    names = [b"s%d/%d.jpg" % (i % 100, i) for i in range(count)]
    for name in names:
        (folder / name.decode()).write_bytes(b"x")
    images = FileImages(folder, Paths.of(names), Geometry(224, 256))
    start = time.perf_counter()
    images.sizes()
    middle = time.perf_counter()
    images.digest()
    end = time.perf_counter()
    print(f"sizes of {count:,} files on a warm local disk: {middle - start:.2f} s, digest {end - middle:.2f} s")


def pictures(folder: Path, width: int, height: int, count: int = 64) -> list[bytes]:
    from PIL import Image

    rng, names = np.random.Generator(np.random.PCG64(0)), []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        names.append(b"%dx%d-%d.jpg" % (width, height, number))
        Image.fromarray(noisy).save(folder / names[-1].decode(), quality=90)
    return names


def decoding(folder: Path, threads: list[int], repeats: int = 12) -> None:
    import torch
    from PIL import Image
    from torchvision import transforms

    from bench.data.files import FileImages, Geometry, Paths, set_threads

    torch.set_num_threads(1)
    pillow = {
        "random-crop": transforms.Compose([transforms.Resize(256), transforms.RandomCrop(224)]),
        "random-resized-crop": transforms.RandomResizedCrop(224),
    }
    for width, height in ((341, 256), (500, 375)):
        names = pictures(folder, width, height)
        draws = np.random.Generator(np.random.PCG64(1)).random((2, len(names), 4))
        everything = np.arange(len(names))
        for geometry in ("random-crop", "random-resized-crop"):
            images = FileImages(folder, Paths.of(names), Geometry(224, 256, geometry))

            def plain(images: FileImages = images, geometry: str = geometry) -> None:
                for position in range(len(images)):
                    with Image.open(images.path(position)) as picture:
                        np.asarray(pillow[geometry](picture.convert("RGB"))).transpose(2, 0, 1).copy()

            names_of = ["Pillow and torchvision", *(f"{n} threads" for n in threads), "1 thread, two views"]
            best, work = dict.fromkeys(names_of, 1e9), dict.fromkeys(names_of, 1e9)
            for _ in range(repeats):
                for name in best:
                    set_threads(1 if not name[0].isdigit() else int(name.split()[0]))
                    images.fetch(everything[:1])
                    start, begin = time.perf_counter(), time.process_time()
                    if name.startswith("Pillow"):
                        plain()
                    else:
                        images.fetch_views(everything, list(draws) if name.endswith("views") else [draws[0]])
                    best[name] = min(best[name], time.perf_counter() - start)
                    work[name] = min(work[name], time.process_time() - begin)
            print(f"{width}x{height} {geometry}")
            for name in names_of:
                ratio = work[names_of[0]] / work[name]
                milliseconds = work[name] / len(names) * 1e3
                print(f"    {name:24} {len(names) / best[name]:6.0f} /s  {milliseconds:.2f} ms of processor ({ratio:.2f}x)")


def packs(folder: Path, threads: list[int], repeats: int = 12) -> None:
    import shutil

    import torch
    from PIL import Image

    from bench.data import Loaded, Split
    from bench.data._packing import Job
    from bench.data.files import FileImages, Geometry, Paths, set_threads
    from bench.data.packed import Pack, content_of, places

    torch.set_num_threads(1)
    for width, height in ((341, 256), (500, 375)):
        names = pictures(folder, width, height)
        everything = np.arange(len(names))
        numbers = np.random.Generator(np.random.PCG64(1)).random((len(names), 4))
        again = [b"again-" + name for name in names]
        for name, copy in zip(names, again, strict=True):
            with Image.open(folder / name.decode()) as picture:
                scaled = picture.resize((round(256 * width / height), 256), Image.Resampling.BILINEAR)
                scaled.save(folder / copy.decode(), quality=95)
        for geometry in (Geometry(224, 256), Geometry(224, 256, "random-resized-crop")):
            sources = {"files": FileImages(folder, Paths.of(names), geometry, dataset="x")}
            size = {"files": float(sources["files"].sizes().mean())}
            for form in ("encoded", "raw"):
                images = FileImages(folder, Paths.of(names), geometry, dataset="x")
                split = Split(images, np.zeros(len(names), np.int64))
                choice = next(places(Loaded(split, split, ("a",)), folder))
                place = next(place for place in choice if place.content == content_of(geometry, form))
                pack: Pack = Job(place, 0).write()
                images.read_from(pack.verify(images, place.content))
                sources[f"packed, {form} ({place.content})"] = images
                size[f"packed, {form} ({place.content})"] = pack.size / len(names)
            sources["resized, JPEG 95 (other pixels)"] = FileImages(folder, Paths.of(again), geometry)
            size["resized, JPEG 95 (other pixels)"] = float(sources["resized, JPEG 95 (other pixels)"].sizes().mean())
            wanted = sources["files"].fetch(everything, numbers)
            runs = [(name, count) for name in sources for count in threads]
            best, work = dict.fromkeys(runs, 1e9), dict.fromkeys(runs, 1e9)
            for _ in range(repeats):  # in turn, so that a busy moment of the machine strikes all alike
                for name, count in runs:
                    set_threads(count)
                    sources[name].fetch(everything[:1])
                    start, begin = time.perf_counter(), time.process_time()
                    got = sources[name].fetch(everything, numbers)
                    best[name, count] = min(best[name, count], time.perf_counter() - start)
                    work[name, count] = min(work[name, count], time.process_time() - begin)
                    assert "other" in name or (got == wanted).all()
            print(f"{width}x{height} {geometry.train}, pictures per second on {' and '.join(map(str, threads))} threads")
            for name in sources:
                rates = "".join(f"{len(names) / best[name, count]:8.0f}" for count in threads)
                milliseconds = work[name, threads[0]] / len(names) * 1e3
                print(f"    {name:34}{rates}   {milliseconds:.2f} ms of processor, {size[name] / 1024:4.0f} KiB each")
            shutil.rmtree(folder / "packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--packs", action="store_true", help="measure packs alone")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return read(options.read)
    with tempfile.TemporaryDirectory() as name:
        packs(Path(name), options.threads)
        if options.packs:
            return
        index(options.count, Path(name))
        stats(min(options.count, 20_000), Path(name))
        decoding(Path(name), options.threads)


if __name__ == "__main__":
    main()
