"""ANIMAL-10N (Song et al., ICML 2019): ten animals in five pairs that look alike, labelled by people, some 8 % wrong.

The true labels are not known. Training images are in the order of their file names, so that an index means the same image
everywhere. The published class list is used (4 cheetah, 5 jaguar); one public reader claims that the two are swapped in
the files, which matters for class-wise tables only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Finding, Labels, Loaded, Normalisation, Split
from bench.data._folder import find, walk
from bench.data._resident import in_memory
from bench.data.files import FileImages, Geometry, Paths

CLASSES = ("cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig")
#: the two of a pair are mistaken for each other
CONFUSIONS = {0: 1, 1: 0, 2: 3, 3: 2, 4: 5, 5: 4, 6: 7, 7: 6, 8: 9, 9: 8}
_NORMALISATION: dict[str, Normalisation] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "disc": ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
_TOPS = ("raw_image", "animal10n/raw_image", "animal-10n/raw_image", "animal10n", "animal-10n", "")
_SUFFIXES = (".jpg", ".jpeg", ".png")


class Animal10n(Dataset):
    """50 000 training images (noisy) and 5 000 test images, 3x64x64, ten classes."""

    slug = "animal10n"
    title = "ANIMAL-10N"
    truth_known = False
    num_classes = 10
    confusable = True
    confusions = CONFUSIONS
    summary = "50 000 / 5 000 images 3x64x64, 10 animals; labels by people, about 8 % wrong, the true ones unknown"
    layout = "raw_image/{training,testing}/<label>_*.jpg, or with edition: binary data_batch_1.bin, test_batch.bin"

    #: image files, or the authors' records, which are in an order of their own
    edition: Literal["raw", "binary"] = "raw"
    #: what later work does (padded crop, flip); flips only; nothing (SELFIE)
    augmentation: Literal["crop-flip", "flip", "none"] = "crop-flip"
    normalisation: Literal["imagenet", "disc", "none"] = "imagenet"

    _counts: ClassVar[tuple[int, int]] = (50_000, 5_000)
    #: training images per class as quoted; only the first and the sum are certain
    _per_class: ClassVar[tuple[int, ...]] = (5466, 4608, 5091, 4841, 4981, 4913, 5322, 4999, 4970, 4809)

    def load(self, root: Path | None) -> Loaded:
        read = self._raw if self.edition == "raw" else self._binary
        train, test = (read(root, training) for training in (True, False))
        return Loaded(
            train=train,
            test=test,
            class_names=CLASSES,
            confusions=dict(CONFUSIONS),
            pad=4 if self.augmentation == "crop-flip" else 0,
            flip=self.augmentation != "none",
            normalisation=_NORMALISATION[self.normalisation],
            true_labels_known=self.truth_known,
        )

    def check(self, root: Path | None) -> list[Finding]:
        found = super().check(root)
        if all(finding.ok for finding in found):
            train, test = self._counts
            quoted = ", ".join(f"{name} {n:,}" for name, n in zip(CLASSES, self._per_class, strict=True))
            found.append(Finding(True, f"official: {train:,} training and {test:,} test images"))
            found.append(Finding(True, f"quoted for training (only cat and the sum are certain): {quoted}"))
        return found

    # --- image files

    def _raw(self, root: Path | None, training: bool) -> Split:
        names = ("training", "train") if training else ("testing", "test")
        top = find(root, _TOPS, names, self.slug)
        folder = next(top / name for name in names if (top / name).is_dir())
        paths = self._files(folder)
        self._expect(len(paths), training, folder)
        labels = np.array([int(os.path.basename(path)[0]) for path in paths], dtype=np.int64)
        geometry = Geometry(crop=64, resize=64, train="centre")
        index = Paths.of(os.fsencode(path) for path in paths)
        images = FileImages(folder, index, geometry, dataset=self.slug, picture_size=(64, 64))
        return Split(in_memory(images), labels)

    def _files(self, folder: Path) -> list[str]:
        """Relative paths in the order of the file names. Mirrors with one folder per class give the same order."""
        found: list[str] = []
        for place, _, names in walk(folder):
            inside = os.path.relpath(place, folder)
            for name in names:
                if not name.startswith("."):
                    self._judge(Path(place, name), inside)
                    found.append(os.path.normpath(os.path.join(inside, name)))
        return sorted(found, key=lambda path: (os.path.basename(path), path))

    def _judge(self, path: Path, inside: str) -> None:
        """`DataError` for a file whose name has no label, or another one than its folder."""
        if path.suffix.lower() not in _SUFFIXES:
            raise DataError("the file is no image", where=path, hint="move it away", dataset=self.slug)
        label = re.match(r"(\d+)_", path.name)
        if label is None or len(label[1]) != 1:
            hint = "the name begins with the label 0 to 9 and an underscore"
            raise DataError("the label in the file name is out of range", where=path, hint=hint, dataset=self.slug)
        name = os.path.basename(inside)
        if inside != "." and name != label[1] and name != CLASSES[int(label[1])] and (name.isdigit() or name in CLASSES):
            raise DataError(f"the name says label {label[1]}, its folder {name!r}", where=path, dataset=self.slug)

    # --- the authors' records

    def _binary(self, root: Path | None, training: bool) -> Split:
        name = "data_batch_1.bin" if training else "test_batch.bin"
        path = find(root, ("animal10n", "animal-10n", ""), (name,), self.slug) / name
        record = np.dtype([("id", ">u4"), ("label", ">u4"), ("pixels", "u1", (3, 64, 64))])
        size = path.stat().st_size
        if size % record.itemsize:
            what = f"{size:,} bytes are no whole number of records"
            raise DataError(what, where=path, hint=f"a record has {record.itemsize:,} bytes", dataset=self.slug)
        self._expect(size // record.itemsize, training, path)
        records: NDArray[Any] = np.memmap(path, dtype=record, mode="r")
        labels: Labels = records["label"].astype(np.int64)
        outside = np.flatnonzero(labels > 9)
        if len(outside):
            what = f"label {labels[outside[0]]} in record {outside[0]} is out of range"
            raise DataError(what, where=path, hint="valid: 0 to 9", dataset=self.slug)
        return Split(np.ascontiguousarray(records["pixels"]), labels)

    def _expect(self, found: int, training: bool, where: Path) -> None:
        wanted = self._counts[0 if training else 1]
        if found != wanted:
            what = f"{found:,} {'training' if training else 'test'} images, officially {wanted:,}"
            raise DataError(what, where=where, dataset=self.slug)
