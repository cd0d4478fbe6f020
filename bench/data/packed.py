"""Packs: the pictures of one split in one file, so that a run opens one file and need not decode. They never change a result.

A pack holds what training and evaluation alike begin with. `raw`: decoded pixels, already resized where the geometry resizes
before it crops (`Geometry.resizes_first`), and of the full size where training cuts out of the picture as it is. `encoded`:
the files as they are, byte for byte. So what a pack delivers is equal to the last bit to what the files deliver.

The file: magic, contents of the pictures one after the other, a row of `ROW` per picture, a SHA-256 per `BLOCK` pictures, the
header (JSON), its length and SHA-256, magic again. The header comes last and the name appears last: a pack that was cut short
is recognised. Sizes and checksums of the header and the tables are verified when a pack is opened, the checksum of a picture
whenever it is read. Positional reads instead of a memory map: a fault of the disk is then an error with a name, not a signal.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError, Dataset, Finding, Loaded
from bench.data.files import FileImages, Geometry, pool
from bench.fields import FieldError

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"bench-pack\r\n\x1a\n"
VERSION = 1
#: pictures under one SHA-256
BLOCK = 16
#: where a picture begins in the file, its bytes, its size in pixels (0 where it is encoded), and its CRC-32
ROW = np.dtype([("start", "<i8"), ("length", "<u4"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])
SUM = 32  # bytes of a SHA-256
TAIL = 8 + SUM + len(MAGIC)
FOLDER = "packed"
ENCODED, PIXELS = "encoded", "pixels"
_PROBES = 8  # pictures that are compared with their files when a pack is opened


def content_of(geometry: Geometry, form: str) -> str:
    """What a pack of that form ("raw" or "encoded") holds for a geometry: `encoded`, `pixels`, or the size resized to."""
    if form == ENCODED:
        return ENCODED
    if not geometry.resizes_first:
        return PIXELS
    size = geometry.resize if isinstance(geometry.resize, int) else "x".join(map(str, geometry.resize))
    return f"resized-{size}" if geometry.centre_first is None else f"centre-{geometry.centre_first}-resized-{size}"


def pack_path(images: FileImages, split: str, root: Path, content: str) -> Path:
    """Where the pack of these pictures belongs: the name holds a hash over their relative paths, in order."""
    digest = hashlib.sha256()
    for path in images.paths:
        digest.update(path + b"\n")
    return root / FOLDER / images.dataset / f"{split}-{content}-{digest.hexdigest()[:12]}.pack"


def file_splits(data: Loaded) -> Iterator[tuple[str, FileImages]]:
    """(name, pictures) of the splits that are in files."""
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test), ("test2", data.test2)):
        if split is not None and isinstance(split.images, FileImages):
            yield name, split.images


class Pack:
    """An open pack. Raises `DataError` when the file is cut short, damaged, or of another version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise self._fault(f"cannot be opened: {error.strerror}") from None
        weakref.finalize(self, os.close, self._file)
        self.header = self._read_header()
        self.split: str = self.header["split"]
        self.content_kind: str = self.header["content"]
        self.encoded = self.content_kind == ENCODED
        count, end = self.header["count"], self.header["end"]
        tables = self._read(end, count * ROW.itemsize + -(-count // BLOCK) * SUM)
        if hashlib.sha256(tables.data).hexdigest() != self.header["tables"]:
            raise self._fault("the table of pictures is damaged")
        self._rows = np.frombuffer(tables, ROW, count)
        self._sums = tables[count * ROW.itemsize :]

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.path,)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of host memory that the tables take."""
        return self._rows.nbytes + len(self._sums)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return os.fstat(self._file).st_size

    def rest(self, geometry: Geometry) -> Geometry:
        """What is left to do with a picture of this pack; resizing to the size it has changes nothing."""
        return geometry if self.content_kind in (ENCODED, PIXELS) else replace(geometry, centre_first=None)

    # -- pictures -----------------------------------------------------------------------------------------------------
    def content(self, row: int) -> bytes:
        """The content of a picture; `DataError` unless it is what was written."""
        return self._content(row).tobytes()

    def pixels(self, row: int) -> Tensor:
        """A raw picture as uint8 [3, H, W], channels last in memory."""
        import torch

        shape = int(self._rows["height"][row]), int(self._rows["width"][row]), 3
        return torch.from_numpy(self._content(row).reshape(shape)).permute(2, 0, 1)

    def _content(self, row: int) -> NDArray[np.uint8]:
        start, length, _, _, crc = self._rows[row].item()
        data = self._read(start, length)
        if zlib.crc32(data.data) != crc:
            raise self._fault(f"picture {row:,} of {len(self):,} is damaged")
        return data

    def damaged(self) -> list[int]:
        """Blocks of `BLOCK` pictures whose SHA-256 is not the one that was written; reads the whole file."""
        blocks = range(-(-len(self) // BLOCK))
        return [block for block, whole in zip(blocks, pool().map(self._whole, blocks), strict=True) if not whole]

    def _whole(self, block: int) -> bool:
        rows = self._rows[block * BLOCK : (block + 1) * BLOCK]
        start = int(rows["start"][0])
        data = self._read(start, int(rows["length"].sum(dtype=np.int64)))
        return hashlib.sha256(data.data).digest() == self._sums[block * SUM : (block + 1) * SUM].tobytes()

    # -- trust --------------------------------------------------------------------------------------------------------
    def verify(self, images: FileImages, content: str, *, pictures: int = _PROBES) -> Pack:
        """This pack, if it holds these pictures: `DataError` when a file has changed, or some now decode differently.

        Paths and sizes of all files are compared with those at the time of packing, and the pixels of some `pictures`,
        evenly spaced, with those of their files: another Pillow or torch may decode or resize to other pixels.
        """
        if self.content_kind != content or len(self) != len(images):
            raise self._fault(f"it holds {len(self):,} pictures ({self.content_kind}), not {len(images):,} ({content})")
        if self.header["pictures"] != images.digest().hex():
            raise self._fault("files have changed since their pictures were packed")
        for row in np.unique(np.linspace(0, len(self) - 1, min(pictures, len(self))).astype(np.int64)).tolist():
            data, height, width = packed_picture(images, row, content)
            wanted = (len(data), height, width, data)
            _, length, tall, wide, _ = self._rows[row].item()
            if (length, tall, wide, self.content(row)) != wanted:
                then = self.header["made_with"]
                changed = "" if then == made_with() else f"; packed with {_listed(then)}, this is {_listed(made_with())}"
                raise self._fault(f"picture {row:,} is not that of {images.path(row)}{changed}")
        return self

    def _read_header(self) -> dict[str, Any]:
        size = os.fstat(self._file).st_size
        if size < len(MAGIC) + TAIL or self._read(0, len(MAGIC)).tobytes() != MAGIC:
            raise self._fault("this is not a pack, or it was cut short")
        tail = self._read(size - TAIL, TAIL).tobytes()
        length = int.from_bytes(tail[:8], "little")
        if tail[8 + SUM :] != MAGIC or length > size - TAIL - len(MAGIC):
            raise self._fault("the file was cut short")
        text = self._read(size - TAIL - length, length).tobytes()
        if hashlib.sha256(text).digest() != tail[8 : 8 + SUM]:
            raise self._fault("the header is damaged")
        header: dict[str, Any] = json.loads(text)
        if header["version"] != VERSION:
            raise self._fault(f"this is a pack of version {header['version']}, not {VERSION}")
        tables = header["count"] * ROW.itemsize + -(-header["count"] // BLOCK) * SUM
        if size != header["end"] + tables + length + TAIL:
            raise self._fault(f"the file has {size:,} bytes instead of {header['end'] + tables + length + TAIL:,}")
        return header

    def _read(self, start: int, length: int) -> NDArray[np.uint8]:
        """Exactly these bytes."""
        data = np.empty(length, dtype=np.uint8)
        done = 0
        while done < length:  # the kernel reads 2 GiB at most at a time
            try:
                got = os.preadv(self._file, [data[done:].data], start + done)
            except OSError as error:
                raise self._fault(f"cannot be read: {error.strerror}") from None
            if got == 0:
                raise self._fault("the file was cut short")
            done += got
        return data

    def _fault(self, what: str) -> DataError:
        dataset = self.path.parent.name
        hint = f"delete this file: then the pictures are read one by one, or bench data pack {dataset} --root DIR packs them anew"
        return DataError(what, where=self.path, hint=hint, dataset=dataset)


def packed_picture(images: FileImages, position: int, content: str) -> tuple[bytes, int, int]:
    """(content, height, width) of one picture as a pack holds it; height and width are 0 where it stays encoded."""
    if content == ENCODED:
        images.decoded(position)  # a pack holds no picture that cannot be decoded
        return Path(images.path(position)).read_bytes(), 0, 0
    picture = images.decoded(position)
    if content != PIXELS:
        picture = images.geometry.resized(picture)
    return picture.permute(1, 2, 0).contiguous().numpy().tobytes(), picture.shape[1], picture.shape[2]


def made_with() -> dict[str, str]:
    """Versions of what decides pixels."""
    from importlib.metadata import version

    return {name: version(name) for name in ("pillow", "torch")}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


# -- use --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a pack of a split may be, and what it would hold."""

    split: str
    images: FileImages
    content: str
    path: Path


def places(data: Loaded, root: Path) -> Iterator[list[Place]]:
    """For each split in files the places that serve its geometry, the fastest first."""
    for split, images in file_splits(data):
        contents = dict.fromkeys((content_of(images.geometry, "raw"), PIXELS, ENCODED))
        path = pack_path(images, split, root, ENCODED)
        yield [Place(split, images, c, path.with_name(path.name.replace(ENCODED, c, 1))) for c in contents]


def attach(data: Loaded, root: Path) -> None:
    """Let the splits of a data set read from their packs below `root`, where there are any.

    Raises `DataError` for a pack that cannot be trusted. Warns where the same pictures are packed in another size only.
    """
    if not (root / FOLDER).is_dir():
        return
    for choice in places(data, root):
        found = next((place for place in choice if place.path.exists()), None)
        if found is not None:
            found.images.read_from(Pack(found.path).verify(found.images, found.content))
            continue
        images, path = choice[0].images, choice[0].path
        others = sorted(path.parent.glob(f"{choice[0].split}-*-{path.stem.rpartition('-')[2]}.pack"))
        if others:
            what = f"{others[0]} does not hold the pictures as this setting needs them ({choice[0].content}): files are read"
            warnings.warn(f"{what}; bench data pack {images.dataset} with the same --set packs them", stacklevel=2)


def examine(dataset: Dataset, root: Path, *, deep: bool = False) -> list[Finding]:
    """One finding per pack of the data set; `deep` verifies every block and compares 512 pictures with their files."""
    folder = root / FOLDER / dataset.slug
    if not folder.is_dir():
        return []
    found = []
    for left in sorted(folder.glob(".*.tmp")):
        found.append(Finding(True, f"{left} is being written now, or an interrupted `bench data pack` left it: then delete it"))
    try:
        choices = list(places(dataset.load(root), root))
    except (DataError, FieldError):
        return found  # `check` has said so
    return found + [_examined(place, deep) for choice in choices for place in choice if place.path.exists()]


def _examined(place: Place, deep: bool) -> Finding:
    try:
        pack = Pack(place.path).verify(place.images, place.content, pictures=512 if deep else _PROBES)
        bad = pack.damaged() if deep else []
    except DataError as error:
        return Finding(False, str(error))
    what = f"{place.split}: packed ({place.content}), {len(pack):,} pictures, {pack.size / 2**30:.2f} GiB, {place.path}"
    if bad:
        first = f"the first holds the pictures from {bad[0] * BLOCK:,} on"
        return Finding(False, f"{what}: {len(bad):,} blocks are damaged, {first}; delete the file and pack it anew")
    return Finding(True, what + (", every block intact" if deep else "; --deep verifies every block"))
