"""Reading a researcher's own list of images, strictly: every fault is named with file and line."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError
from bench.data._folder import Listed, refuse_duplicates, safe_path, walk
from bench.data.files import Paths
from bench.fields import nearest

COLUMNS = ("image", "label", "clean_label", "group", "split")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_SPLITS = ("train", "val", "test")


class Column:
    """A column of text as numbers: `names` in order of first appearance, `ids` int32 [N] places in it."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._ids = array("i")
        self._first: list[int] = []

    def add(self, value: str) -> None:
        place = self._places.setdefault(value, len(self._places))
        if place == len(self._first):
            self._first.append(len(self._ids))
        self._ids.append(place)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def names(self) -> list[str]:
        return list(self._places)

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.array(self._ids, dtype=np.int32)

    def first(self, name: str) -> int:
        """The first row that has this value."""
        return self._first[self._places[name]]


@dataclass
class Listing:
    """Images and what is said about them, in the order of the list (or of the sorted paths).

    `file` is the list or the folder. `lines` int32 [N] counts from 1 and is None where there is no list.
    """

    file: Path
    root: Path
    paths: Paths
    label: Column
    clean_label: Column | None = None
    group: Column | None = None
    split: Column | None = None
    lines: NDArray[np.int32] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def list_file(self) -> Path | None:
        return None if self.lines is None else self.file

    def where(self, row: int) -> str:
        """The place of a row for messages."""
        if self.lines is None:
            return os.path.join(self.root, os.fsdecode(self.paths[row]))
        return f"{self.file}:{self.lines[row]}"

    def digest(self, images: bytes) -> str:
        """SHA-256 over all columns and `images`, the digest of paths, file sizes and order."""
        digest = hashlib.sha256(images)
        for name in COLUMNS[1:]:
            column: Column | None = getattr(self, name)
            if column is not None:
                digest.update(json.dumps([name, column.names]).encode())
                digest.update(column.ids.astype("<i4").tobytes())
        return digest.hexdigest()


def read_csv(path: Path, dataset: str) -> Listing:
    """A list with a header; `image` and `label` are required. Raises `DataError` with file and line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read_rows(path, csv.reader(file, strict=True), dataset)
    except OSError as error:
        raise DataError(f"the list cannot be read: {error.strerror}", where=path, dataset=dataset) from None
    except UnicodeDecodeError as error:
        raise DataError(f"the list is not UTF-8 text: {error.reason}", where=path, dataset=dataset) from None


def _read_rows(path: Path, rows: Any, dataset: str) -> Listing:
    lines, columns = array("i"), {name: Column() for name in COLUMNS[1:]}

    def images() -> Iterator[bytes]:
        header = [name.strip() for name in next(rows, [])]
        _check_header(path, header, dataset)
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if not row:
                raise DataError("a blank line in the list", where=where, dataset=dataset)
            if len(row) != len(header):
                hint = f"the header has {len(header)}: {', '.join(header)}"
                raise DataError(f"{len(row)} entries", where=where, hint=hint, dataset=dataset)
            entries = {name: value.strip() for name, value in zip(header, row, strict=True)}
            for name, value in entries.items():
                if not value:
                    raise DataError(f"{name!r} is empty", where=where, dataset=dataset)
                if name != "image":
                    columns[name].add(value)
            lines.append(rows.line_num)
            yield safe_path(os.path.normpath(entries["image"]).encode(), where, dataset)

    try:
        paths = Paths.of(images())  # one buffer: no list of a million texts
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", where=f"{path}:{rows.line_num}", dataset=dataset) from None
    if not lines:
        raise DataError("the list has no rows", where=path, dataset=dataset)
    numbers = np.array(lines, dtype=np.int32)
    refuse_duplicates(Listed(path, paths, np.zeros(0, np.int64), numbers, len(paths)), dataset)
    clean, group, split = (column if len(column) else None for column in (columns[name] for name in COLUMNS[2:]))
    return Listing(path, path.parent, paths, columns["label"], clean, group, split, numbers)


def _check_header(path: Path, header: list[str], dataset: str) -> None:
    where = f"{path}:1"
    for name in header:
        if name not in COLUMNS:
            raise DataError(f"unknown column {name!r}", where=where, hint=nearest(name, COLUMNS), dataset=dataset)
        if header.count(name) > 1:
            raise DataError(f"column {name!r} occurs twice", where=where, dataset=dataset)
    for name in COLUMNS[:2]:
        if name not in header:
            hint = "image,label[,clean_label][,group][,split]"
            raise DataError(f"there is no column {name!r}", where=where, hint=hint, dataset=dataset)


def read_folders(root: Path, dataset: str) -> Listing:
    """One folder per class, below `train`, `test` (and `val`) where there is a `train`; sorted by path."""
    parts = [name for name in _SPLITS if (root / name).is_dir()]
    if "train" not in parts:
        parts = []
    elif "test" not in parts:
        hint = "test images belong into test/<class>/; or name a list in `csv`"
        raise DataError("there is a folder train, but none named test", where=root, hint=hint, dataset=dataset)
    label, split = Column(), Column()
    buffer: list[bytes] = []
    others: list[str] = []
    for part in parts or [""]:
        for name in _class_folders(root / part, dataset):
            found = _pictures(root / part / name, others)
            if not found:
                raise DataError("the folder of a class has no images", where=root / part / name, dataset=dataset)
            for file in found:
                buffer.append(os.fsencode(os.path.relpath(file, root)))
                label.add(name)
                split.add(part)
    _same_classes(root, parts, dataset)
    unused = [path.name for path in root.iterdir() if path.is_dir() and path.name not in parts] if parts else []
    notes = [f"the folder {name!r} was not used" for name in sorted(unused) if not name.startswith(".")]
    if others:
        example = os.path.relpath(others[0], root)
        notes.append(f"{len(others):,} files that are no images were not used, for example {example}")
    return Listing(root, root, Paths.of(buffer), label, split=split if parts else None, notes=tuple(notes))


def _class_folders(folder: Path, dataset: str) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError("there are no folders of classes", where=folder, dataset=dataset)
    stray = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix.lower() in _SUFFIXES)
    if stray:
        raise DataError("an image that is in no folder of a class", where=folder / stray[0], dataset=dataset)
    return names


def _same_classes(root: Path, parts: list[str], dataset: str) -> None:
    if not parts:
        return
    known = set(_class_folders(root / "train", dataset))
    for part in parts:
        for name in _class_folders(root / part, dataset):
            if name not in known:
                hint = nearest(name, known)
                raise DataError("a class that has no training images", where=root / part / name, hint=hint, dataset=dataset)


def _pictures(folder: Path, others: list[str]) -> list[str]:
    """Paths of all images below a folder, in linked folders too, sorted; hidden files are passed over, `others` noted."""
    found: list[str] = []
    for place, folders, names in walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            target = found if name.lower().endswith(_SUFFIXES) else others
            target.append(os.path.join(place, name))
    return sorted(found)
