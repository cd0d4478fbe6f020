"""WebVision 1.0 (Li et al., 2017): pictures found by 1 632 web queries for the 1 000 classes of ILSVRC12, unverified.

`webvision50` is the subset of Chen et al. (ICML 2019) in DivideMix's protocol: the first 50 classes of the Google half,
tested on WebVision's own validation pictures and on ILSVRC12's, top-1 and top-5. `webvision` is all of it. Labels are those
of the lists; true ones are not known.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np

from bench.data import DataError, Finding, Loaded, Split
from bench.data import _folder as common
from bench.data._folder import IMAGENET, FileDataset, Listed, expect_count, file_split, first_existing, part
from bench.data._ilsvrc import Validation, find_validation, places
from bench.data.files import FileImages, Geometry
from bench.fields import Range

_FOLDERS = ("webvision", "WebVision", "webvision_v1.0", "")


class _WebVision(FileDataset):
    """What the subset and the full set share."""

    truth_known = False
    #: lines of the training lists
    LINES: ClassVar[dict[str, int]] = {"all": 2_439_574, "google": 980_449, "flickr": 1_459_125}
    #: classes of the lists, and pictures of each in either validation set
    CLASSES: ClassVar[int] = 1000
    PER_CLASS: ClassVar[int] = 50
    #: SHA-256 of the wnids, one per line, in the order of the labels
    WNIDS: ClassVar[str] = "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"

    def load(self, root: Path | None) -> Loaded:
        folder = self._folder(root)
        wnids, names = self._synsets(folder)
        train = self._train(folder)
        val = self._val(folder)
        geometry = self._geometry()
        images = FileImages(folder, train.paths, geometry, dataset=self.slug, listing=train.file, lines=train.lines)
        pictures = self._val_pictures(folder)
        tests = FileImages(pictures, val.paths, geometry, dataset=self.slug, listing=val.file, lines=val.lines)
        canonical = _sha256(wnids) == self.WNIDS
        notes = [] if canonical else ["the wnids of synsets.txt are not the official ones"]
        test2 = None
        if self._wants_ilsvrc():
            found = self._ilsvrc(root, folder, wnids)
            test2 = file_split(found.images(geometry, self.slug), found.labels)
        return Loaded(
            train=file_split(images, train.labels), test=file_split(tests, val.labels), class_names=tuple(names),
            pad=0, flip=True, normalisation=IMAGENET, true_labels_known=self.truth_known, top_k=(1, 5), test2=test2,
            test2_name="ILSVRC12" if test2 else None, canonical=canonical, notes=(*notes, *self._remarks(train)),
        )  # fmt: skip

    def parts(self, root: Path | None) -> list[Finding]:
        found = [part(lambda: self._folder(root), "folder")]
        if not found[0].ok:
            return found
        folder = self._folder(root)
        found += [
            part(lambda n=name: first_existing([folder / "info" / n], "a list", self.slug), "list")
            for name in ("synsets.txt", self._list_name(), "val_filelist.txt")
        ]
        found.append(part(lambda: self._val_pictures(folder), "validation pictures"))
        if all(finding.ok for finding in found):
            found.append(self._queries(folder))
            if self._wants_ilsvrc():
                what = "ILSVRC12 validation, read as"
                found.append(part(lambda: self._ilsvrc(root, folder, self._synsets(folder)[0]).arrangement, what))
        return found

    # -- what the two sets differ in ----------------------------------------------------------------------------------
    def _geometry(self) -> Geometry:
        raise NotImplementedError

    def _source(self) -> str:
        return "google"

    def _wants_ilsvrc(self) -> bool:
        return True

    def _remarks(self, train: Listed) -> Iterator[str]:
        yield from ()

    # -- files --------------------------------------------------------------------------------------------------------
    def _folder(self, root: Path | None) -> Path:
        return common.find(root, _FOLDERS, ("info/val_filelist.txt", "info/synsets.txt"), self.slug)

    def _list_name(self) -> str:
        return f"train_filelist_{self._source()}.txt"

    def _val_pictures(self, folder: Path) -> Path:
        return first_existing([folder / "val_images_256", folder / "val_images"], "the folder of pictures", self.slug)

    def _synsets(self, folder: Path) -> tuple[list[str], list[str]]:
        """(wnids, names) of all classes in the order of the labels; a name that two classes share carries its wnid."""
        path = first_existing([folder / "info" / "synsets.txt"], "the class list", self.slug)
        lines = [line.decode(errors="replace") for _, line in common.numbered_lines(path, self.slug)]
        expect_count(len(lines), self.CLASSES, "classes", path, self.slug)
        wnids = [line.split(" ", 1)[0] for line in lines]
        for number in range(1, len(wnids)):
            if wnids[number] <= wnids[number - 1]:
                hint = "label i is the i-th wnid in sorted order"
                where = f"{path}:{number + 1}"
                raise DataError(f"{wnids[number]} is out of order", where=where, hint=hint, dataset=self.slug)
        names = [line.partition(" ")[2].split(",")[0].strip() or wnid for line, wnid in zip(lines, wnids, strict=True)]
        times = Counter(names)
        named = [n if times[n] == 1 else f"{n} ({w})" for n, w in zip(names, wnids, strict=True)]
        return wnids, named[: self.num_classes]

    def _train(self, folder: Path) -> Listed:
        path = first_existing([folder / "info" / self._list_name()], "the training list", self.slug)
        listed = common.read_labelled(path, dataset=self.slug, classes=self.CLASSES, below=self.num_classes)
        expect_count(listed.total, self.LINES[self._source()], "lines", path, self.slug)
        common.refuse_duplicates(listed, self.slug)
        empty = np.flatnonzero(np.bincount(listed.labels, minlength=self.num_classes) == 0)
        if len(empty):
            raise DataError(f"no picture has label {empty[0]}", where=path, dataset=self.slug)
        return listed

    def _val(self, folder: Path) -> Listed:
        path = first_existing([folder / "info" / "val_filelist.txt"], "the validation list", self.slug)
        listed = common.read_labelled(path, dataset=self.slug, classes=self.CLASSES, below=self.num_classes)
        expect_count(listed.total, self.CLASSES * self.PER_CLASS, "lines", path, self.slug)
        common.refuse_duplicates(listed, self.slug)
        counts = np.bincount(listed.labels, minlength=self.num_classes)
        wrong = np.flatnonzero(counts != self.PER_CLASS)
        if len(wrong):
            what = f"label {wrong[0]} has {counts[wrong[0]]} pictures instead of {self.PER_CLASS}"
            raise DataError(what, where=path, dataset=self.slug)
        return listed

    def _ilsvrc(self, root: Path | None, folder: Path, wnids: list[str]) -> Validation:
        return find_validation(
            places(root, folder), wnids=wnids, classes=self.num_classes, total=self.CLASSES,
            per_class=self.PER_CLASS, dataset=self.slug,
        )  # fmt: skip

    def _queries(self, folder: Path) -> Finding:
        """Do the labels of the training list agree with the queries that its folders are named after?"""
        path = folder / "info" / "queries_synsets_map.txt"
        if not path.exists():
            return Finding(True, f"{path} is not there: labels were not compared with queries")
        try:
            rows = (line.split() for _, line in common.numbered_lines(path, self.slug))
            synset = {int(query): int(number) for query, number in rows}
            train = self._train(folder)
        except (DataError, ValueError) as error:
            return Finding(False, str(error))
        queries = (int(name.split(b"/")[1][1:] or 0) if name.count(b"/") == 2 else 0 for name in train.paths)
        agree = sum(synset.get(q, 0) == label + 1 for q, label in zip(queries, train.labels.tolist(), strict=True))
        return Finding(agree == len(train.labels), f"{agree:,} of {len(train.labels):,} labels agree with their query")


class WebVision50(_WebVision):
    """Mini-WebVision. The second test set is `test2`; the two never mix."""

    slug = "webvision50"
    title = "Mini-WebVision"
    num_classes = 50
    summary = "first 50 classes of WebVision 1.0 (Google), about 66 000 pictures; tests: WebVision and ILSVRC12, top-1/5"
    layout = "webvision/info/*.txt, webvision/google/q0001/ ..., webvision/val_images_256/, webvision/imagenet/val/"
    #: the size of the training part that papers quote
    QUOTED: ClassVar[int] = 65_944

    #: length of the shorter side that pictures are resized to: 256 (DivideMix's paper, ELR+, ScanMix, Sel-CL), 320 (RRL)
    resize: Annotated[int, Range(ge=1)] = 256
    #: side of what the network sees: 227 (DivideMix's paper, ELR+, ScanMix), 299 (RRL, DivideMix's code), 224 (Sel-CL, MOIT)
    crop: Annotated[int, Range(ge=1)] = 227
    augmentation: Literal["random-crop", "random-resized-crop"] = "random-crop"
    #: least share of the area of a random resized crop: 0.08 (DivideMix's code), 0.2 (Sel-CL, MOIT), 0.4 (RRL)
    scale_min: Annotated[float, Range(gt=0, le=1)] = 0.08
    #: cut random resized crops out of the resized picture (DivideMix's code, Sel-CL, MOIT)
    resize_first: bool = False
    #: test on ILSVRC12's validation pictures too
    ilsvrc: bool = True

    def _geometry(self) -> Geometry:
        scale = (self.scale_min, 1.0)
        return Geometry(self.crop, self.resize, self.augmentation, scale=scale, resize_first=self.resize_first)

    def _wants_ilsvrc(self) -> bool:
        return self.ilsvrc

    def _remarks(self, train: Listed) -> Iterator[str]:
        if len(train.labels) != self.QUOTED:
            yield f"{len(train.labels):,} training pictures; papers quote {self.QUOTED:,}"


class WebVision(_WebVision):
    """All 1 000 classes, from Google and Flickr, as in the tables of MentorNet, CurriculumNet and ODD."""

    slug = "webvision"
    title = "WebVision"
    num_classes = 1000
    summary = "WebVision 1.0, 2 439 574 web pictures, 1 000 classes; tests: WebVision and ILSVRC12, top-1/5"
    layout = "webvision/info/*.txt, webvision/{google,flickr}/q0001/ ..., webvision/val_images_256/, imagenet/val/"

    neutral = {"resize_first": False}

    source: Literal["all", "google", "flickr"] = "all"
    resize: Annotated[int, Range(ge=1)] = 256
    crop: Annotated[int, Range(ge=1)] = 224
    augmentation: Literal["random-crop", "random-resized-crop"] = "random-resized-crop"
    scale_min: Annotated[float, Range(gt=0, le=1)] = 0.08
    #: cut random resized crops out of the resized picture: other pixels, but packs are smaller and faster
    resize_first: bool = False
    ilsvrc: bool = True

    def _geometry(self) -> Geometry:
        scale = (self.scale_min, 1.0)
        return Geometry(self.crop, self.resize, self.augmentation, scale=scale, resize_first=self.resize_first)

    def _source(self) -> str:
        return self.source

    def _wants_ilsvrc(self) -> bool:
        return self.ilsvrc


class ImageNetVal(FileDataset):
    """The 50 000 validation pictures of ILSVRC12. Nothing is trained on them: they are WebVision's second test set."""

    slug = "imagenet-val"
    title = "ILSVRC12 validation"
    num_classes = 1000
    evaluation_only = True
    summary = "ILSVRC12 validation, 50 000 pictures, 1 000 classes; a test set only: the second one of webvision"
    layout = "imagenet/val/<wnid>/*.JPEG, or one of the other arrangements in use"
    PER_CLASS: ClassVar[int] = 50

    def load(self, root: Path | None) -> Loaded:
        hint = "it is delivered as second test set of webvision and webvision50 (field ilsvrc)"
        raise DataError("imagenet-val is a test set only", hint=hint, dataset=self.slug)

    def test_split(self, root: Path | None) -> Split:
        found = self._find(root)
        return file_split(found.images(Geometry(224, 256), self.slug), found.labels)

    def parts(self, root: Path | None) -> list[Finding]:
        return [part(lambda: self._find(root).folder, "pictures")]

    def check(self, root: Path | None) -> list[Finding]:
        found = self.parts(root)
        try:
            split = self.test_split(root)
        except DataError as error:
            return found if not found[0].ok else [*found, Finding(False, str(error))]
        bad = split.images.damaged()
        text = f"test: {len(split):,} pictures, {self.num_classes} classes, "
        return [*found, Finding(not bad, text + (f"{len(bad)} damaged; {bad[0][1]}" if bad else "none damaged"))]

    def _find(self, root: Path | None) -> Validation:
        return find_validation(
            places(root), wnids=None, classes=self.num_classes, total=self.num_classes, per_class=self.PER_CLASS,
            dataset=self.slug,
        )  # fmt: skip


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
