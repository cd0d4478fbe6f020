"""CIFAR, CIFAR-N, ANIMAL-10N and a researcher's own folder in miniature: the real folders, names and file formats.

The classes differ from the real ones in their official counts, checksums and hashes only; every check runs as it would.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.data import Dataset
from bench.data._cifar_n import HUMAN_SETS, HumanSet
from bench.data._cifar_tables import CIFAR10_CLASSES, COARSE_NAMES, FINE_NAMES, SUPERCLASSES
from bench.data.animal10n import Animal10n
from bench.data.cifar import BatchFile, Cifar10, Cifar100
from bench.data.cifar_n import Cifar10nWorse, Cifar100nCoarse, Cifar100nFine
from bench.data.image_folder import ImageFolder

SHARED = Path(os.environ.get("BENCH_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"


def shared(name: str) -> Path:
    """A real file or folder of the shared data, or skip the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real files in {path} (set BENCH_SHARED)")
    return path


def unpacked_cifar10(root: Path) -> Path:
    """CIFAR-10 in its standard layout with JPEG-recompressed pixels, written by the shared script; returns `root`."""
    archive, script = shared("cifar10-jpeg.npz"), shared("unpack_cifar10.py")
    command = [sys.executable, str(script), "--archive", str(archive), "--out", str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return root


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# --- pickles as Python 2 wrote them, protocol 2


def py2(value: Any) -> bytes:
    """A pickle of dict, list, str, int and uint8 arrays, with the opcodes of the files from Toronto (no memo)."""
    return b"\x80\x02" + _py2(value) + b"."


def _py2(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_py2(key) + _py2(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_py2, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin1")
    if isinstance(value, np.ndarray):
        raw = value.tobytes()
        shape = b"".join(map(_py2, value.shape)) + {1: b"\x85", 2: b"\x86", 3: b"\x87"}[value.ndim]
        kind = b"cnumpy\ndtype\n" + _py2(value.dtype.str[1:]) + b"K\x00K\x01\x87R(K\x03U\x01|NNN" + _py2(-1) * 2 + b"K\x00tb"
        content = b"T" + struct.pack("<I", len(raw)) + raw
        start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return start + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"
    return b"J" + struct.pack("<i", value)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def label_hash(labels: NDArray[np.integer]) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


# --- CIFAR-10: 5 batches of 20, 10 per class; test 20. CIFAR-100: 2 and 1 per class.


def ten_labels() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rng(1).permutation(np.arange(100) % 10), rng(2).permutation(np.arange(20) % 10)


def hundred_labels() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rng(3).permutation(np.arange(200) % 100), rng(4).permutation(np.arange(100))


def pixels(count: int, seed: int) -> NDArray[np.uint8]:
    made = rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)
    made[0, :2] = (0, 255)
    return made


def batch(labels: NDArray[np.int64], seed: int, title: str = "a batch") -> dict[str, Any]:
    names = [f"image_{i:04d}.png" for i in range(len(labels))]
    return {"batch_label": title, "labels": labels.tolist(), "data": pixels(len(labels), seed), "filenames": names}


class TinyTen:
    """The official numbers of the miniature CIFAR-10; `cifar10` fills in the checksums."""

    _train_files: ClassVar = tuple(BatchFile(f"data_batch_{i}", 20, "") for i in range(1, 6))
    _test_file: ClassVar = BatchFile("test_batch", 20, "")
    _meta_file: ClassVar = ("batches.meta", "")
    _per_class: ClassVar = (10, 2)
    _label_hashes: ClassVar = dict(zip(("train", "test"), map(label_hash, ten_labels()), strict=True))


class TinyHundred:
    _train_files: ClassVar = (BatchFile("train", 200, ""),)
    _test_file: ClassVar = BatchFile("test", 100, "")
    _meta_file: ClassVar = ("meta", "")
    _per_class: ClassVar = (2, 1)
    _label_hashes: ClassVar = {"train": label_hash(hundred_labels()[0])}


def with_checksums(cls: type[Any], folder: Path) -> type[Any]:
    """The class for which the files in `folder` are the canonical ones."""
    train = tuple(dataclasses.replace(file, md5=md5(folder / file.name)) for file in cls._train_files)
    test = dataclasses.replace(cls._test_file, md5=md5(folder / cls._test_file.name))
    meta = (cls._meta_file[0], md5(folder / cls._meta_file[0]))
    return type(cls.__name__, (cls,), {"_train_files": train, "_test_file": test, "_meta_file": meta})


def cifar10(root: Path, base: type[Cifar10] = Cifar10) -> type[Any]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    train, test = ten_labels()
    for i in range(5):
        (folder / f"data_batch_{i + 1}").write_bytes(py2(batch(train[20 * i : 20 * i + 20], 10 + i)))
    (folder / "test_batch").write_bytes(py2(batch(test, 20)))
    meta = {"num_cases_per_batch": 20, "label_names": list(CIFAR10_CLASSES), "num_vis": 3072}
    (folder / "batches.meta").write_bytes(py2(meta))
    (folder / "readme.html").write_text("a miniature")
    return with_checksums(type(f"Tiny{base.__name__}", (TinyTen, base), {}), folder)


def cifar100(root: Path, base: type[Cifar100] = Cifar100) -> type[Any]:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in zip(("train", "test"), hundred_labels(), strict=True):
        made = batch(labels, len(labels))
        fine = made.pop("labels")
        coarse = [SUPERCLASSES[label] for label in fine]
        # dictionaries of Python 2 came in an order of their own: file names before the pixels here
        order = {"filenames": made["filenames"], "batch_label": "x", "fine_labels": fine, "coarse_labels": coarse}
        (folder / name).write_bytes(py2({**order, "data": made["data"]}))
    (folder / "meta").write_bytes(py2({"fine_label_names": list(FINE_NAMES), "coarse_label_names": list(COARSE_NAMES)}))
    return with_checksums(type(f"Tiny{base.__name__}", (TinyHundred, base), {}), folder)


# --- CIFAR-N


def ten_humans() -> dict[str, NDArray[np.int64]]:
    """Keys of the released file; `worse_label` is wrong for the first 40, each of the others for fewer."""
    clean = ten_labels()[0]
    keys = ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")
    wrong = dict(zip(keys, (9, 40, 17, 18, 16), strict=True))
    return {"clean_label": clean, **{key: np.where(np.arange(100) < n, (clean + 1) % 10, clean) for key, n in wrong.items()}}


def hundred_humans() -> dict[str, Any]:
    clean, table = hundred_labels()[0], np.array(SUPERCLASSES)
    noisy = np.where(np.arange(200) < 80, (clean + 7) % 100, clean)
    coarse = {"noisy_coarse_label": table[noisy].tolist(), "clean_coarse_label": table[clean].tolist()}
    return {"clean_label": clean, "noisy_label": noisy, **coarse}


def tiny_human(name: str) -> HumanSet:
    """The human set of the miniature: its own size, count of wrong labels and hash."""
    human = HUMAN_SETS[name]
    held = ten_humans() if human.base == "cifar10" else hundred_humans()
    labels, clean = np.array(held[human.keys[0]]), np.array(held[human.clean_keys[0]])
    return dataclasses.replace(human, size=len(labels), wrong=int((labels != clean).sum()), sha256=label_hash(labels))


def human_file(root: Path, base: str = "cifar10", *, legacy: bool = False) -> Path:
    """`CIFAR-10_human.pt` or `CIFAR-100_human.pt` as `torch.save` writes NumPy arrays."""
    name, held = ("CIFAR-10_human.pt", ten_humans()) if base == "cifar10" else ("CIFAR-100_human.pt", hundred_humans())
    path = root / "cifar-n" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    return path


def cifar10n(root: Path, base: type[Any] = Cifar10nWorse) -> type[Any]:
    human_file(root)
    cls = cifar10(root, base)
    return type(cls.__name__, (cls,), {"_human": tiny_human(base._human.name)})


def cifar100n(root: Path, base: type[Cifar100nFine] = Cifar100nFine) -> type[Any]:
    human_file(root, "cifar100")
    cls = cifar100(root, base)
    return type(cls.__name__, (cls,), {"_human": tiny_human(base._human.name)})


def cifar100n_coarse(root: Path) -> type[Any]:
    return cifar100n(root, Cifar100nCoarse)


# --- pictures


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """A smooth random picture; the suffix says the format."""
    small = Image.fromarray(rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))
    return path


# --- ANIMAL-10N: 20 for training and 10 for testing


class TinyAnimal10n(Animal10n):
    _counts: ClassVar = (20, 10)


def animal_names(count: int) -> list[str]:
    """File names with labels 0 to 9 in turn; their sorted order is not the order in which they are made."""
    return [f"{i % 10}_{(7919 * (i + 1)) % 100003}.jpg" for i in range(count)]


def animal10n(root: Path, *, train: str = "training", test: str = "testing") -> type[TinyAnimal10n]:
    for seed, (folder, count) in enumerate(((train, 20), (test, 10))):
        for i, name in enumerate(animal_names(count)):
            picture(root / "raw_image" / folder / name, 64, 64, seed=100 * seed + i)
    return TinyAnimal10n


def animal10n_binary(root: Path) -> type[TinyAnimal10n]:
    record = np.dtype([("id", ">u4"), ("label", ">u4"), ("pixels", "u1", (3, 64, 64))])
    for name, count in (("data_batch_1.bin", 20), ("test_batch.bin", 10)):
        made = np.zeros(count, dtype=record)
        made["id"], made["label"] = np.arange(count) + 1000, np.arange(count) % 10
        made["pixels"] = rng(count).integers(0, 256, (count, 3, 64, 64))
        (root / "animal10n").mkdir(parents=True, exist_ok=True)
        made.tofile(root / "animal10n" / name)
    return TinyAnimal10n


# --- a researcher's own folder


def own_list(root: Path, rows: list[dict[str, str]], *, size: tuple[int, int] = (20, 20), name: str = "labels.csv") -> Path:
    """`root/own` with one picture per row and the list; returns the path of the list."""
    folder = root / "own"
    for i, row in enumerate(rows):
        if not (folder / row["image"]).exists():
            picture(folder / row["image"], *size, seed=i)
    with open(folder / name, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def own_rows(count: int = 24) -> list[dict[str, str]]:
    """Three classes, two groups, splits of 12 / 6 / 6; two labels of training rows are wrong."""
    names, rows = ("ant", "bee", "cow"), []
    for i in range(count):
        clean = names[i % 3]
        label = "cow" if i in (0, 1) else clean
        split = ("train", "train", "val", "test")[i // 3 % 4]
        rows.append({
            "image": f"images/{i:03d}.png", "label": label, "clean_label": clean, "group": "ab"[i // 12], "split": split,
        })  # fmt: skip
    return rows


def image_folder(root: Path) -> Dataset:
    own_list(root, own_rows())
    return ImageFolder(folder="own", csv="labels.csv", size=16)
