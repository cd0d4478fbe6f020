"""What Waterbirds and CelebA share: two classes, four groups, official counts, and corrupted label files beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Loaded
from bench.data._folder import IMAGENET, Counts, FileDataset, file_split, first_existing
from bench.data.files import FileImages
from bench.fields import Range

SPLITS = ("train", "val", "test")


class GroupedDataset(FileDataset):
    """Binary labels y, a binary attribute a, groups 2 * y + a, and official splits 0 train, 1 val, 2 test."""

    grouped = True
    num_classes = 2
    confusable = True
    confusions: ClassVar[dict[int, int]] = {0: 1, 1: 0}
    exhaustive = True

    #: pictures per group of each split
    OFFICIAL: ClassVar[Counts] = {}
    #: counts of other versions in circulation, by a name
    VARIANTS: ClassVar[dict[str, Counts]] = {}
    #: what to do about a wrong version
    REMEDY: ClassVar[str] = ""
    class_names: ClassVar[tuple[str, ...]] = ()
    group_names: ClassVar[tuple[str, ...]] = ()

    #: take the training labels from the file that the script of the LLC-DRO authors writes for this rate of flips
    corrupted_rate: Annotated[float | None, Range(gt=0, lt=1)] = None
    #: SHA-256 of those labels, one byte each; filled in when a suite is planned, because the script is not seeded
    corrupted_sha256: str = ""

    @classmethod
    def planned(cls, params: dict[str, Any], root: Path | None) -> dict[str, Any]:
        if params.get("corrupted_rate") is None or params.get("corrupted_sha256"):
            return params
        given = cls(**params).load(root).given_labels
        return params if given is None else {**params, "corrupted_sha256": _sha256(given)}

    def corrupted_file(self, folder: Path) -> Path:
        """The file of corrupted labels, which must exist."""
        hint = "the script generate_noise.py of the LLC-DRO authors writes it; or use the noise kind uniform-flip"
        return first_existing([folder / self.corrupted_name], "the label file", self.slug, hint)

    @property
    def corrupted_name(self) -> str:
        raise NotImplementedError

    def verify_groups(self, groups: NDArray[np.int64], split: NDArray[np.int64], where: Path) -> None:
        """`DataError` unless all splits have the official groups; a version in circulation is refused by its name."""
        counts = {name: tuple(np.bincount(groups[split == i], minlength=4).tolist()) for i, name in enumerate(SPLITS)}
        if counts == self.OFFICIAL:
            return
        for name, variant in self.VARIANTS.items():
            if counts == variant:
                what = f"this is {name}, not the official {self.title}"
                raise DataError(what, where=where, hint=self.REMEDY, dataset=self.slug)
        wrong = [name for name in SPLITS if counts[name] != self.OFFICIAL[name]]
        differ = ", ".join(f"{name} {_slashed(counts[name])} instead of {_slashed(self.OFFICIAL[name])}" for name in wrong)
        only_labels = wrong == ["train"] and sum(counts["train"]) == sum(self.OFFICIAL["train"])
        hint = f"are these corrupted training labels? They belong in {self._example}" if only_labels else self.REMEDY
        raise DataError(f"group counts are not official: {differ}", where=where, hint=hint, dataset=self.slug)

    @property
    def _example(self) -> str:
        return type(self)(corrupted_rate=0.3).corrupted_name

    def assemble(
        self,
        images: FileImages,
        y: NDArray[np.int64],
        groups: NDArray[np.int64],
        split: NDArray[np.int64],
        *,
        flip: bool,
        canonical: bool,
        note: str,
        given: NDArray[np.int64] | None,
    ) -> Loaded:
        """The data set from columns over all pictures; `given` are the corrupted labels, `note` says what is not canonical."""
        parts = [split == number for number in range(3)]
        train, val, test = (file_split(images.take(chosen), y[chosen], groups[chosen]) for chosen in parts)
        notes = [] if canonical else [note]
        if given is not None:
            given = given[parts[0]]
            notes.append(self._compared(given, train.labels))
        return Loaded(
            train=train, val=val, test=test, class_names=self.class_names, group_names=self.group_names,
            confusions=dict(self.confusions), pad=0, flip=flip, normalisation=IMAGENET, given_labels=given,
            notes=tuple(notes), canonical=canonical,
        )  # fmt: skip

    def _compared(self, given: NDArray[np.int64], true: NDArray[np.int64]) -> str:
        """One sentence on the corrupted labels; `DataError` when they are not corrupted, or not those of the plan."""
        wrong, nominal = int((given != true).sum()), int((self.corrupted_rate or 0.0) * len(true))
        if wrong == 0:
            hint = "under pandas 3 the authors' script leaves the labels as they are"
            raise DataError("no training label differs", where=self.corrupted_name, hint=hint, dataset=self.slug)
        if self.corrupted_sha256 and self.corrupted_sha256 != _sha256(given):
            what = "the labels are not those that the suite was planned with"
            raise DataError(what, where=self.corrupted_name, hint="plan the suite again", dataset=self.slug)
        return f"{self.corrupted_name}: {wrong:,} training labels are flipped, the authors' script flips {nominal:,}"


def _sha256(labels: NDArray[np.int64]) -> str:
    return hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest()


def _slashed(counts: tuple[int, ...]) -> str:
    return "/".join(str(count) for count in counts)
