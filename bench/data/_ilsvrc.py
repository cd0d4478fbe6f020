"""The validation pictures of ILSVRC12 in the four arrangements that WebVision papers use. Labels are WebVision's.

1. folders named by label: `val/0/*.JPEG` ... (DivideMix, RRL)
2. `imagenet_val.txt` with lines `<file> <label>` beside a flat `val/` (ELR)
3. folders named by wnid: `val/n01440764/*.JPEG` ... (Sel-CL, torchvision)
4. a flat folder and `ILSVRC2012_validation_to_webvision_labels_ground_truth.txt`, one label per line (ScanMix)

Whatever the arrangement, pictures are ordered by file name. `ILSVRC2012_validation_ground_truth.txt` of the development kit
counts classes from 1 in the kit's own order: it is refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, data_root
from bench.data._folder import integer, is_picture, numbered_lines, read_labelled
from bench.data.files import FileImages, Geometry, Paths

LIST = "imagenet_val.txt"
ANSWERS = "ILSVRC2012_validation_to_webvision_labels_ground_truth.txt"
KIT = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Validation:
    """Pictures below `folder` ordered by file name: paths, labels int64 [N], and lines of `listing` where there is one."""

    folder: Path
    arrangement: str
    paths: list[bytes]
    labels: NDArray[np.int64]
    listing: Path | None = None
    lines: NDArray[np.int32] | None = None

    def images(self, geometry: Geometry, dataset: str) -> FileImages:
        return FileImages(self.folder, Paths.of(self.paths), geometry, dataset=dataset, listing=self.listing, lines=self.lines)


def places(root: Path | None, beside: Path | None = None) -> list[Path]:
    """Where the pictures may be: inside WebVision's folder, or below the data folder."""
    base = data_root(root)
    inside = [beside / "imagenet"] if beside else []
    names = ("imagenet", "ILSVRC2012", "imagenet-val", "ILSVRC2012_val", "webvision/imagenet")
    return [*inside, *(base / name for name in names)]


def find_validation(
    bases: Sequence[Path], *, wnids: Sequence[str] | None, classes: int, total: int, per_class: int, dataset: str
) -> Validation:
    """The pictures of labels 0..classes-1, `per_class` of each; `total` is the number of all classes.

    `wnids` are the classes' names in label order; None: the sorted names of `total` wnid folders. Raises `DataError` when
    nothing is found, labels are in the development kit's order, or a class has another number of pictures.
    """
    for base in bases:
        if base.is_dir():
            found = _arranged(base, wnids, classes, total, dataset)
            if found is not None:
                return _verified(found, classes, per_class, dataset)
    hint = "expected val/<wnid>/*.JPEG or val/<label>/*.JPEG below it"
    raise DataError("the ILSVRC12 validation pictures are not here", where=bases[0], hint=hint, dataset=dataset)


def _arranged(base: Path, wnids: Sequence[str] | None, classes: int, total: int, dataset: str) -> Validation | None:
    if (base / LIST).exists():
        listed = read_labelled(base / LIST, dataset=dataset, classes=total, below=classes)
        rows = zip(listed.paths, listed.labels.tolist(), listed.lines.tolist(), strict=True)
        return _ordered(base / "val", f"list {LIST}", rows, base / LIST)
    answers = next((f for f in (base / ANSWERS, base / "data" / ANSWERS, base / "val" / ANSWERS) if f.exists()), None)
    pictures = base / "val" if (base / "val").is_dir() else base
    if answers is not None:
        return _answered(pictures, answers, classes, total, dataset)
    folders = sorted(entry.name for entry in os.scandir(pictures) if entry.is_dir())
    named = [name for name in folders if len(name) == 9 and name[0] == "n" and name[1:].isdigit()]
    if named:
        return _by_wnid(pictures, named, wnids, classes, total, dataset)
    numbers = [name for name in folders if name.isdigit() and int(name) < classes]
    if numbers:
        return _ordered(pictures, "folders named by label", _in_folders(pictures, {n: int(n) for n in numbers}), None)
    for file in (base / KIT, base / "data" / KIT, pictures / KIT, base / "ILSVRC2012_devkit_t12" / "data" / KIT):
        if file.exists():
            what = "this file of the development kit numbers the classes in its own order, which is not WebVision's"
            hint = f"sort the pictures into folders named by wnid, or put {ANSWERS} beside it"
            raise DataError(what, where=file, hint=hint, dataset=dataset)
    if any(is_picture(entry.name) for entry in os.scandir(pictures)):
        hint = f"sort them into folders named by wnid, or add {LIST} or {ANSWERS}"
        raise DataError("pictures without labels", where=pictures, hint=hint, dataset=dataset)
    return None


def _by_wnid(pictures: Path, named: list[str], wnids: Sequence[str] | None, classes: int, total: int, dataset: str) -> Validation:
    if wnids is None:
        if len(named) != total:
            hint = f"{total} are needed to tell their labels"
            raise DataError(f"{len(named)} folders named by wnid", where=pictures, hint=hint, dataset=dataset)
        wnids = named
    labels = {wnid: label for label, wnid in enumerate(wnids[:classes])}
    missing = [wnid for wnid in labels if not (pictures / wnid).is_dir()]
    if missing:
        what = f"{len(missing)} of {classes} class folders are missing, the first is {missing[0]}"
        raise DataError(what, where=pictures, dataset=dataset)
    return _ordered(pictures, "folders named by wnid", _in_folders(pictures, labels), None)


def _in_folders(pictures: Path, labels: dict[str, int]) -> Iterator[tuple[bytes, int, int]]:
    for name, label in labels.items():
        for entry in os.scandir(pictures / name):
            if is_picture(entry.name):
                yield os.fsencode(f"{name}/{entry.name}"), label, 0


def _answered(pictures: Path, answers: Path, classes: int, total: int, dataset: str) -> Validation:
    names = sorted(os.fsencode(entry.name) for entry in os.scandir(pictures) if is_picture(entry.name))
    labels = [integer(text, total, "label", f"{answers}:{n}", dataset) for n, text in numbered_lines(answers, dataset)]
    if len(names) != len(labels):
        what = f"{len(labels):,} labels for {len(names):,} pictures"
        raise DataError(what, where=answers, hint=f"the pictures are in {pictures}", dataset=dataset)
    rows = ((name, label, i + 1) for i, (name, label) in enumerate(zip(names, labels, strict=True)) if label < classes)
    return _ordered(pictures, f"labels of {answers.name}", rows, answers)


def _ordered(folder: Path, how: str, rows: Iterator[tuple[bytes, int, int]], listing: Path | None) -> Validation:
    ordered = sorted(rows, key=lambda row: row[0].rpartition(b"/")[2])
    labels = np.array([row[1] for row in ordered], dtype=np.int64)
    lines = np.array([row[2] for row in ordered], dtype=np.int32) if listing else None
    return Validation(folder, how, [row[0] for row in ordered], labels, listing, lines)


def _verified(found: Validation, classes: int, per_class: int, dataset: str) -> Validation:
    counts = np.bincount(found.labels, minlength=classes)
    wrong = np.flatnonzero(counts != per_class)
    if len(wrong):
        what = f"{len(wrong)} of {classes} classes do not have {per_class} pictures: label {wrong[0]} has {counts[wrong[0]]}"
        raise DataError(what, where=found.listing or found.folder, hint=f"read as {found.arrangement}", dataset=dataset)
    return found
