"""Data sets: one file per family. This module is the contract; numpy only, so that listing them is cheap.

A data set delivers official splits with *true* labels. What becomes of them (noise, validation split, what a method may
see) is decided by the harness in `bench.trial`, never here.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.fields import Configurable
from bench.registry import discover, lookup

Labels = NDArray[np.int64]
#: mean and standard deviation per channel on the [0, 1] scale
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Split:
    """Images, true labels int64 [N] in [0, K), groups int64 [N] in [0, G) or None.

    Images are a uint8 array [N, C, H, W] (small: they live on the device) or `bench.data.files.FileImages` (large: an
    index only, decoded batch by batch).
    """

    images: Any
    labels: Labels
    groups: Labels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resident(self) -> bool:
        """Are all pixels in memory?"""
        return isinstance(self.images, np.ndarray)


@dataclass(frozen=True)
class Finding:
    """One line of `bench data check`: is it as it should be, and what was found (or is missing, and where it belongs).

    `facts` are the same as JSON values, for programs.
    """

    ok: bool
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


class _Deferred:
    """A dataclass field that may be given as a function without arguments, called when the value is first asked for."""

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.default
        value = instance.__dict__[self.key]
        if callable(value):
            value = instance.__dict__[self.key] = value()
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.key] = value


@dataclass(frozen=True)
class Loaded:
    """A data set that is ready to use. `val` is the official validation split, None where there is none.

    `train.labels` are the true labels where they are known (`true_labels_known`), else the delivered ones.
    `given_labels` are the training labels as delivered where they differ from the true ones: human or web noise.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    val: Split | None = None
    group_names: tuple[str, ...] | None = None
    #: true class -> confusable class, for asymmetric noise; classes that are absent keep their label
    confusions: dict[int, int] = field(default_factory=dict)
    pad: int = 1  # pixels of zero padding of the random crop
    flip: bool = False  # horizontal flips keep the label
    # These two may also be given as functions: checksums of all files take longer than loading them.
    canonical: bool = _Deferred(True)  # type: ignore[assignment]
    #: what is not canonical, or was skipped: one sentence each; goes into the record
    notes: tuple[str, ...] = _Deferred(())  # type: ignore[assignment]
    given_labels: Labels | None = None  # int64 [N], training labels as delivered
    true_labels_known: bool = True
    normalisation: Normalisation | None = None  # the literature's; None: computed from the training images
    top_k: tuple[int, ...] = (1,)
    test2: Split | None = None  # a second test set, and its name
    test2_name: str | None = None
    coarse_labels: Labels | None = None  # int64 [N], superclass of each training image, as the files say
    superclasses: tuple[int, ...] | None = None  # class -> superclass
    trusted: Labels | None = None  # int64 [T], training samples whose labels were verified by hand
    #: > 0: each epoch sees a new class-balanced subset of this size (`bench.data.clothing1m.epoch_subset`)
    epoch_size: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shapes, pixels, labels, groups and order of all splits, and over the given labels.

        For images in files, their `digest()` (relative paths, sizes in bytes, order) stands for the pixels.
        """
        digest = hashlib.sha256()

        def add(array: Any) -> None:
            if isinstance(array, np.ndarray):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
            elif array is not None:
                digest.update(b"files" + array.digest())

        for split in (self.train, self.val, self.test):
            for array in (split.images, split.labels, split.groups) if split else ():
                add(array)
        for name, extra in (("given", self.given_labels), ("test2", self.test2)):
            if extra is not None:
                digest.update(name.encode())
                for array in (extra.images, extra.labels, extra.groups) if isinstance(extra, Split) else (extra,):
                    add(array)
        return digest.hexdigest()

    @functools.cached_property
    def channel_statistics(self) -> Normalisation:
        """Mean and standard deviation per channel on the [0, 1] scale: `normalisation`, else of the training images."""
        if self.normalisation is not None:
            return self.normalisation
        images = self.train.images
        if images.size > _DIRECT:
            mean, std = _counted_statistics(images)
        else:
            pixels = images.astype(np.float64) / 255.0
            mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
        return tuple(float(m) for m in mean), tuple(float(max(s, 1e-3)) for s in std)


#: pixel values up to which statistics are taken from floats, in 16 times the memory; beyond, the last bits differ
_DIRECT = 1 << 23
_BLOCK = 1 << 20


def _counted_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel on the [0, 1] scale from the counts of the 256 levels, block by block."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    step = max(1, _BLOCK // max(1, images[0].size))
    for start in range(0, len(images), step):
        for channel, values in enumerate(images[start : start + step].swapaxes(0, 1)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels, share = np.arange(256) / 255.0, counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    return mean, np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))


class Dataset(Configurable):
    """One data set with its options as fields. `revision` changes whenever the delivered arrays change."""

    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""
    revision: ClassVar[str] = "1"
    embedded: ClassVar[bool] = False
    #: a test set only: `load` refuses, nothing can be trained on it
    evaluation_only: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    num_classes: ClassVar[int] = 0
    #: is the true label of every training sample known? May be a property, where the options tell
    truth_known: ClassVar[bool] = True
    #: are there confusable classes, so that asymmetric noise is defined?
    confusable: ClassVar[bool] = False
    #: the confusable class of each class, where `confusable`; classes that are absent keep their label
    confusions: ClassVar[dict[int, int]] = {}
    #: class -> superclass, where the data set has them
    superclasses: ClassVar[tuple[int, ...]] = ()
    #: slug of the data set whose training pictures these are, where only labels differ; "" where they are its own
    pictures: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    #: the files that are expected below the data folder, in one line; "" for embedded sets
    layout: ClassVar[str] = ""

    def load(self, root: Path | None) -> Loaded:
        """The arrays. `root` is the data folder, as `data_root`; raises `DataError` when files are missing or wrong."""
        raise NotImplementedError

    def check(self, root: Path | None) -> list[Finding]:
        """What is found below `root`, what is missing and where it belongs; never raises for faults of the data."""
        try:
            data = self.load(root)
        except DataError as error:
            return [Finding(False, str(error))]
        return describe_loaded(data)

    def unmet(self, need: str) -> str | None:
        """Why a method that declares this need cannot be trained here, as far as that is known without the files."""
        if need in ("noise_rate", "transition_matrix") and not self.truth_known:
            return f"the true labels of {self.slug} are not known"
        if need == "groups" and not self.grouped:
            return f"{self.slug} has no groups"
        return None

    @classmethod
    def planned(cls, params: dict[str, Any], root: Path | None) -> dict[str, Any]:
        """`params` with what only the files can tell, for a cell's identity; called once, when a suite is planned."""
        return params


class DataError(Exception):
    """The environment lacks data, or has wrong data (exit code 3).

    `DataError(what, where=file or file:line, hint=what would be valid, dataset=slug)` says all of it in one line, with
    the command that examines the data set. The slug may be followed by the options of that command.
    """

    def __init__(self, what: str, *, where: Any = "", hint: str = "", dataset: str = "") -> None:
        text = f"{where}: {what}" if where else what
        text += f" ({hint})" if hint else ""
        text += f"; see: bench data check {dataset}" if dataset else ""
        text += " --root DIR" if dataset and " --root " not in dataset else ""
        super().__init__(text)


def data_root(root: Path | str | None = None) -> Path:
    """The data folder: the argument, else the environment's `BENCH_DATA`, else `data` in the working directory."""
    return Path(root or os.environ.get("BENCH_DATA") or "data")


def describe_loaded(data: Loaded) -> list[Finding]:
    """Counts per split, class and group, notes and the fingerprint of a data set that could be loaded."""
    found = []
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test), (data.test2_name, data.test2)):
        if split is None:
            continue
        shape = "x".join(str(side) for side in split.images.shape[-3:])
        counts = np.bincount(split.labels, minlength=data.num_classes)
        text = f"{name}: {len(split):,} images {shape}; per class {_counts_text(data.class_names, counts)}"
        if split.groups is not None:
            names = data.group_names or ()
            text += f"; per group {_counts_text(names, np.bincount(split.groups, minlength=len(names)))}"
        empty = [data.class_names[c] for c in np.flatnonzero(counts == 0)]
        text += f"; no image of {', '.join(empty)}" if empty else ""
        found.append(Finding(not empty, text, {"splits": {name: _facts(data, split, counts)}}))
    if data.given_labels is not None and data.true_labels_known:
        wrong = int((data.given_labels != data.train.labels).sum())
        text = f"given labels: {wrong:,} of {len(data.train):,} are wrong, {wrong / len(data.train):.2%}"
        found.append(Finding(True, text, {"given": {"wrong": wrong, "rate": wrong / len(data.train)}}))
    found += [Finding(True, note, {"notes": [note]}) for note in data.notes]
    text = f"fingerprint {data.fingerprint} ({'canonical' if data.canonical else 'not canonical'})"
    found.append(Finding(True, text, {"fingerprint": data.fingerprint, "canonical": data.canonical}))
    return found


def _facts(data: Loaded, split: Split, counts: NDArray[np.int64]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "images": len(split), "shape": [int(side) for side in split.images.shape[-3:]],
        "classes": dict(zip(data.class_names, counts.tolist(), strict=True)),
    }  # fmt: skip
    if split.groups is not None:
        names = data.group_names or ()
        facts["groups"] = dict(zip(names, np.bincount(split.groups, minlength=len(names)).tolist(), strict=True))
    return facts


def _counts_text(names: tuple[str, ...], counts: NDArray[np.int64]) -> str:
    if len(counts) > 12:
        low, high = counts.min(), counts.max()
        return (f"{low:,}" if low == high else f"{low:,} to {high:,}") + f" ({len(counts)} classes)"
    return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=False))


@functools.cache
def datasets() -> dict[str, type[Dataset]]:
    return discover("bench.data", Dataset)


def dataset_class(name: str) -> type[Dataset]:
    return lookup(datasets(), name, "dataset")


@functools.lru_cache(maxsize=2)
def _load_cached(name: str, canonical_params: str, root: str | None) -> Loaded:
    import json

    dataset = dataset_class(name)(**json.loads(canonical_params))
    try:
        data = dataset.load(Path(root) if root else None)
        if root:
            from bench.data.packed import attach

            attach(data, Path(root))
        return data
    except DataError as error:
        if dataset.embedded or "bench data check" in str(error):
            raise
        raise DataError(str(error), dataset=name) from error  # raised by a reader that serves several data sets


def load(identity: dict[str, Any], root: Path | None = None) -> Loaded:
    """The data set of a cell (`{"name", "revision", ...fields}`); the last two stay in memory between trials."""
    from bench.cell import canonical_json

    params = {key: value for key, value in identity.items() if key not in ("name", "revision")}
    place = None if dataset_class(identity["name"]).embedded else str(data_root(root))
    return _load_cached(identity["name"], canonical_json(params), place)
