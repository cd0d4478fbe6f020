"""Data sets: one file per family. This module is the contract; numpy only, so that listing them is cheap.

A data set delivers official splits with *true* labels. What becomes of them (noise, validation split, what a method may
see) is decided by the harness in `bench.trial`, never here.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.fields import Configurable
from bench.registry import discover, lookup


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W], true labels int64 [N] in [0, K), groups int64 [N] in [0, G) or None."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Loaded:
    """A data set in memory. `val` is the official validation split, None where there is none."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    val: Split | None = None
    group_names: tuple[str, ...] | None = None
    #: true class -> confusable class, for asymmetric noise; classes that are absent keep their label
    confusions: dict[int, int] = field(default_factory=dict)
    pad: int = 1  # pixels of zero padding of the random crop
    flip: bool = False  # horizontal flips keep the label
    canonical: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shapes, pixels, labels, groups and order of all splits."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            for array in (split.images, split.labels, split.groups) if split else ():
                if array is not None:
                    digest.update(f"{array.dtype}{array.shape}".encode())
                    digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the training images on the [0, 1] scale."""
        pixels = self.train.images.astype(np.float64) / 255.0
        mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
        return tuple(float(m) for m in mean), tuple(float(max(s, 1e-3)) for s in std)


class Dataset(Configurable):
    """One data set with its options as fields. `revision` changes whenever the delivered arrays change."""

    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""
    revision: ClassVar[str] = "1"
    embedded: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    num_classes: ClassVar[int] = 0
    #: are there confusable classes, so that asymmetric noise is defined?
    confusable: ClassVar[bool] = False
    summary: ClassVar[str] = ""

    def load(self, root: Path | None) -> Loaded:
        """The arrays. `root` is the data folder; raises `DataError` when files are missing or wrong."""
        raise NotImplementedError


class DataError(Exception):
    """The environment lacks data, or has wrong data (exit code 3)."""


@functools.cache
def datasets() -> dict[str, type[Dataset]]:
    return discover("bench.data", Dataset)


def dataset_class(name: str) -> type[Dataset]:
    return lookup(datasets(), name, "dataset")


@functools.lru_cache(maxsize=2)
def _load_cached(name: str, canonical_params: str, root: str | None) -> Loaded:
    import json

    return dataset_class(name)(**json.loads(canonical_params)).load(Path(root) if root else None)


def load(identity: dict[str, Any], root: Path | None = None) -> Loaded:
    """The data set of a cell (`{"name", "revision", ...fields}`); the last two stay in memory between trials."""
    from bench.cell import canonical_json

    params = {key: value for key, value in identity.items() if key not in ("name", "revision")}
    return _load_cached(identity["name"], canonical_json(params), str(root) if root else None)
