"""What the data sets of files share: finding their folder, reading their lists strictly, and `check`."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Finding, Loaded, Split, data_root, describe_loaded
from bench.data.files import FileImages, Paths

#: mean and standard deviation per channel of ImageNet, as torchvision's models want them
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Counts = dict[str, tuple[int, ...]]


class FileDataset(Dataset):
    """A data set of picture files. `check` says in addition which pictures are missing, damaged or not listed."""

    #: are all files in the folders of listed pictures listed, so that others are extra?
    exhaustive: ClassVar[bool] = False

    def parts(self, root: Path | None) -> list[Finding]:
        """One finding for each file or folder that is needed: where it is, or where it belongs."""
        raise NotImplementedError

    def check(self, root: Path | None) -> list[Finding]:
        found = self.parts(root)
        try:
            data = self.load(root)
        except DataError as error:
            return [*found, Finding(False, str(error))]
        return [*found, *describe_loaded(data), *check_pictures(data, self.exhaustive)]


def check_pictures(data: Loaded, exhaustive: bool) -> list[Finding]:
    """Are all pictures of a data set whole, and are there others beside them?"""
    named = {"train": data.train, "val": data.val, "test": data.test, data.test2_name or "test2": data.test2}
    found = []
    everything = []
    for name, split in named.items():
        if split is None or not isinstance(split.images, FileImages):
            continue
        everything.append(split.images)
        bad = split.images.damaged()
        gib = split.images.sizes().sum() / 2**30
        text = f"{name}: {len(split):,} picture files, {gib:.2f} GiB, "
        found.append(Finding(not bad, text + (f"{len(bad):,} damaged; {bad[0][1]}" if bad else "none damaged")))
    if exhaustive:
        extra = extra_files(everything)
        example = f", for example {extra[0]}" if extra else ""
        found.append(Finding(not extra, f"{len(extra):,} picture files that are not listed{example}"))
    return found


def extra_files(indexes: Sequence[FileImages]) -> list[str]:
    """Files with an image suffix in the folders of listed pictures that no index lists."""
    listed = {os.fsencode(images.path(i)) for images in indexes for i in range(len(images))}
    found = []
    for folder in sorted({os.path.dirname(path) for path in listed}):
        with os.scandir(folder) as entries:
            found += [e.path for e in entries if is_picture(e.name) and e.path not in listed and e.is_file()]
    return sorted(os.fsdecode(path) for path in found)


def is_picture(name: bytes | str) -> bool:
    name = os.fsencode(name)
    return name.lower().endswith((b".jpg", b".jpeg", b".png")) and not name.startswith(b".")


# -- finding things ---------------------------------------------------------------------------------------------------


def find(root: Path | None, folders: Sequence[str], markers: Sequence[str], dataset: str) -> Path:
    """The first of `folders` (below the data folder; "" is the data folder) that holds one of `markers`."""
    base = data_root(root)
    for folder in folders:
        if any((base / folder / marker).exists() for marker in markers):
            return base / folder
    wanted = f"expected {folders[0]}/{markers[0]} below it"
    raise DataError(f"{dataset} is not here", where=base, hint=wanted, dataset=dataset)


def first_existing(candidates: Sequence[Path], what: str, dataset: str, hint: str = "") -> Path:
    """The first path that exists; `DataError` saying what is missing and where it belongs."""
    for path in candidates:
        if path.exists():
            return path
    others = f"or {', '.join(str(path) for path in candidates[1:])}" if len(candidates) > 1 else ""
    raise DataError(f"{what} is missing", where=candidates[0], hint="; ".join(filter(None, (others, hint))), dataset=dataset)


def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` from above, in order of name, linked folders too. A link to a folder that it lies in is passed over: what is
    there has been or will be seen, and it would go round in circles."""
    above: dict[str, tuple[str, ...]] = {os.fspath(folder): (os.path.realpath(folder),)}
    for place, folders, names in os.walk(folder, followlinks=True):
        way = above.pop(place)
        below: dict[str, tuple[str, ...]] = {}
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if not any(outer == real or outer.startswith(real + os.sep) for outer in way):
                below[name] = (*way, real)
        folders[:] = below
        yield place, folders, sorted(names)
        above.update((os.path.join(place, name), below[name]) for name in folders)


def part(find_it: object, what: str) -> Finding:
    """A finding from a function that returns a path or raises `DataError`."""
    try:
        return Finding(True, f"{what}: {find_it()}")  # type: ignore[operator]
    except DataError as error:
        return Finding(False, str(error))


# -- reading lists ----------------------------------------------------------------------------------------------------


def numbered_lines(path: Path, dataset: str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line without its end). Blank lines are errors, except at the end. CR LF is tolerated."""
    blank = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip()
                if not line:
                    blank = blank or number
                    continue
                if blank:
                    raise DataError("a blank line in the middle of the list", where=f"{path}:{blank}", dataset=dataset)
                yield number, line
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, dataset=dataset) from None


def safe_path(text: bytes, where: str, dataset: str) -> bytes:
    """The path of a list; one that leads out of the data set's folder is an error."""
    if not text or text.startswith(b"/") or (b".." in text and b".." in text.split(b"/")):
        shown = text.decode(errors="replace")
        raise DataError(f"{shown!r} is not a path below the data set's folder", where=where, dataset=dataset)
    return text


def integer(text: bytes | str, classes: int, what: str, where: str, dataset: str) -> int:
    """A number in 0..classes-1."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < classes:
        shown = text.decode(errors="replace") if isinstance(text, bytes) else text
        raise DataError(f"{what} {shown!r} is out of range", where=where, hint=f"must be in 0..{classes - 1}", dataset=dataset)
    return value


@dataclass(frozen=True)
class Listed:
    """The content of a list: paths, labels int64 [N], line of each int32 [N] (from 1); `total` lines in the file."""

    file: Path
    paths: Paths
    labels: NDArray[np.int64]
    lines: NDArray[np.int32]
    total: int


def read_labelled(path: Path, *, dataset: str, classes: int, below: int | None = None) -> Listed:
    """A list of `<path> <label>`, cut at the last blank; only labels less than `below` are kept."""
    labels, lines = array("q"), array("i")
    limit, total = classes if below is None else below, 0

    def kept() -> Iterator[bytes]:
        nonlocal total
        for number, line in numbered_lines(path, dataset):
            total = total + 1
            name, blank, text = line.rpartition(b" ")
            if not blank:
                shown = line[:80].decode(errors="replace")
                raise DataError(f"{shown!r} is not `<file> <label>`", where=f"{path}:{number}", dataset=dataset)
            label = integer(text, classes, "label", f"{path}:{number}", dataset)
            if label < limit:
                labels.append(label)
                lines.append(number)
                yield safe_path(name.rstrip(), f"{path}:{number}", dataset)

    paths = Paths.of(kept())
    return Listed(path, paths, np.array(labels, dtype=np.int64), np.array(lines, dtype=np.int32), total)


def read_keys(path: Path, *, dataset: str) -> Listed:
    """A list of paths, one per line; labels are empty."""
    found = Paths.of(safe_path(line, f"{path}:{number}", dataset) for number, line in numbered_lines(path, dataset))
    lines = np.arange(1, len(found) + 1, dtype=np.int32)
    return Listed(path, found, np.zeros(0, np.int64), lines, len(found))


def expect_count(found: int, official: int, what: str, where: Path, dataset: str) -> None:
    if found != official:
        wrong = "truncated" if found < official else "not the official list"
        raise DataError(f"{found:,} {what}, {wrong}", where=where, hint=f"official: {official:,}", dataset=dataset)


def refuse_duplicates(listed: Listed, dataset: str) -> None:
    """`DataError` naming both lines when a path is listed twice."""
    hashes = hashes_of(listed.paths)
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    for one, other in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
        if listed.paths[one] == listed.paths[other]:
            what = f"{listed.paths[other].decode(errors='replace')} is listed twice"
            where, hint = f"{listed.file}:{listed.lines[other]}", f"also in line {listed.lines[one]}"
            raise DataError(what, where=where, hint=hint, dataset=dataset)


def hashes_of(paths: Paths) -> NDArray[np.int64]:
    return np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))


def positions(wanted: Paths, table: Paths) -> NDArray[np.int64]:
    """Position of each wanted path in `table`, int64 [N], -1 where it is not there. Sorts hashes: no dictionary of a million."""
    if len(table) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    hashes = hashes_of(table)
    order = np.argsort(hashes)
    at = order[np.minimum(np.searchsorted(hashes, hashes_of(wanted), sorter=order), len(table) - 1)]
    same = np.fromiter((table[a] == name for a, name in zip(at.tolist(), wanted, strict=True)), dtype=bool, count=len(wanted))
    return np.where(same, at, -1)


def file_split(images: FileImages, labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None) -> Split:
    """A split whose files are all there; `DataError` naming the first one that is not."""
    images.sizes()
    return Split(images, labels, groups)
