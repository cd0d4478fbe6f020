"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the official python batches.

The index of a training image is its place in `data_batch_1 ... 5` (or `train`) read one after the other: the order that
every published noise file and CIFAR-N count in. Files whose md5 is not the official one can be used and are marked.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Finding, Labels, Loaded, Normalisation, Split, data_root
from bench.data._cifar_tables import (
    CIFAR10_CLASSES,
    CIFAR10_CONFUSIONS,
    CIFAR10_NORMALISATION,
    CIFAR100_NORMALISATION,
    COARSE_NAMES,
    FINE_NAMES,
    SUPERCLASSES,
    superclass_confusions,
)
from bench.data._pickles import read_pickle, read_pickle_into


@dataclass(frozen=True)
class BatchFile:
    """One pickle of images: its name, how many images it holds, its official md5."""

    name: str
    rows: int
    md5: str


@dataclass(frozen=True)
class _Part:
    """What one batch file held besides pixels; `buffers` together are the bytes of the file."""

    labels: Labels
    coarse: Labels | None
    buffers: tuple[Any, ...]


class _Cifar(Dataset):
    """Reading of both sets; the class variables below say what is official."""

    confusable = True
    augmentation: Literal["crop-flip", "none"] = "crop-flip"

    _base: ClassVar[str]  # the slug that can be downloaded
    _folder: ClassVar[str]
    _archive: ClassVar[str]
    _train_files: ClassVar[tuple[BatchFile, ...]]
    _test_file: ClassVar[BatchFile]
    _meta_file: ClassVar[tuple[str, str]]  # name, md5
    _meta_names: ClassVar[dict[bytes, tuple[str, ...]]]
    _label_key: ClassVar[bytes]
    _coarse_key: ClassVar[bytes | None] = None
    _per_class: ClassVar[tuple[int, int]]  # images of each class in train and test
    #: SHA-256 of the official label vectors as little-endian int64, where known
    _label_hashes: ClassVar[dict[str, str]]
    _extra: ClassVar[str]  # pattern of files that could be mistaken for parts of the set

    def load(self, root: Path | None) -> Loaded:
        folder = self.find(root)
        self._class_lists(folder)
        files = (*self._train_files, self._test_file)
        starts = np.cumsum([0, *(file.rows for file in files)])
        images = np.empty((int(starts[-1]), 3, 32, 32), dtype=np.uint8)

        def read(place: int) -> _Part:
            return self._read(folder, files[place], images[starts[place] : starts[place + 1]])

        with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
            parts = list(pool.map(read, range(len(files))))
        labels = np.concatenate([part.labels for part in parts])
        count = int(starts[-2])
        for name, part, wanted in (
            ("training", labels[:count], self._per_class[0]), ("test", labels[count:], self._per_class[1]),
        ):  # fmt: skip
            self._balanced(folder, name, part, wanted)
        notes = functools.cache(lambda: self._deviations(folder, parts, labels))
        return Loaded(
            train=Split(images[:count], labels[:count]),
            test=Split(images[count:], labels[count:]),
            class_names=self._meta_names[self._name_key()],
            pad=4 if self.augmentation == "crop-flip" else 0,
            flip=self.augmentation == "crop-flip",
            canonical=lambda: not notes(),  # type: ignore[arg-type]
            notes=notes,  # type: ignore[arg-type]
            normalisation=self._normalisation(),
            **self._classes(folder, labels, [part.coarse for part in parts], count),
        )

    def find(self, root: Path | str | None) -> Path:
        """The folder with the batches: below the data folder, or that folder itself. Raises `DataError`."""
        top, first = data_root(root), self._train_files[0].name
        for folder in (top / self._folder, top):
            if (folder / first).is_file():
                return folder
        packed = (top / self._archive).is_file()
        hint = f"put the folder from {self._archive} there, or run: bench data get {self._base} --root {top}"
        hint = f"unpack {top / self._archive}" if packed else hint
        raise DataError(f"{self.title} is missing", where=top / self._folder / first, hint=hint, dataset=self.slug)

    def check(self, root: Path | None) -> list[Finding]:
        try:
            folder = self.find(root)
        except DataError as error:
            return [Finding(False, str(error))]
        official = {file.name: file.md5 for file in (*self._train_files, self._test_file)} | dict([self._meta_file])
        found = [Finding(True, f"folder {folder}")]
        for name, md5 in official.items():
            found.append(_file_finding(folder / name, md5))
        others = sorted(path.name for path in folder.iterdir() if path.name not in official)
        if others:
            found.append(Finding(True, f"not used: {', '.join(others)}"))
        train, test = self._per_class
        count = sum(file.rows for file in self._train_files)
        expected = f"{count:,} training and {self._test_file.rows:,} test images, {train:,} and {test:,} per class"
        return [*found, Finding(True, f"official: {expected}"), *super().check(root)]

    # --- parts of a set

    def _normalisation(self) -> Normalisation:
        raise NotImplementedError

    def _name_key(self) -> bytes:
        return next(iter(self._meta_names))

    def _class_lists(self, folder: Path) -> None:
        """The class names must be the official ones in the official order; unexpected batches are errors."""
        path = folder / self._meta_file[0]
        meta = read_pickle(path)
        for key, names in self._meta_names.items():
            found = meta.get(key) if isinstance(meta, dict) else None
            if not isinstance(found, list) or tuple(_text(name) for name in found) != names:
                raise self._error(f"{key.decode()!r} is not the official list of classes", path)
        known = {file.name for file in (*self._train_files, self._test_file)}
        extra = sorted(p.name for p in folder.iterdir() if re.fullmatch(self._extra, p.name) and p.name not in known)
        if extra:
            raise self._error("the file is not part of the data set; move it away", folder / extra[0])

    def _read(self, folder: Path, file: BatchFile, pixels: NDArray[np.uint8]) -> _Part:
        path = folder / file.name
        if not path.is_file():
            raise self._error("the file is missing", path)
        found, buffers = read_pickle_into(path, b"data", pixels.reshape(file.rows, -1))
        labels = self._labels(path, found, self._label_key, file.rows, self._fine_classes())
        coarse = None
        if self._coarse_key is not None:
            coarse = self._labels(path, found, self._coarse_key, file.rows, len(COARSE_NAMES))
        return _Part(labels, coarse, buffers)

    def _fine_classes(self) -> int:
        return len(self._meta_names[self._name_key()])

    def _labels(self, path: Path, found: dict[Any, Any], key: bytes, rows: int, num_classes: int) -> Labels:
        values = found.get(key)
        if not isinstance(values, (list, np.ndarray)) or not all(type(value) is int for value in list(values)):
            raise self._error(f"{key.decode()!r} is no list of whole numbers", path)
        if len(values) != rows:
            raise self._error(f"{key.decode()!r} has {len(values):,} entries, not {rows:,}", path)
        labels = np.array(values, dtype=np.int64)
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(outside):
            what = f"{key.decode()!r} is {labels[outside[0]]} for image {outside[0]}, out of 0 to {num_classes - 1}"
            raise self._error(what, path)
        return labels

    def _balanced(self, folder: Path, name: str, labels: Labels, wanted: int) -> None:
        counts = np.bincount(labels, minlength=self._fine_classes())
        wrong = np.flatnonzero(counts != wanted)
        if len(wrong):
            first = self._meta_names[self._name_key()][wrong[0]]
            raise self._error(f"{counts[wrong[0]]:,} {name} images of {first}, officially {wanted:,}", folder)

    def _classes(self, folder: Path, labels: Labels, coarse: list[Labels | None], count: int) -> dict[str, Any]:
        return {"confusions": dict(self.confusions)}

    def _error(self, what: str, where: Path) -> DataError:
        return DataError(what, where=where, dataset=self.slug)

    def _deviations(self, folder: Path, parts: list[_Part], labels: Labels) -> tuple[str, ...]:
        """What differs from the official files, by their md5 and by the official labels."""
        files = (*self._train_files, self._test_file)
        wrong = [file.name for file, part in zip(files, parts, strict=True) if _md5(part.buffers) != file.md5]
        count = len(labels) - self._test_file.rows
        vectors = {"train": labels[:count], "test": labels[count:]}
        other = [name for name, known in self._label_hashes.items() if _label_hash(vectors[name]) != known]
        notes = []
        if other:
            notes.append(f"non-canonical labels or order in {' and '.join(other)}: noise files count other images")
        elif wrong:
            same = f"labels and order of {' and '.join(self._label_hashes)} are the official ones"
            notes.append(f"non-canonical pixels: md5 differs for {', '.join(wrong)}; {same}")
        meta, md5 = self._meta_file
        if hashlib.md5((folder / meta).read_bytes(), usedforsecurity=False).hexdigest() != md5:
            notes.append(f"non-canonical {meta}: md5 differs; the class names in it are the official ones")
        return tuple(notes)


def _md5(buffers: tuple[Any, ...]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()


def _label_hash(labels: Labels) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _file_finding(path: Path, official: str) -> Finding:
    if not path.is_file():
        return Finding(False, f"{path.name}: missing, belongs in {path.parent}")
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    verdict = "md5 official" if md5 == official else f"md5 {md5}, officially {official}"
    return Finding(True, f"{path.name}: {path.stat().st_size:,} bytes, {verdict}")


class Cifar10(_Cifar):
    """50 000 training and 10 000 test images, 3x32x32, ten classes of equal size."""

    slug = "cifar10"
    title = "CIFAR-10"
    num_classes = 10
    confusions = CIFAR10_CONFUSIONS
    summary = "50 000 / 10 000 images 3x32x32, 10 classes; true labels, noise is injected"
    layout = "cifar-10-batches-py/{data_batch_1..5, test_batch, batches.meta}"

    normalisation: Literal["per-image-std", "per-pixel-std", "none"] = "per-image-std"

    _base = "cifar10"
    _folder = "cifar-10-batches-py"
    _archive = "cifar-10-python.tar.gz"
    _train_files = (
        BatchFile("data_batch_1", 10_000, "c99cafc152244af753f735de768cd75f"),
        BatchFile("data_batch_2", 10_000, "d4bba439e000b95fd0a9bffe97cbabec"),
        BatchFile("data_batch_3", 10_000, "54ebc095f3ab1f0389bbae665268c751"),
        BatchFile("data_batch_4", 10_000, "634d18415352ddfa80567beed471001a"),
        BatchFile("data_batch_5", 10_000, "482c414d41f54cd18b22e5b47cb7c3cb"),
    )
    _test_file = BatchFile("test_batch", 10_000, "40351d587109b95175f43aff81a1287e")
    _meta_file = ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888")
    _meta_names: ClassVar[dict[bytes, tuple[str, ...]]] = {b"label_names": CIFAR10_CLASSES}
    _label_key = b"labels"
    _per_class = (5_000, 1_000)
    _label_hashes: ClassVar[dict[str, str]] = {
        "train": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
        "test": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    }
    _extra = r"(data|test)_batch.*"

    def _normalisation(self) -> Normalisation:
        return CIFAR10_NORMALISATION[self.normalisation]


class Cifar100(_Cifar):
    """50 000 training and 10 000 test images, 3x32x32, 100 fine classes in 20 superclasses of five."""

    slug = "cifar100"
    title = "CIFAR-100"
    num_classes = 100
    confusions = superclass_confusions(SUPERCLASSES)
    superclasses: ClassVar[tuple[int, ...]] = SUPERCLASSES
    summary = "50 000 / 10 000 images 3x32x32, 100 classes in 20 superclasses; true labels, noise is injected"
    layout = "cifar-100-python/{train, test, meta}"

    normalisation: Literal["dividemix", "elr", "none"] = "dividemix"

    _base = "cifar100"
    _folder = "cifar-100-python"
    _archive = "cifar-100-python.tar.gz"
    _train_files = (BatchFile("train", 50_000, "16019d7e3df5f24257cddd939b257f8d"),)
    _test_file = BatchFile("test", 10_000, "f0ef6b0ae62326f3e7ffdfab6717acfc")
    _meta_file = ("meta", "7973b15100ade9c7d40fb424638fde48")
    _meta_names: ClassVar[dict[bytes, tuple[str, ...]]] = {
        b"fine_label_names": FINE_NAMES,
        b"coarse_label_names": COARSE_NAMES,
    }
    _label_key = b"fine_labels"
    _coarse_key = b"coarse_labels"
    _per_class = (500, 100)
    #: those of the test set are not published apart from the file
    _label_hashes: ClassVar[dict[str, str]] = {
        "train": "8bf4935e7c77a3096270043c6f3b221b6ecb9c63d1a08608e9af66cff17e977a"
    }
    _extra = r"(train|test)[ ._-]?\d*"

    def _normalisation(self) -> Normalisation:
        return CIFAR100_NORMALISATION[self.normalisation]

    def _classes(self, folder: Path, labels: Labels, coarse: list[Labels | None], count: int) -> dict[str, Any]:
        """Superclasses from the coarse labels of all images; each fine class must have one, the official one."""
        every = np.concatenate([part for part in coarse if part is not None])
        table = np.full(self._fine_classes(), -1)
        table[labels] = every
        mixed = np.flatnonzero(table[labels] != every)
        if len(mixed):
            name = FINE_NAMES[labels[mixed[0]]]
            raise self._error(f"coarse label {every[mixed[0]]} for an image of {name}, and another elsewhere", folder)
        superclasses = tuple(int(c) for c in table)
        wrong = [fine for fine, coarse_class in enumerate(superclasses) if coarse_class != SUPERCLASSES[fine]]
        if wrong:
            name = FINE_NAMES[wrong[0]]
            what = f"superclass {superclasses[wrong[0]]} for {name}, officially {SUPERCLASSES[wrong[0]]}"
            raise self._error(what, folder)
        confusions = superclass_confusions(superclasses)
        return {"confusions": confusions, "superclasses": superclasses, "coarse_labels": every[:count]}
