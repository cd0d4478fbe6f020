"""Clothing1M (Xiao et al., CVPR 2015): shop photographs in 14 classes, labels guessed from the text around them.

Validation and test are hand-labelled. Four protocols are kept apart, as papers do (their numbers do not compare):
the full noisy million (`train: noisy`); a fresh class-balanced subset in each epoch (`epoch_size`); a fixed subset
(`per_class`); and training with hand-labelled pictures (`train: clean` or `noisy+clean`). `train: both` holds the 24 637
training pictures that have both labels: real noise (38.3 %) whose truth is known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np

from bench.data import DataError, Finding, Labels, Loaded, Split
from bench.data import _folder as common
from bench.data._folder import Counts, FileDataset, Listed, expect_count, file_split, first_existing, part
from bench.data.files import FileImages, Geometry, Paths
from bench.fields import Range

_FOLDERS = ("clothing1m", "Clothing1M", "clothing1M", "")
_LISTS = ("annotations", "label", "")  # as released, DISC, DivideMix and ELR
CLASSES = (
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Downcoat", "Suit", "Shawl",
    "Dress", "Vest", "Underwear",
)  # fmt: skip
_NORMALISATION = ((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214))  # of the DivideMix line


def epoch_subset(labels: Labels, size: int, classes: int, rng: np.random.Generator) -> Labels:
    """Indices int64 [<= size] of a class-balanced random subset of the samples with these given labels int64 [N].

    Samples are visited in random order and kept while their class has fewer than size / classes and the total is below
    `size` (DivideMix's loader, ELR+). Returned in the order of the visit, which is random. `size` 0 or more.
    """
    order = rng.permutation(len(labels))
    visited = labels[order]
    by_class = np.argsort(visited, kind="stable")
    counts = np.bincount(visited, minlength=classes)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - first  # how many of its class were visited before it
    return order[rank * classes < size][:size].astype(np.int64)


class Clothing1M(FileDataset):
    """A million noisy pictures; validation 14 313 and test 10 526 are clean."""

    slug = "clothing1m"
    title = "Clothing1M"
    num_classes = 14
    summary = "shop photographs with web labels (38 % wrong), 14 classes, 1 000 000 / 14 313 / 10 526 pictures"
    layout = "clothing1m/annotations/*.txt (or beside the pictures) and clothing1m/images/0/00/<id>,<id>.jpg ..."

    #: lines of the lists
    LINES: ClassVar[dict[str, int]] = {
        "noisy_train_key_list.txt": 1_000_000, "clean_train_key_list.txt": 47_570, "clean_val_key_list.txt": 14_313,
        "clean_test_key_list.txt": 10_526, "noisy_label_kv.txt": 1_037_497, "clean_label_kv.txt": 72_409,
    }  # fmt: skip
    #: pictures per class
    OFFICIAL: ClassVar[Counts] = {
        "val": (1221, 891, 735, 1562, 1259, 1147, 785, 435, 1362, 1021, 704, 944, 1145, 1102),
        "test": (845, 636, 527, 1171, 918, 824, 558, 297, 1017, 727, 523, 686, 946, 851),
    }
    #: SHA-256 of the lines `<key> <clean label>` of validation, then test
    CONTENT: ClassVar[str] = "3d530d547763b315dbbd680db1f2f03e10a1048f84c2a1f154fb42e020d32cde"
    #: training pictures with both labels
    BOTH: ClassVar[int] = 24_637

    #: noisy | clean (the 47 570 hand-labelled training pictures) | noisy+clean (the hand-labelled ones come last and are
    #: named as trusted) | both (hand-labelled training pictures that have a web label too)
    train: Literal["noisy", "clean", "noisy+clean", "both"] = "noisy"
    #: > 0: each epoch sees a new class-balanced random subset of this size (64 000 in DivideMix, 192 000 in ELR+)
    epoch_size: Annotated[int, Range(ge=0)] = 0
    #: > 0: a fixed random subset of at most this many pictures per given label (18 976 in PLC), drawn with `subset_seed`
    per_class: Annotated[int, Range(ge=0)] = 0
    subset_seed: Annotated[int, Range(ge=0)] = 123
    #: length of the shorter side that pictures are resized to
    resize: Annotated[int, Range(ge=1)] = 256
    crop: Annotated[int, Range(ge=1)] = 224
    #: mean and standard deviation: DivideMix's line measured them on Clothing1M; MLNT and PLC take ImageNet's
    normalisation: Literal["clothing1m", "imagenet"] = "clothing1m"

    @property
    def truth_known(self) -> bool:  # type: ignore[override]
        return self.train in ("clean", "both")

    def load(self, root: Path | None) -> Loaded:
        if self.epoch_size and self.per_class:
            raise DataError("epoch_size and per_class are two protocols: set one of them", dataset=self.slug)
        folder, lists = self._folder(root)
        clean = self._table(lists, "clean_label_kv.txt")
        train, given, trusted = self._training(folder, lists, clean)
        val, test = (self._split(folder, lists, name, clean) for name in ("val", "test"))
        for name, split in (("val", val), ("test", test)):
            counts = tuple(np.bincount(split.labels, minlength=self.num_classes).tolist())
            if counts != self.OFFICIAL[name]:
                what = f"the clean {name} labels have {counts} pictures per class"
                raise DataError(what, where=lists, hint=f"official: {self.OFFICIAL[name]}", dataset=self.slug)
        canonical = _content(val, test) == self.CONTENT
        notes = [] if canonical else ["the lists of val and test or their labels are not the official ones"]
        if self.per_class:
            notes.append(f"fixed subset of at most {self.per_class:,} pictures per given label, seed {self.subset_seed}")
        return Loaded(
            train=train, val=val, test=test, class_names=CLASSES, pad=0, flip=True, given_labels=given, trusted=trusted,
            normalisation=_NORMALISATION if self.normalisation == "clothing1m" else common.IMAGENET,
            true_labels_known=self.truth_known, epoch_size=self.epoch_size, notes=tuple(notes),
            canonical=canonical,
        )  # fmt: skip

    def parts(self, root: Path | None) -> list[Finding]:
        found = [part(lambda: self._folder(root)[1], "lists")]
        if not found[0].ok:
            return found
        _, lists = self._folder(root)
        optional = {"clean": "noisy_", "noisy": "clean_train"}.get(self.train, " ")  # lists that this setting does not read
        for name in self.LINES:
            if not name.startswith(optional):
                found.append(part(lambda n=name: first_existing([lists / n], "the list", self.slug), name))
        return found

    # -- splits -------------------------------------------------------------------------------------------------------
    def _training(self, folder: Path, lists: Path, clean: Listed) -> tuple[Split, Labels | None, Labels | None]:
        """(split, given labels or None, trusted indices or None)."""
        given: Labels | None = None
        trusted: Labels | None = None
        if self.train == "noisy":
            images, labels = self._labelled(folder, lists, "noisy_train", self._table(lists, "noisy_label_kv.txt"))
        elif self.train == "clean":
            images, labels = self._labelled(folder, lists, "clean_train", clean)
        elif self.train == "both":
            images, labels = self._labelled(folder, lists, "clean_train", clean)
            noisy = self._table(lists, "noisy_label_kv.txt")
            at = common.positions(images.paths, noisy.paths)
            expect_count(int((at >= 0).sum()), self.BOTH, "training pictures with both labels", noisy.file, self.slug)
            images, labels, given = images.take(at >= 0), labels[at >= 0], noisy.labels[at[at >= 0]]
        else:
            web, web_labels = self._labelled(folder, lists, "noisy_train", self._table(lists, "noisy_label_kv.txt"))
            hand, hand_labels = self._labelled(folder, lists, "clean_train", clean)
            images = FileImages(web.root, _joined(web.paths, hand.paths), web.geometry, dataset=self.slug, skip=web.skip)
            labels = np.concatenate([web_labels, hand_labels])
            trusted = np.arange(len(web_labels), len(labels), dtype=np.int64)
        if self.per_class:
            rng = np.random.Generator(np.random.PCG64(self.subset_seed))
            seen = labels if given is None else given
            chosen = np.sort(epoch_subset(seen, self.per_class * self.num_classes, self.num_classes, rng))
            images, labels = images.take(chosen), labels[chosen]
            given = None if given is None else given[chosen]
            trusted = None if trusted is None else np.flatnonzero(np.isin(chosen, trusted))
        return file_split(images, labels), given, trusted

    def _split(self, folder: Path, lists: Path, name: str, clean: Listed) -> Split:
        return file_split(*self._labelled(folder, lists, f"clean_{name}", clean))

    def _labelled(self, folder: Path, lists: Path, name: str, table: Listed) -> tuple[FileImages, Labels]:
        """The pictures of a key list with their labels from a table."""
        path = first_existing([lists / f"{name}_key_list.txt"], "the list", self.slug)
        keys = common.read_keys(path, dataset=self.slug)
        expect_count(len(keys.paths), self.LINES[path.name], "lines", path, self.slug)
        common.refuse_duplicates(keys, self.slug)
        at = common.positions(keys.paths, table.paths)
        if (at < 0).any():
            first = int(np.argmin(at >= 0))
            what = f"{keys.paths[first].decode(errors='replace')} has no label in {table.file.name}"
            raise DataError(what, where=f"{path}:{first + 1}", dataset=self.slug)
        skip = 0 if (folder / "images").is_dir() else len("images/")
        geometry = Geometry(self.crop, self.resize, "random-crop")
        images = FileImages(folder, keys.paths, geometry, dataset=self.slug, listing=path, lines=keys.lines, skip=skip)
        return images, table.labels[at]

    # -- files --------------------------------------------------------------------------------------------------------
    def _folder(self, root: Path | None) -> tuple[Path, Path]:
        """(folder of the pictures, folder of the lists)."""
        markers = [f"{place}/clean_label_kv.txt".lstrip("/") for place in _LISTS]
        folder = common.find(root, _FOLDERS, markers, self.slug)
        lists = next(folder / place for place in _LISTS if (folder / place / "clean_label_kv.txt").exists())
        return folder, lists

    def _table(self, lists: Path, name: str) -> Listed:
        path = first_existing([lists / name], "the list", self.slug)
        listed = common.read_labelled(path, dataset=self.slug, classes=self.num_classes)
        expect_count(listed.total, self.LINES[name], "lines", path, self.slug)
        common.refuse_duplicates(listed, self.slug)
        for number, key in enumerate(listed.paths):
            if not key.startswith(b"images/"):
                shown = key.decode(errors="replace")
                where = f"{path}:{listed.lines[number]}"
                raise DataError(f"{shown!r} does not begin with images/", where=where, dataset=self.slug)
        return listed


def _content(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for key, label in zip(split.images.paths, split.labels, strict=True):
            digest.update(b"%s %d\n" % (key, label))
    return digest.hexdigest()


def _joined(one: Paths, other: Paths) -> Paths:
    return Paths.of(path for part in (one, other) for path in part)
