"""Waterbirds (Sagawa et al., ICLR 2020): CUB birds pasted on Places backgrounds; the background predicts the label.

Groups are g = 2 * y + place. The generator of the set is unseeded and other draws of it circulate, so the group counts
of all splits are compared with the official ones before anything is trained. Labels are taken as they are: about 180
landbirds whose names contain "tern" carry the label waterbird, in everyone's results.
"""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Finding, Loaded
from bench.data._folder import Counts, find, integer, part, safe_path
from bench.data._grouped import GroupedDataset
from bench.data.files import FileImages, Geometry, Paths
from bench.fields import Range

_FOLDERS = (
    "waterbird_complete95_forest2water2", "waterbirds_v1.0", "waterbirds/waterbird_complete95_forest2water2", "waterbirds",
    "cub/data/waterbird_complete95_forest2water2", "",
)  # fmt: skip


class Waterbirds(GroupedDataset):
    """11 788 pictures, official splits, 4 groups; validation and test have balanced backgrounds within a class."""

    slug = "waterbirds"
    title = "Waterbirds"
    summary = "birds on land and water backgrounds, 2 classes, 4 groups, 4 795 / 1 199 / 5 794 pictures"
    layout = "waterbird_complete95_forest2water2/metadata.csv and its 200 species folders"
    class_names = ("landbird", "waterbird")
    group_names = ("landbird/land", "landbird/water", "waterbird/land", "waterbird/water")

    OFFICIAL: ClassVar[Counts] = {
        "train": (3498, 184, 56, 1057), "val": (467, 466, 133, 133), "test": (2255, 2255, 642, 642)
    }  # fmt: skip
    VARIANTS: ClassVar[dict[str, Counts]] = {
        "the regenerated variant 3525/186/54/1030": {
            "train": (3525, 186, 54, 1030), "val": (452, 452, 147, 148), "test": (2255, 2255, 642, 642)
        }
    }  # fmt: skip
    REMEDY = "take the archive waterbird_complete95_forest2water2.tar.gz of the group DRO authors"
    #: SHA-256 of the rows (file name, y, split, place) of the official metadata.csv
    CONTENT: ClassVar[str] = "4d2366324670f30b3f300528eade9f772e2a36b350d9151041a3f1c972226fb3"

    #: pictures are resized to this square whatever their aspect (evaluation, random-crop)
    resize: Annotated[int, Range(ge=1)] = 256
    crop: Annotated[int, Range(ge=1)] = 224
    #: training geometry: random-resized-crop (scale 0.7 to 1: group_DRO with augmentation) | random-crop (LLC-DRO's
    #: paper) | centre (group_DRO without augmentation, WILDS, LLC-DRO's released code; no flips either)
    augmentation: Literal["random-resized-crop", "random-crop", "centre"] = "random-resized-crop"

    def load(self, root: Path | None) -> Loaded:
        folder = self._folder(root)
        rows = _read(folder / "metadata.csv", self.slug)
        self.verify_groups(rows.groups, rows.split, rows.file)
        geometry = Geometry(self.crop, (self.resize, self.resize), self.augmentation, scale=(0.7, 1.0))
        images = FileImages(folder, rows.paths, geometry, dataset=self.slug, listing=rows.file, lines=rows.lines)
        given = None if self.corrupted_rate is None else self._given(folder, rows)
        return self.assemble(
            images, rows.y, rows.groups, rows.split, flip=self.augmentation != "centre", given=given,
            canonical=rows.content() == self.CONTENT, note="the rows of metadata.csv are not those of the official file",
        )  # fmt: skip

    def parts(self, root: Path | None) -> list[Finding]:
        found = [part(lambda: self._folder(root) / "metadata.csv", "list")]
        if self.corrupted_rate is not None and found[0].ok:
            found.append(part(lambda: self.corrupted_file(self._folder(root)), "corrupted labels"))
        return found

    @property
    def corrupted_name(self) -> str:
        return f"metadata_{self.corrupted_rate}r.csv"

    def _folder(self, root: Path | None) -> Path:
        return find(root, _FOLDERS, ("metadata.csv",), self.slug)

    def _given(self, folder: Path, rows: _Rows) -> NDArray[np.int64]:
        """Labels of the corrupted file, int64 [all rows]; only training labels may differ."""
        noisy = _read(self.corrupted_file(folder), self.slug)
        if len(noisy.y) != len(rows.y):
            what = f"{len(noisy.y):,} rows, but metadata.csv has {len(rows.y):,}"
            raise DataError(what, where=noisy.file, dataset=self.slug)
        same = np.fromiter((a == b for a, b in zip(noisy.paths, rows.paths, strict=True)), dtype=bool, count=len(rows.y))
        same &= (noisy.split == rows.split) & (noisy.place == rows.place)
        same &= (noisy.y == rows.y) | (rows.split == 0)
        if not same.all():
            line = noisy.lines[int(np.argmin(same))]
            hint = "file names, split, place and the labels of val and test must be those of metadata.csv"
            raise DataError("this row does not belong", where=f"{noisy.file}:{line}", hint=hint, dataset=self.slug)
        return noisy.y


class _Rows:
    """A metadata file by columns: `y`, `place`, `split` and `groups` int64 [N], line numbers int32 [N]."""

    def __init__(self, file: Path, paths: Paths, numbers: NDArray[np.int64]) -> None:
        self.file, self.paths = file, paths
        self.lines = numbers[:, 0].astype(np.int32)
        self.y, self.split, self.place = (np.ascontiguousarray(numbers[:, i]) for i in (1, 2, 3))
        self.groups = 2 * self.y + self.place

    def content(self) -> str:
        digest = hashlib.sha256()
        for path, *numbers in zip(self.paths, self.y, self.split, self.place, strict=True):
            digest.update(b"%s,%d,%d,%d\n" % (path, *numbers))
        return digest.hexdigest()


def _read(path: Path, dataset: str) -> _Rows:
    numbers, seen = array("q"), set()

    def names() -> Iterator[bytes]:
        for line, row in _records(path, dataset):
            where = f"{path}:{line}"
            name = safe_path(row["img_filename"].encode(), where, dataset)
            if name in seen:
                raise DataError(f"{row['img_filename']} is listed twice", where=where, dataset=dataset)
            seen.add(name)
            columns = (("y", 2), ("split", 3), ("place", 2))
            numbers.extend((line, *(integer(row[key], limit, key, where, dataset) for key, limit in columns)))
            yield name

    paths = Paths.of(names())
    return _Rows(path, paths, np.array(numbers, dtype=np.int64).reshape(-1, 4))


def _records(path: Path, dataset: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row by column name) of a CSV file that has the columns of metadata.csv."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = {"img_filename", "y", "split", "place"} - set(header)
            if missing:
                hint = "the header of the official file is img_id,img_filename,y,split,place,place_filename"
                raise DataError(f"no column {sorted(missing)[0]!r}", where=f"{path}:1", hint=hint, dataset=dataset)
            for row in reader:
                if len(row) != len(header):
                    what = f"{len(row)} values instead of {len(header)}"
                    raise DataError(what, where=f"{path}:{reader.line_num}", dataset=dataset)
                yield reader.line_num, dict(zip(header, row, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=path, dataset=dataset) from None
