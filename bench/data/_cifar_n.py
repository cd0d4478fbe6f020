"""The human labels of CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022), and the check that they meet the right images.

Shared by the data sets `cifar10n-*`, `cifar100n-*` and by the noise kind `human`.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Labels, data_root
from bench.data._pickles import read_npy, read_pt


@dataclass(frozen=True)
class HumanSet:
    """One released label set: its name, the keys of its file, and what the release holds.

    `wrong` labels of `size` differ from the clean ones; `sha256` is over the labels as little-endian int64.
    """

    name: str
    base: str  # slug of the data set that has the images: cifar10 or cifar100
    keys: tuple[str, ...]  # as it is called in the files
    clean_keys: tuple[str, ...]
    num_classes: int
    wrong: int
    sha256: str
    size: int = 50_000


def _ten(name: str, key: str, wrong: int, sha256: str) -> HumanSet:
    return HumanSet(name, "cifar10", (key,), ("clean_label",), 10, wrong, sha256)


HUMAN_SETS = {
    human.name: human
    for human in (
        _ten("aggre", "aggre_label", 4_505, "b3c3d486d22c3055756e7b1b1a0e98b099c1d68b771633023b0f76fa2e09ede6"),
        _ten("random1", "random_label1", 8_617, "b5dc9007ae247a48ce267bec37a1310b0cd65ed73801ca7e595fb954902575a7"),
        _ten("random2", "random_label2", 9_061, "1182c45d3a24636640fe1e3743b9566b6fabe86b2ed14f6b8216799e209a0d4e"),
        _ten("random3", "random_label3", 8_820, "b51e116c617ded2c98be095ba8b3abae8adfa6caa54f7f6eedf50c7aed013d44"),
        _ten("worse", "worse_label", 20_104, "a64d887522cf6d8f4966912a1536ea2d890600929a8465a7f307cdca2501847b"),
        HumanSet(
            "fine", "cifar100", ("noisy_label", "noise_label"), ("clean_label",), 100, 20_100,
            "4a1efd5da7a214b299cf6ac0bafe3f0d48c065b7aa2d40aa185d4711714bb311",
        ),
        HumanSet(
            "coarse", "cifar100", ("noisy_coarse_label",), ("clean_coarse_label",), 20, 13_202,
            "e9bf8a7532d69a39e87e638082366b9466ad36cf76305612532d50fc94123d49",
        ),
    )
}  # fmt: skip

_STEMS = {"cifar10": "CIFAR-10_human", "cifar100": "CIFAR-100_human"}
_ORDERS = {"cifar10": "image_order_c10.npy", "cifar100": "image_order_c100.npy"}
_FOLDERS = ("cifar-n", "cifar-10-100n/data", "")


@dataclass(frozen=True)
class HumanLabels:
    """Human labels int64 [N] in the order of CIFAR's python batches; `wrong` of them differ from the true ones."""

    labels: Labels
    wrong: int
    file: Path
    canonical: bool
    notes: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.wrong / len(self.labels)


def human_labels(human: HumanSet, true_labels: Labels, root: Path | str | None = None) -> HumanLabels:
    """The labels of one human set for training images whose true labels (coarse ones for `coarse`) are `true_labels`.

    The clean labels in the file must equal `true_labels` at every index: this is what tells that file and images are in
    the same order. Raises `DataError` when they do not, or when the file is missing, damaged or of another length.
    """
    path = find_labels(human, root)
    arrays = _read(path)
    key = _key(path, arrays, human.keys, human.base)
    labels = _vector(path, key, arrays[key], human)
    clean_key = _key(path, arrays, human.clean_keys, human.base)
    clean = _vector(path, clean_key, arrays[clean_key], human)
    hint = ""
    if path.name.endswith("_ordered.npy"):
        order_file = path.parent / _ORDERS[human.base]
        hint = f"it is in TensorFlow-Datasets order: use {_STEMS[human.base]}.pt, or put {order_file.name} beside it"
        if order_file.exists():
            order = _order(order_file, human.size)
            labels, clean = _scattered(labels, order), _scattered(clean, order)
    _same_order(path, clean_key, clean, true_labels, hint)
    wrong = int((labels != true_labels).sum())
    canonical = hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest() == human.sha256
    note = f"{path.name}: {key!r} is not the released one ({wrong:,} labels are wrong, {human.wrong:,} in the release)"
    return HumanLabels(labels, wrong, path, canonical, () if canonical else (note,))


def find_labels(human: HumanSet, root: Path | str | None = None) -> Path:
    """The label file of a human set below the data folder; `DataError` says where it belongs."""
    top, stem = data_root(root), _STEMS[human.base]
    names = (f"{stem}.pt", "cifar-n.npz", f"{stem}.npy", f"{stem}_ordered.npy")
    for name in names:
        for folder in _FOLDERS:
            if (top / folder / name).is_file():
                return top / folder / name
    where = top / _FOLDERS[0] / names[0]
    raise DataError("the human labels are missing", where=where, hint="from github.com/UCSC-REAL/cifar-10-100n, data/")


@functools.lru_cache(maxsize=2)
def _cached(path: Path, size: int, changed: int) -> dict[str, Any]:
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"the file is damaged: {error}", where=path) from None
    found = read_pt(path) if path.suffix == ".pt" else read_npy(path)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DataError("the file holds no dict of label arrays", where=path)
    return found


def _read(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return _cached(path, stat.st_size, stat.st_mtime_ns)


def _key(path: Path, arrays: dict[str, Any], names: tuple[str, ...], base: str) -> str:
    """The key of the file that has one of these names; archives of both data sets put the data set's name before."""
    for name in names:
        for prefix in (f"{base}_", ""):
            if prefix + name in arrays:
                return prefix + name
    raise DataError(f"there is no {names[0]!r}", where=path, hint="it has " + ", ".join(sorted(arrays)))


def _vector(path: Path, key: str, values: Any, human: HumanSet) -> Labels:
    try:
        labels = np.asarray(values)
    except ValueError:
        labels = np.empty((0, 0))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{key!r} is no vector of whole numbers", where=path)
    if len(labels) != human.size:
        raise DataError(f"{key!r} has {len(labels):,} labels, not {human.size:,}", where=path)
    labels = labels.astype(np.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= human.num_classes))
    if len(outside):
        what = f"{key!r} has the label {labels[outside[0]]} at index {outside[0]}"
        raise DataError(what, where=path, hint=f"valid: 0 to {human.num_classes - 1}")
    return labels


def _order(path: Path, size: int) -> NDArray[np.int64]:
    order = np.asarray(read_npy(path))
    if order.shape != (size,) or order.dtype.kind not in "iu" or (np.sort(order) != np.arange(size)).any():
        raise DataError(f"the file holds no permutation of {size:,} indices", where=path)
    return order.astype(np.int64)


def _scattered(values: Labels, order: NDArray[np.int64]) -> Labels:
    """From the order of TensorFlow Datasets to that of the python batches: `order[i]` is where the i-th belongs."""
    result = np.empty_like(values)
    result[order] = values
    return result


def _same_order(path: Path, key: str, clean: Labels, true: Labels, hint: str) -> None:
    if len(clean) != len(true):
        raise DataError(f"{key!r} has {len(clean):,} labels for {len(true):,} training images", where=path)
    different = np.flatnonzero(clean != true)
    if not len(different):
        return
    first = different[0]
    if np.array_equal(np.bincount(clean), np.bincount(true)):
        cause = "the classes are equally large, so the order differs: one of the two is in TensorFlow-Datasets order"
    else:
        cause = "the class sizes differ, so the labels belong to other images"
    what = f"{key!r} is {clean[first]} at index {first}, but that training image is of class {true[first]}"
    raise DataError(f"{what}; {len(different):,} of {len(true):,} differ", where=path, hint=hint or cause)
