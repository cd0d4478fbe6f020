"""Pictures in files: an index of relative paths, and pixels decoded batch by batch in threads.

`FileImages` takes the place of a uint8 array in `bench.data.Split` where pictures are too large or too many to keep in
memory. It holds about 20 bytes per file besides the path itself and never a pixel. What it delivers depends on the files, the
geometry and the given draws, never on the number of threads. Flips, colour and normalisation happen later, on the device.

Pillow decodes: torchvision's decoders, a little faster and equal to the last bit, are about to be removed from it. JPEGs
are decoded at full size (Pillow's draft mode would change pixels). Damage that libjpeg repairs is not noticed.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError
from bench.data._geometry import Geometry

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data.packed import Pack

__all__ = ["FileImages", "Geometry", "Paths", "decode", "set_threads"]

Index = NDArray[np.int64]
#: uniform numbers in [0, 1), [B, 4]; None stands for the evaluation transform
Draws = NDArray[np.float64] | None
#: (lowest, highest) share of the area per view
Scales = Sequence[tuple[float, float] | None] | None
_CHUNK = 8  # pictures per job: few enough to spread a batch, enough to hide the cost of a job
_threads: int | None = None
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def set_threads(count: int | None) -> None:
    """Threads that decode, shared by all data sets of this process; None: one per available core, at most 16."""
    global _threads
    if count is not None and count < 1:
        raise ValueError(f"at least one thread is needed, got {count}")
    _threads = count


def pool() -> ThreadPoolExecutor:
    """The threads that decode."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    key = (os.getpid(), _threads or min(16, available))  # a forked process does not inherit its parent's threads
    if key not in _pools:
        _pools.clear()  # threads of another setting end when their work is done
        _pools[key] = ThreadPoolExecutor(key[1], thread_name_prefix="bench-decode")
    return _pools[key]


class Paths:
    """Many relative paths as one buffer: 10 bytes per path besides its characters. Items are `bytes`."""

    def __init__(self, buffer: bytes | bytearray, starts: NDArray[np.int64], lengths: NDArray[np.uint16]) -> None:
        self._buffer, self._starts, self._lengths = buffer, starts, lengths

    @classmethod
    def of(cls, paths: Iterable[bytes]) -> Paths:
        """From any iterable, kept in its order. Raises `ValueError` for a path of 65 536 bytes or more."""
        buffer, lengths = bytearray(), array("H")
        for path in paths:
            if len(path) > 0xFFFF:
                raise ValueError(f"a path of {len(path)} bytes is too long")
            buffer += path
            lengths.append(len(path))
        widths = np.frombuffer(lengths, dtype=np.uint16) if lengths else np.zeros(0, np.uint16)
        starts = np.zeros(len(widths), dtype=np.int64)
        np.cumsum(widths[:-1], out=starts[1:])
        return cls(buffer, starts, widths)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, position: int) -> bytes:
        start = int(self._starts[position])
        return bytes(self._buffer[start : start + int(self._lengths[position])])

    def __iter__(self) -> Iterator[bytes]:
        buffer = self._buffer
        for begin in range(0, len(self), 1 << 16):  # in parts: a list of a million numbers is no small thing
            starts = self._starts[begin : begin + (1 << 16)].tolist()
            lengths = self._lengths[begin : begin + (1 << 16)].tolist()
            for start, length in zip(starts, lengths, strict=True):
                yield bytes(buffer[start : start + length])

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> Paths:
        """The chosen paths; the buffer is shared."""
        return Paths(self._buffer, self._starts[index], self._lengths[index])

    @property
    def nbytes(self) -> int:
        return len(self._buffer) + self._starts.nbytes + self._lengths.nbytes


class FileImages:
    """An index of pictures that are decoded when they are asked for.

    `root`: the folder that the paths are relative to; `skip`: leading bytes of a path that are not on disk. `listing` and
    `lines` (int32 [N], from 1): the file that lists the pictures, and where, for messages. `picture_size`: (height, width)
    that every picture must have, where the data set promises one. `pack`: where pixels come from instead of the files, if any.
    """

    def __init__(
        self,
        root: Path,
        paths: Paths,
        geometry: Geometry,
        *,
        dataset: str = "",
        listing: Path | None = None,
        lines: NDArray[np.int32] | None = None,
        picture_size: tuple[int, int] | None = None,
        skip: int = 0,
    ) -> None:
        self.root, self.paths, self.geometry, self.dataset = root, paths, geometry, dataset
        self.listing, self.lines, self.picture_size, self.skip = listing, lines, picture_size, skip
        self._folder = os.fsencode(root)
        self._sizes: NDArray[np.int64] | None = None
        self.pack: Pack | None = None
        self._rows = np.zeros(0, dtype=np.int64)  # places in the pack
        self._rest = geometry  # what is left to do with a picture of the pack

    def read_from(self, pack: Pack) -> None:
        """Take the pictures from a pack that holds them in this order (`bench.data.packed.attach` sees to that)."""
        self.pack, self._rows, self._rest = pack, np.arange(len(self)), pack.rest(self.geometry)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, c, c): one picture as delivered."""
        return 3, self.geometry.crop, self.geometry.crop

    @property
    def nbytes(self) -> int:
        """Bytes of host memory that the index takes."""
        parts = [part.nbytes for part in (self.lines, self._sizes, self._rows, self.pack) if part is not None]
        return self.paths.nbytes + sum(parts)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> FileImages:
        """The index of the chosen pictures, in that order; copies no pixels and no paths."""
        lines = None if self.lines is None else self.lines[index]
        part = FileImages(
            self.root, self.paths.take(index), self.geometry, dataset=self.dataset, listing=self.listing, lines=lines,
            picture_size=self.picture_size, skip=self.skip,
        )  # fmt: skip
        part._sizes = None if self._sizes is None else self._sizes[index]
        if self.pack is not None:
            part.pack, part._rows, part._rest = self.pack, self._rows[index], self._rest
        return part

    __getitem__ = take  # so that a split is cut alike, whether its pixels are in memory or not

    def path(self, position: int) -> str:
        return os.fsdecode(self._path(position))

    def _path(self, position: int) -> bytes:
        return os.path.join(self._folder, self.paths[position][self.skip :])

    def _listed(self, position: int) -> str:
        if self.listing is None:
            return ""
        return f"listed at {self.listing}" + (f":{self.lines[position]}" if self.lines is not None else "")

    # -- files --------------------------------------------------------------------------------------------------------
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file, int64 [N]. Raises `DataError` naming the first file that is missing or empty."""
        if self._sizes is None:
            parts = [range(start, min(start + 4096, len(self))) for start in range(0, len(self), 4096)]
            found = np.concatenate([np.zeros(0, np.int64), *pool().map(self._sizes_of, parts)])
            bad = np.flatnonzero(found <= 0)
            if len(bad):
                first = int(bad[0])
                what = "is missing" if found[first] < 0 else "is an empty file"
                more = f"{len(bad):,} of {len(self):,} pictures are missing or empty; the first is {self._listed(first)}"
                raise DataError(f"the picture {what}", where=self.path(first), hint=more, dataset=self.dataset)
            self._sizes = found
        return self._sizes

    def _sizes_of(self, positions: range) -> NDArray[np.int64]:
        sizes = np.full(len(positions), -1, dtype=np.int64)
        for slot, position in enumerate(positions):
            try:
                sizes[slot] = os.stat(self._path(position)).st_size
            except OSError:
                continue
        return sizes

    def digest(self) -> bytes:
        """SHA-256 over relative paths, sizes in bytes and order: stands for the pixels in a fingerprint."""
        digest = hashlib.sha256(self.sizes().tobytes())
        for path in self.paths:
            digest.update(path + b"\n")
        return digest.digest()

    def damaged(self) -> list[tuple[int, str]]:
        """(position, reason) of the pictures that cannot be decoded.

        A file that begins and ends as a JPEG does is taken for whole (a truncated one does not end so), its header is
        read where `picture_size` is promised; all other files are decoded.
        """
        parts = [range(start, min(start + 1024, len(self))) for start in range(0, len(self), 1024)]
        return [one for part in pool().map(self._damaged_of, parts) for one in part]

    def _damaged_of(self, positions: range) -> list[tuple[int, str]]:
        bad = []
        for position in positions:
            try:
                if not self._looks_whole(position):
                    self.decoded(position)
            except (OSError, DataError) as error:
                bad.append((position, str(error)))
        return bad

    def _looks_whole(self, position: int) -> bool:
        from PIL import Image

        with open(self._path(position), "rb") as file:
            if file.seek(0, os.SEEK_END) < 4:
                return False
            file.seek(-2, os.SEEK_END)
            ending = file.read()
            file.seek(0)
            if (file.read(2), ending) != (b"\xff\xd8", b"\xff\xd9"):
                return False
            if self.picture_size is None:
                return True
            file.seek(0)
            with Image.open(file) as picture:
                return (picture.height, picture.width) == self.picture_size

    # -- pixels -------------------------------------------------------------------------------------------------------
    def fetch(self, index: Index, draws: Draws = None) -> NDArray[np.uint8]:
        """Pictures uint8 [B, 3, c, c] of `index` int64 [B].

        `draws` None: evaluation transform. `draws` float64 [B, 4] in [0, 1), drawn by the caller: training geometry. The
        result is a function of the files and the arguments alone. Raises `DataError` naming the first unreadable file of
        the batch and its line in the list; `IndexError` and `ValueError` for wrong arguments.
        """
        return self.fetch_views(index, (draws,))[0]

    def fetch_views(self, index: Index, views: Sequence[Draws], scales: Scales = None) -> list[NDArray[np.uint8]]:
        """Several views of the same pictures, each file read and decoded once: `fetch` for each entry of `views`.

        `scales`: for each view the shares of the area that `Geometry.resized_crops` cuts, None for the geometry's own way.
        """
        return self._submit(index, views, scales).result()

    def stream(
        self, blocks: Iterable[tuple[Index, Sequence[Draws]]], scales: Scales = None, *, ahead: int = 1
    ) -> Iterator[list[NDArray[np.uint8]]]:
        """`fetch_views` of each block in turn, while the next `ahead` blocks are already being decoded.

        Up to `ahead + 2` blocks are in memory. `blocks` is read ahead of what was delivered, so its draws must come from
        a generator that nothing else uses meanwhile.
        """
        waiting: deque[_Block] = deque()
        try:
            for index, views in blocks:
                waiting.append(self._submit(index, views, scales))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for block in waiting:
                block.cancel()

    def passes(self, block: int = 256, *, ahead: int = 1) -> Iterator[NDArray[np.uint8]]:
        """All pictures in index order under the evaluation transform, `block` at a time, the next one decoded meanwhile."""
        parts = (np.arange(start, min(start + block, len(self))) for start in range(0, len(self), block))
        for views in self.stream(((part, (None,)) for part in parts), ahead=ahead):
            yield views[0]

    def _submit(self, index: Index, views: Sequence[Draws], scales: Scales = None) -> _Block:
        index = np.asarray(index)
        if index.ndim != 1 or index.dtype != np.int64:
            raise ValueError(f"index must be int64 [B], got {index.dtype} {list(index.shape)}")
        if len(index) and not (index.min() >= 0 and index.max() < len(self)):
            raise IndexError(f"index must lie in 0..{len(self) - 1}")
        for draws in views:
            if draws is None:
                continue
            if draws.shape != (len(index), 4):
                raise ValueError(f"draws must be [{len(index)}, 4], got {list(draws.shape)}")
            if len(index) and not (draws.min() >= 0 and draws.max() < 1):
                raise ValueError("draws must lie in [0, 1)")
        arrays = [np.empty((len(index), *self.shape), dtype=np.uint8) for _ in views]
        rests = [self._rest.resized_crops(scale) if scale else self._rest for scale in scales or [None] * len(views)]
        jobs, count = pool(), len(index)
        parts = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
        return _Block(arrays, [jobs.submit(self._fill, index, views, rests, arrays, part) for part in parts])

    def _fill(
        self, index: Index, views: Sequence[Draws], rests: list[Geometry], arrays: list[NDArray[np.uint8]], slots: range
    ) -> None:
        for slot in slots:
            picture = self._picture(int(index[slot]))
            for draws, rest, pixels in zip(views, rests, arrays, strict=True):
                numbers = None if draws is None else draws[slot].tolist()
                pixels[slot] = rest.render(picture, numbers).numpy()

    def _picture(self, position: int) -> Tensor:
        if self.pack is None:
            return self.decoded(position)
        row = int(self._rows[position])
        return self.decoded(position, self.pack.content(row)) if self.pack.encoded else self.pack.pixels(row)

    def decoded(self, position: int, data: bytes | None = None) -> Tensor:
        """The whole picture uint8 [3, H, W] of a file (or of its content `data`), or `DataError` naming it."""
        path = self._path(position)
        try:
            if data is None:
                with open(path, "rb") as file:
                    data = file.read()
            picture = decode(data)
        except MemoryError:
            raise
        except Exception as error:
            missing = isinstance(error, FileNotFoundError)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            what = "the picture is missing" if missing else f"the picture cannot be read: {reason}"
            raise DataError(what, where=os.fsdecode(path), hint=self._listed(position), dataset=self.dataset) from error
        if self.picture_size is not None and tuple(picture.shape[1:]) != self.picture_size:
            height, width = self.picture_size
            what = f"the picture is {picture.shape[2]}x{picture.shape[1]}, not {width}x{height}"
            raise DataError(what, where=os.fsdecode(path), hint=self._listed(position), dataset=self.dataset)
        return picture


class _Block:
    """A block that is being decoded: where the pixels go, and the jobs."""

    def __init__(self, arrays: list[NDArray[np.uint8]], jobs: list[Future[None]]) -> None:
        self._arrays, self._jobs = arrays, jobs

    def result(self) -> list[NDArray[np.uint8]]:
        try:
            for job in self._jobs:  # in the order of the batch: the first fault is the same with any number of threads
                job.result()
        except BaseException:
            self.cancel()
            raise
        return self._arrays

    def cancel(self) -> None:
        for job in self._jobs:
            job.cancel()


def decode(data: bytes) -> Tensor:
    """The picture of an encoded file as RGB uint8 [3, H, W], channels last in memory; a noted rotation is not applied.

    Raises `OSError` or what Pillow finds wrong, also when the data end too early.
    """
    import io

    import torch
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise OSError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            colour = picture if picture.mode == "RGB" else picture.convert("RGB")
            return torch.from_numpy(np.array(colour)).permute(2, 0, 1)
    except UnidentifiedImageError:
        raise OSError("it is not an image") from None
