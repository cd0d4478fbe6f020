"""The stage cache: expensive work that needs no labels (pre-training, networks that make labels), built once and shared.

An entry is one file, `<name>-<first 16 digits of the SHA-256 of its key>.pt`: 32 bytes SHA-256 of all that follows, 8 bytes
length of the header (big-endian), the header (JSON: the whole key, what building cost, the date), then the tensors as
`torch.save` writes them. A file that is damaged, or holds another key, is built again.

One process builds an entry while others wait for its lock (`bench.locks`). Linux carries these locks over NFS (always with
version 4, with its lock service before), so machines that share the folder share the work. Where a file system has no
such locks nobody waits: an entry may then be built twice, with the same result.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.cell import canonical_json
from bench.locks import acquired
from bench.records import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
SUFFIX = ".pt"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 8
_DOMAIN = "bench stage 1\n"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Built(NamedTuple):
    """What building returns: named tensors, and the images that went through networks for them."""

    tensors: Mapping[str, Tensor]
    forward_images: int = 0
    backward_images: int = 0


@dataclass(frozen=True)
class StageInfo:
    """One use of an entry. `built`: by this call; the cost is that of building, whoever did it.

    `seconds` of wall time, `bytes` of all tensors, `created` UTC in ISO 8601, `content` SHA-256 of the tensors.
    """

    name: str
    id: str
    built: bool
    seconds: float
    forward_images: int
    backward_images: int
    bytes: int
    created: str
    content: str

    def block(self) -> dict[str, Any]:
        """What a record says."""
        return {key: value for key, value in asdict(self).items() if key not in ("created", "content")}


class StageStore:
    """Entries in `folder`; with None they are kept in memory, as long as the store lives."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._memory: dict[str, tuple[dict[str, Tensor], StageInfo]] = {}

    def get(
        self,
        key: Mapping[str, Any],
        build: Callable[[], Built],
        *,
        warn: Callable[[str], None] = warnings.warn,
        waiting: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, Tensor], StageInfo]:
        """The tensors (contiguous, on the CPU, the caller's own) of `key`, built now if nobody has yet.

        `key` is everything that decides them, JSON values, with the entry's `name` (lower-case letters, digits, - and _).
        `warn` is told what is damaged or cannot be written: then the work goes on without the cache. `waiting` is called
        again and again while another process builds, and may raise. Nothing is kept when `build` raises.
        """
        name, identity = str(key["name"]), address(key)
        if not _NAME.fullmatch(name):
            raise ValueError(f"a stage is named with lower-case letters, digits, - and _, not {name!r}")
        if identity in self._memory:
            tensors, info = self._memory[identity]
            return _copies(tensors), replace(info, built=False)
        if self.folder is None:
            return self._remembered(*_made(key, build))
        path = self.folder / f"{name}-{identity}{SUFFIX}"
        found = _load(path, key, lambda message: None)  # files appear whole, so reading needs no lock
        if found is not None:
            return found
        with _locked(path, warn, waiting) as locked:
            found = _load(path, key, warn)
            if found is not None:
                return found
            tensors, info = _made(key, build)
            try:
                if locked:
                    _remove_leftovers(path)
                write_atomic(path, _packed(key, tensors, info))
            except OSError as error:
                warn(f"stage {name} could not be kept in {self.folder} ({error.strerror or error})")
                return self._remembered(tensors, info)
        return tensors, info

    def _remembered(self, tensors: dict[str, Tensor], info: StageInfo) -> tuple[dict[str, Tensor], StageInfo]:
        self._memory[info.id] = tensors, info
        return _copies(tensors), info


def address(key: Mapping[str, Any]) -> str:
    """16 hexadecimal digits (64 bits) of SHA-256 of the key's canonical JSON."""
    return hashlib.sha256((_DOMAIN + canonical_json(dict(key))).encode()).hexdigest()[:16]


def cache_root(results: str | Path, cache: str | Path | None = None) -> Path:
    """The cache folder: the argument, else the environment's `BENCH_CACHE`, else `.work/cache` in the results folder."""
    return Path(cache or os.environ.get("BENCH_CACHE") or Path(results) / ".work" / "cache")


def content_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) of named tensors: names, types, shapes and bits."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- making ------------------------------------------------------------------------------------------------------------
def _made(key: Mapping[str, Any], build: Callable[[], Built]) -> tuple[dict[str, Tensor], StageInfo]:
    name, begin = str(key["name"]), time.perf_counter()
    built = build()
    tensors = _checked(name, built.tensors)
    seconds = time.perf_counter() - begin  # the copies to the CPU have waited for the device
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    size = sum(tensor.nbytes for tensor in tensors.values())
    return tensors, StageInfo(
        name, address(key), True, round(seconds, 4), built.forward_images, built.backward_images, size, created,
        content_of(tensors),
    )  # fmt: skip


def _checked(name: str, made: Any) -> dict[str, Tensor]:
    """Copies that share no memory with what was built, in the layout that loading gives. Raises `TypeError`."""
    import torch

    if not isinstance(made, Mapping) or not made:
        raise TypeError(f"stage {name!r} must return tensors by name, not {type(made).__name__}")
    for label, value in made.items():
        if not isinstance(label, str) or not isinstance(value, torch.Tensor):
            raise TypeError(f"stage {name!r} must return tensors by name; {label!r} is a {type(value).__name__}")
    return _copies({label: value.detach().cpu() for label, value in made.items()})


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


# -- files -------------------------------------------------------------------------------------------------------------
def _packed(key: Mapping[str, Any], tensors: dict[str, Tensor], info: StageInfo) -> bytes:
    import torch

    facts = {name: value for name, value in asdict(info).items() if name != "built"}
    header = json.dumps({"version": VERSION, **facts, "key": dict(key)}, sort_keys=True, allow_nan=False).encode()
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    body = len(header).to_bytes(_LENGTH, "big") + header + buffer.getvalue()
    return hashlib.sha256(body).digest() + body


def _load(path: Path, key: Mapping[str, Any], warn: Callable[[str], None]) -> tuple[dict[str, Tensor], StageInfo] | None:
    """The entry, or None where it is missing or cannot be trusted."""
    import torch

    try:
        content = path.read_bytes()
        if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
            raise ValueError("its checksum does not match")
        header, begin = _header(content[_DIGEST:])
        if header["version"] != VERSION or canonical_json(header["key"]) != canonical_json(dict(key)):
            raise ValueError("it holds another key")
        tensors = torch.load(io.BytesIO(memoryview(content)[_DIGEST + begin :]), map_location="cpu", weights_only=True)
        facts = {name: value for name, value in header.items() if name not in ("version", "key")}
        found = tensors, StageInfo(built=False, **facts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # an entry is an economy; a bad one is never a fault of the cell
        warn(f"stage cache: {path.name} is not used ({error}); it is built again")
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # its age is the time since it was last used
    return found


def _header(body: bytes) -> tuple[dict[str, Any], int]:
    """(header, where the tensors begin) of what follows the checksum. Raises `ValueError`."""
    begin = _LENGTH + int.from_bytes(body[:_LENGTH], "big")
    header = json.loads(body[_LENGTH:begin])
    if not isinstance(header, dict) or not isinstance(header.get("key"), dict):
        raise ValueError("it has no header")
    return header, begin


@contextlib.contextmanager
def _locked(path: Path, warn: Callable[[str], None], waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of an entry; False where there is none to be had."""
    lock = None
    try:
        lock = acquired(path.with_suffix(".lock"), waiting)
    except OSError as error:
        warn(f"stage cache: no lock in {path.parent} ({error.strerror or error}); others may build the same")
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


# -- looking and cleaning ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Entry:
    """A file of the cache. `header` is None where it cannot be read; `used` is seconds since the epoch, `size` in bytes."""

    path: Path
    size: int
    used: float
    header: dict[str, Any] | None

    @property
    def name(self) -> str:
        return self.path.stem.rpartition("-")[0]

    @property
    def id(self) -> str:
        return self.path.stem.rpartition("-")[2]

    @property
    def dataset(self) -> str | None:
        try:
            return str(self.header["key"]["images"]["dataset"]["name"]) if self.header else None
        except (KeyError, TypeError):
            return None


def entries(folder: Path) -> list[Entry]:
    """All entries by name; their tensors are not read. Raises `OSError` where the folder cannot be listed."""
    found = []
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == SUFFIX and re.fullmatch(r".+-[0-9a-f]{16}", path.stem):
            with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
                status = path.stat()
                found.append(Entry(path, status.st_size, status.st_mtime, _read_header(path)))
    return found


def _read_header(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            file.seek(_DIGEST)
            size = file.read(_LENGTH)
            return _header(size + file.read(min(int.from_bytes(size, "big"), 1 << 24)))[0]
    except (OSError, ValueError, RecursionError):
        return None


def remove(entry: Entry) -> bool:
    """Delete an entry and its lock; False where a process is building it now. Raises `OSError`."""
    from filelock import FileLock, Timeout

    lock = FileLock(entry.path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        _remove_leftovers(entry.path)
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix(".lock").unlink(missing_ok=True)  # who waits for it may build twice, with the same result
    finally:
        lock.release()
    return True


def _remove_leftovers(path: Path) -> None:
    """What processes left behind that were killed while they wrote the entry; the caller holds its lock."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink()
