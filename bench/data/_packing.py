"""Writing packs (see `bench.data.packed`): what `bench data pack` does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.data import DataError, data_root, dataset_class
from bench.data.files import FileImages, pool
from bench.data.packed import BLOCK, FOLDER, MAGIC, ROW, VERSION, Pack, Place, content_of, made_with, packed_picture, places
from bench.fields import FieldError

Progress = Callable[[int], object]
_SAMPLE = 64  # pictures that are decoded to estimate the size
_AHEAD = 32  # blocks that are decoded ahead of writing; about 10 MB each


@dataclass(frozen=True)
class Job:
    """A pack to write. `there`: it exists and can be used. `fault`: it exists and cannot be used, and is replaced."""

    place: Place
    need: int  # bytes, estimated
    there: bool = False
    fault: str = ""

    def write(self, progress: Progress = lambda count: None) -> Pack:
        """Write it under a temporary name, flush, rename. Interrupted, it leaves nothing; see `_write`."""
        return _write(self.place, progress)


def jobs(name: str, root: Path | str | None, params: Mapping[str, Any], form: str) -> list[Job]:
    """One job per split in files. Raises `FieldError` where there is nothing to pack, `DataError` for too little space."""
    top, cls = data_root(root), dataset_class(name)
    data = cls(**params).load(None if cls.embedded else top)
    found = []
    for choice in places(data, top):
        content = content_of(choice[0].images.geometry, form)
        found.append(_job(next(place for place in choice if place.content == content)))
    if not found:
        raise FieldError("dataset", f"the pictures of {name} are kept in memory", "there is nothing to pack")
    _expect_space(found, top, form)
    return found


def _job(place: Place) -> Job:
    need, fault = _estimate(place.images, place.content), ""
    if place.path.exists():
        try:
            Pack(place.path).verify(place.images, place.content)
            return Job(place, need, there=True)
        except DataError as error:
            fault = str(error)
    return Job(place, need, fault=fault)


def _estimate(images: FileImages, content: str) -> int:
    """Bytes of a pack, from pictures evenly spaced over the list."""
    sample = np.unique(np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(np.int64)).tolist()
    packed = sum(len(packed_picture(images, position, content)[0]) for position in sample)
    return round(packed / max(1, len(sample)) * len(images)) + len(images) * (ROW.itemsize + 2)


def _expect_space(found: list[Job], top: Path, form: str) -> None:
    need = sum(job.need for job in found if not job.there)
    where = top / FOLDER if (top / FOLDER).exists() else top
    free = shutil.disk_usage(where).free
    if need > 0.98 * free:
        what = f"packing needs about {gib(need)}, {gib(free)} are free"
        hint = f"free some, or let {top / FOLDER} be a link to another disk"
        if form == "raw":
            encoded = sum(int(job.place.images.sizes().sum()) for job in found if not job.there)
            hint += f"; --format encoded needs {gib(encoded)}"
        raise DataError(what, where=where, hint=hint)


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _write(place: Place, progress: Progress) -> Pack:
    """The pack, complete and flushed, or nothing: also after Ctrl-C, a full disk or a picture that cannot be decoded.

    A process that is killed leaves a hidden `.tmp` file, which `bench data check` names and no reader looks at.
    """
    path, temporary = place.path, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            _fill(file, place, progress)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            what = f"could not be written: {error.strerror or error}"
            raise DataError(what, where=path, hint="nothing was left behind", dataset=place.images.dataset) from error
        raise
    return Pack(path)


def _fill(file: BinaryIO, place: Place, progress: Progress) -> None:
    rows, sums, end = np.zeros(len(place.images), ROW), [], len(MAGIC)
    file.write(MAGIC)
    done = 0
    for content, part, checksum in _blocks(place.images, place.content):
        file.write(content)
        part["start"] = end + np.cumsum(part["length"], dtype=np.int64) - part["length"]
        rows[done : done + len(part)] = part
        sums.append(checksum)
        done, end = done + len(part), end + len(content)
        progress(len(part))
    tables = rows.tobytes() + b"".join(sums)
    header = {
        "version": VERSION, "dataset": place.images.dataset, "split": place.split, "content": place.content,
        "count": len(rows), "pictures": place.images.digest().hex(), "end": end,
        "tables": hashlib.sha256(tables).hexdigest(), "made_with": made_with(),
    }  # fmt: skip
    text = json.dumps(header).encode()
    file.write(tables + text + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + MAGIC)


Block = tuple[bytes, np.ndarray, bytes]


def _blocks(images: FileImages, content: str) -> Iterator[Block]:
    """Content, rows and SHA-256 of each block in turn, made in threads a little ahead."""
    waiting: deque[Future[Block]] = deque()
    try:
        for start in range(0, len(images), BLOCK):
            waiting.append(pool().submit(_block, images, content, range(start, min(start + BLOCK, len(images)))))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for job in waiting:
            job.cancel()


def _block(images: FileImages, content: str, positions: range) -> Block:
    rows, parts = np.zeros(len(positions), ROW), []
    for slot, position in enumerate(positions):
        data, height, width = packed_picture(images, position, content)
        rows[slot] = (0, len(data), height, width, zlib.crc32(data))
        parts.append(data)
    joined = b"".join(parts)
    return joined, rows, hashlib.sha256(joined).digest()
