"""Any folder of images: one folder per class, or a list `image,label[,clean_label][,group][,split]` as CSV.

The identity of a cell must not hold a path, and must change when the data does. So a suite names a folder *below the data
folder* (one name, never a path), and `content` pins what is in it: a hash over relative paths, file sizes, labels, groups
and splits, in order. Planning fills it in (`planned`); loading compares it with what is on disk.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Finding, Labels, Loaded, Normalisation, Split, data_root, describe_loaded
from bench.data._folder import IMAGENET, check_pictures
from bench.data._listing import Column, Listing, read_csv, read_folders
from bench.data._resident import in_memory
from bench.data.files import FileImages, Geometry
from bench.fields import FieldError, Range, nearest

#: images up to this side live in memory as one array; larger ones are decoded batch by batch
RESIDENT_SIDE = 96
_TEST_SEED = 20221116
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Index:
    """What a folder holds before any pixel is read; all arrays int64 [N], `split` counts in `_SPLITS`."""

    listing: Listing
    class_names: tuple[str, ...]
    given: Labels
    true: Labels
    groups: Labels | None
    group_names: tuple[str, ...] | None
    split: Labels
    content: str


class ImageFolder(Dataset):
    """Images of your own. Labels count as true unless `noisy` is set; a `clean_label` column makes both known."""

    slug = "image-folder"
    title = "Image folder"
    summary = "your own images: a folder per class, or a CSV of image,label[,clean_label][,group][,split]"
    layout = "<folder>/<class>/*, <folder>/{train,val,test}/<class>/*, or <folder>/<csv> with paths relative to it"
    neutral = {"resize_first": False}

    #: name of the folder below the data folder
    folder: str = ""
    #: name of the list in that folder; "" means one folder per class
    csv: str = ""
    #: class names in the order of their numbers; empty: all that occur, sorted
    classes: tuple[str, ...] = ()
    #: side of the images that are learned from; 0: as they are, all of one size
    size: Annotated[int, Range(ge=0)] = 0
    #: training geometry of images with a side above 96
    crop: Literal["random-resized-crop", "random-crop", "centre"] = "random-resized-crop"
    #: cut random resized crops out of the resized picture: other pixels, but packs (`bench data pack`) are smaller and faster
    resize_first: bool = False
    #: share of each class that is kept for testing where nothing says which images are for testing
    test_fraction: Annotated[float, Range(gt=0, lt=1)] = 0.2
    #: are the labels wrong in places unknown?
    noisy: bool = False
    pad: Annotated[int, Range(ge=0)] = 4
    flip: bool = True
    #: hash of what the folder holds, from `bench data check`; filled in when a suite is planned
    content: str = ""

    _limit: ClassVar[int] = RESIDENT_SIDE
    #: the slug with the options of the `bench data check` that examines this folder, for messages
    _checked_by: str = slug

    @classmethod
    def planned(cls, params: dict[str, Any], root: Path | None) -> dict[str, Any]:
        """Fills in `content` from the files, unless the suite pins it. Raises `FieldError` or `DataError`."""
        dataset = cls(**params)
        dataset._names()
        return params if dataset.content else {**params, "content": dataset._index(root).content}

    def unmet(self, need: str) -> str | None:
        return None  # only the files tell whether they have groups and true labels

    def load(self, root: Path | None) -> Loaded:
        return self._loaded(self._index(root))

    def check(self, root: Path | None) -> list[Finding]:
        try:
            index = self._index(root)
            found = [Finding(True, f"content: {index.content}", {"content": index.content})]
            data = self._loaded(index)
        except DataError as error:
            return [Finding(False, str(error))]
        except FieldError as error:
            return [Finding(False, str(error))]
        return [*found, *describe_loaded(data), *check_pictures(data, exhaustive=False)]

    # --- index

    def _names(self) -> None:
        for key, value, optional in (("folder", self.folder, False), ("csv", self.csv, True)):
            if not (optional and value == "") and not re.fullmatch(r"\w[\w.+-]*", value):
                what = f"{value!r} is not a name" if value else "image-folder needs the name of a folder"
                raise FieldError(key, what, "one name below the data folder, not a path; --data DIR says where that is")

    def _index(self, root: Path | None) -> _Index:
        self._names()
        options = ["--root", str(data_root(root)), "--set", f"folder={self.folder}"]
        options += ["--set", f"csv={self.csv}"] if self.csv else []
        self._checked_by = f"{self.slug} {shlex.join(options)}"
        folder = data_root(root) / self.folder
        if not folder.is_dir():
            raise self._error("the folder is missing", folder, "image folders are looked for below the data folder")
        listing = read_csv(folder / self.csv, self._checked_by) if self.csv else read_folders(folder, self._checked_by)
        names = self._class_names(listing)
        given = _numbers(listing, listing.label, names)
        true = given if listing.clean_label is None else _numbers(listing, listing.clean_label, names)
        groups, group_names = None, None
        if listing.group is not None:
            group_names = _sorted_names(listing.group.names)
            groups = _numbers(listing, listing.group, group_names)
        images = self._images(listing, Geometry(crop=1, resize=1))  # only paths and sizes are asked for
        content = listing.digest(images.digest())[:16]
        if self.content and content != self.content:
            hint = f"the suite pins {self.content}; pin what is there, or bring back the files"
            raise self._error(f"the content is {content}", folder, hint)
        split = self._splits(listing, true, names)
        return _Index(listing, names, given, true, groups, group_names, split, content)

    def _class_names(self, listing: Listing) -> tuple[str, ...]:
        columns = [column for column in (listing.label, listing.clean_label) if column is not None]
        if self.classes:
            if len(set(self.classes)) != len(self.classes):
                raise FieldError("classes", "a class is named twice")
            for column in columns:
                self._known(listing, column)
            return self.classes
        found = {name: column for column in columns for name in column.names}
        numbers = [name for name in found if re.fullmatch(r"-?\d+", name)]
        if not numbers or len(numbers) < len(found):
            if numbers:
                where = listing.where(found[numbers[0]].first(numbers[0]))
                raise self._error(f"label {numbers[0]!r} is a number, others are names", where, "give `classes`")
            return tuple(sorted(found))
        top = max(map(int, numbers))
        for name in sorted(numbers, key=int):
            if str(int(name)) != name or int(name) < 0:
                raise self._error(f"label {name!r} is out of range", listing.where(found[name].first(name)), "0, 1, 2 ...")
        absent = sorted(set(range(top + 1)) - set(map(int, numbers)))
        if absent:
            where = listing.where(found[str(top)].first(str(top)))
            raise self._error(f"label {top} occurs, but label {absent[0]} does not", where, "out of range? else give `classes`")
        return tuple(str(c) for c in range(top + 1))

    def _known(self, listing: Listing, column: Column) -> None:
        for name in column.names:
            if name not in self.classes and not (name.isdecimal() and int(name) < len(self.classes)):
                where = listing.where(column.first(name))
                raise self._error(f"label {name!r} is out of range", where, nearest(name, self.classes))

    def _splits(self, listing: Listing, true: Labels, names: tuple[str, ...]) -> Labels:
        """Where each image belongs, int64 [N]; every class keeps training images."""
        if listing.split is not None:
            for name in listing.split.names:
                if name not in _SPLITS:
                    where = listing.where(listing.split.first(name))
                    raise self._error(f"split {name!r} is unknown", where, "train, val or test")
            split = _numbers(listing, listing.split, _SPLITS)
        else:
            rng = np.random.Generator(np.random.PCG64(_TEST_SEED))  # one test set, whatever the seed of a cell
            split = np.zeros(len(true), dtype=np.int64)
            for c in range(len(names)):
                members = np.flatnonzero(true == c)
                split[rng.permutation(members)[: round(self.test_fraction * len(members))]] = 2
        for part in (0, 2):
            if not (split == part).any():
                raise self._error(f"no image is for {_SPLITS[part]}", listing.file)
        return split

    # --- pixels

    def _loaded(self, index: _Index) -> Loaded:
        side = self.size or self._common_size(index.listing)
        resident = side <= self._limit
        train_geometry = "centre" if resident else self.crop
        resize = side if resident else round(side * 256 / 224)
        square = None if self.size else (side, side)
        geometry = Geometry(crop=side, resize=resize, train=train_geometry, resize_first=self.resize_first)
        images = self._images(index.listing, geometry, square)

        def part(which: int) -> Split | None:
            chosen = np.flatnonzero(index.split == which)
            if not len(chosen):
                return None
            files = images.take(chosen)
            pixels = in_memory(files) if resident else files
            return Split(pixels, index.true[chosen], None if index.groups is None else index.groups[chosen])

        train, val, test = part(0), part(1), part(2)
        assert train is not None and test is not None  # `_splits` has seen to it
        has_both = index.listing.clean_label is not None
        normalisation: Normalisation | None = None if resident else IMAGENET
        return Loaded(
            train=train,
            val=val,
            test=test,
            class_names=index.class_names,
            group_names=index.group_names,
            pad=self.pad if resident else 0,
            flip=self.flip,
            given_labels=index.given[index.split == 0] if has_both else None,
            true_labels_known=has_both or not self.noisy,
            normalisation=normalisation,
            notes=index.listing.notes,
        )

    def _images(self, listing: Listing, geometry: Geometry, size: tuple[int, int] | None = None) -> FileImages:
        return FileImages(
            listing.root, listing.paths, geometry, dataset=self.slug, listing=listing.list_file, lines=listing.lines,
            picture_size=size,
        )  # fmt: skip

    def _common_size(self, listing: Listing) -> int:
        from PIL import Image

        path = Path(self._images(listing, Geometry(crop=1, resize=1)).path(0))
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except (OSError, ValueError) as error:
            raise self._error(f"the picture cannot be read: {error}", path, listing.where(0)) from None
        if width != height or width > self._limit:
            hint = f"give `size`, the side of the squares to learn from; up to {self._limit} they are kept in memory"
            raise self._error(f"the picture is {width}x{height}", path, hint)
        return width

    def _error(self, what: str, where: Any, hint: str = "") -> DataError:
        return DataError(what, where=where, hint=hint, dataset=self._checked_by)


def _sorted_names(names: list[str]) -> tuple[str, ...]:
    """In order of number where all are numbers, else in order of text."""
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _numbers(listing: Listing, column: Column, names: tuple[str, ...]) -> NDArray[np.int64]:
    """The column as places in `names`; a decimal text that is no name counts as the place itself."""
    places = {name: place for place, name in enumerate(names)}
    table = np.array([places[name] if name in places else int(name) for name in column.names], dtype=np.int64)
    return table[column.ids]
