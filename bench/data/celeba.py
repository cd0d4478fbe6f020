"""CelebA (Liu et al., ICCV 2015) as group DRO uses it: is the hair blond? The attribute Male is the spurious feature.

Groups are g = 2 * Blond_Hair + Male; the partition is the official one. Both circulating forms of the lists are read: the
authors' `.txt` files (blanks, CR LF in the partition) and the `.csv` twins of the Kaggle edition. Columns go by name.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Finding, Loaded
from bench.data._folder import Counts, expect_count, find, first_existing, integer, numbered_lines, part
from bench.data._grouped import GroupedDataset
from bench.data.files import FileImages, Geometry, Paths
from bench.fields import Range

_FOLDERS = ("celeba", "celebA/data", "celebA", "CelebA", "")
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")


class CelebA(GroupedDataset):
    """202 599 aligned faces of 178x218 pixels; validation and test share the proportions of training."""

    slug = "celeba"
    title = "CelebA"
    summary = "blond hair by gender on aligned faces, 2 classes, 4 groups, 162 770 / 19 867 / 19 962 pictures"
    layout = "celeba/list_attr_celeba.txt, list_eval_partition.txt (or .csv) and img_align_celeba/000001.jpg ..."
    class_names = ("not blond", "blond")
    group_names = ("not blond/female", "not blond/male", "blond/female", "blond/male")

    OFFICIAL: ClassVar[Counts] = {
        "train": (71629, 66874, 22880, 1387), "val": (8535, 8276, 2874, 182), "test": (9767, 7535, 2480, 180)
    }  # fmt: skip
    #: SHA-256 of the official partition and of Male, one byte per picture each
    CONTENT: ClassVar[str] = "492e303ad97cd63aa3e86298d1ebd6d09ad2d8b5c5ec28bc5ab725d802551d96"

    crop: Annotated[int, Range(ge=1)] = 224
    #: training geometry: random-resized-crop (scale 0.7 to 1, aspect 1 to 4/3, with flips) | centre (the evaluation
    #: transform: central square of 178 pixels, resized; no flips)
    augmentation: Literal["random-resized-crop", "centre"] = "random-resized-crop"

    def load(self, root: Path | None) -> Loaded:
        folder = self._folder(root)
        blond, male, partition = self.read(folder)
        groups = 2 * blond + male
        self.verify_groups(groups, partition, folder)
        digest = hashlib.sha256(partition.astype(np.uint8).tobytes() + male.astype(np.uint8).tobytes()).hexdigest()
        listing = first_existing([folder / name for name in _PARTITIONS], "the partition", self.slug)
        first = 2 if listing.suffix == ".csv" else 1
        images = FileImages(
            self._pictures(folder), Paths.of(b"%06d.jpg" % (i + 1) for i in range(len(blond))),
            Geometry(self.crop, (self.crop, self.crop), self.augmentation, 178, scale=(0.7, 1.0), ratio=(1.0, 4 / 3)),
            dataset=self.slug, listing=listing, lines=np.arange(first, first + len(blond), dtype=np.int32),
            picture_size=(218, 178),
        )  # fmt: skip
        given = None if self.corrupted_rate is None else self._given(folder, blond, partition)
        return self.assemble(
            images, blond, groups, partition, flip=self.augmentation != "centre", given=given,
            canonical=digest == self.CONTENT, note="the partition or the attribute Male are not those of the official files",
        )  # fmt: skip

    def read(self, folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(blond, male, partition), int64 [N] each, in the order of the pictures' numbers; strict about every line."""
        attributes = first_existing([folder / name for name in _ATTRIBUTES], "the attribute list", self.slug)
        partitions = first_existing([folder / name for name in _PARTITIONS], "the partition", self.slug)
        blond, male = self._attributes(attributes, ("Blond_Hair", "Male"))
        return blond, male, self._partition(partitions)

    def parts(self, root: Path | None) -> list[Finding]:
        found = [part(lambda: self._folder(root), "folder")]
        if not found[0].ok:
            return found
        folder = self._folder(root)
        for names, what in ((_ATTRIBUTES, "the attribute list"), (_PARTITIONS, "the partition")):
            found.append(part(lambda n=names, w=what: first_existing([folder / x for x in n], w, self.slug), what))
        found.append(part(lambda: self._pictures(folder), "pictures"))
        if self.corrupted_rate is not None:
            found.append(part(lambda: self.corrupted_file(folder), "corrupted labels"))
        return found

    @property
    def _total(self) -> int:
        return sum(sum(counts) for counts in self.OFFICIAL.values())

    def _folder(self, root: Path | None) -> Path:
        return find(root, _FOLDERS, (*_ATTRIBUTES, *_PARTITIONS), self.slug)

    def _pictures(self, folder: Path) -> Path:
        doubled = folder / "img_align_celeba" / "img_align_celeba"
        if doubled.is_dir():
            return doubled
        packed = (folder / "img_align_celeba.zip").exists()
        hint = "unpack img_align_celeba.zip" if packed else "it comes as img_align_celeba.zip"
        return first_existing([folder / "img_align_celeba"], "the folder of pictures", self.slug, hint)

    @property
    def corrupted_name(self) -> str:
        return f"list_attr_celeba_{self.corrupted_rate}r.csv"

    def _given(self, folder: Path, blond: NDArray[np.int64], partition: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels of the corrupted list, int64 [all]; only training labels may differ."""
        path = self.corrupted_file(folder)
        (noisy,) = self._attributes(path, ("Blond_Hair",))
        wrong = (noisy != blond) & (partition != 0)
        if wrong.any():
            line = int(np.argmax(wrong)) + 2
            hint = "only labels of the training part may differ from the original list"
            raise DataError("a label of val or test was changed", where=f"{path}:{line}", hint=hint, dataset=self.slug)
        return noisy

    # -- lists --------------------------------------------------------------------------------------------------------
    def _attributes(self, path: Path, names: tuple[str, ...]) -> list[NDArray[np.int64]]:
        """The columns of those names as 0 and 1 (in the file -1 and 1)."""
        lines = numbered_lines(path, self.slug)
        separator = b"," if path.suffix == ".csv" else None
        if separator is None:
            number, announced = next(lines, (1, b""))
            announced_rows = integer(announced, 10**9, "count", f"{path}:1", self.slug)
            expect_count(announced_rows, self._total, "rows announced", path, self.slug)
        number, first = next(lines, (1, b""))
        header = first.decode("utf-8-sig", errors="replace").split("," if separator else None)
        columns = [1 + header.index(name) - (separator is not None) for name in names if name in header]
        if len(columns) < len(names):
            missing = next(name for name in names if name not in header)
            raise DataError(f"no column {missing!r}", where=f"{path}:{number}", dataset=self.slug)
        width = len(header) + (separator is None)
        values = array("b")
        for line, row in self._named_rows(path, lines, separator, width):
            for column in columns:
                if row[column] not in (b"1", b"-1"):
                    shown = row[column].decode(errors="replace")
                    what = f"{header[column - (separator is None)]} is {shown!r}"
                    raise DataError(what, where=f"{path}:{line}", hint="must be 1 or -1", dataset=self.slug)
                values.append(row[column] == b"1")
        table = np.array(values, dtype=np.int64).reshape(-1, len(names))
        return [np.ascontiguousarray(column) for column in table.T]

    def _partition(self, path: Path) -> NDArray[np.int64]:
        lines = numbered_lines(path, self.slug)
        separator = b"," if path.suffix == ".csv" else None
        if separator is not None:
            next(lines, None)  # the header
        rows = self._named_rows(path, lines, separator, 2)
        found = [integer(row[1], 3, "partition", f"{path}:{line}", self.slug) for line, row in rows]
        return np.array(found, dtype=np.int64)

    def _named_rows(
        self, path: Path, lines: Iterator[tuple[int, bytes]], separator: bytes | None, width: int
    ) -> Iterator[tuple[int, list[bytes]]]:
        """(line, values) of exactly the official number of rows, which name 000001.jpg, 000002.jpg, ... in turn."""
        count = 0
        for line, text in lines:
            row = text.split(separator)
            count += 1
            if len(row) != width:
                raise DataError(f"{len(row)} values instead of {width}", where=f"{path}:{line}", dataset=self.slug)
            if row[0] != b"%06d.jpg" % count:
                shown = row[0].decode(errors="replace")
                raise DataError(f"{shown!r} instead of {count:06d}.jpg", where=f"{path}:{line}", dataset=self.slug)
            yield line, row
        expect_count(count, self._total, "rows", path, self.slug)
