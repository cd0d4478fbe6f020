"""Opening pickles that came from somewhere; what they may hold, and why nothing in them is run, says `_unpickler`.

Covers CIFAR's batches (Python 2, protocol 2), `torch.save` files of NumPy labels (zip and legacy) and `.npy` files.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError
from bench.data._unpickler import ArrayStub, Refused, load, plain, text_of

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_ALLOWED = "it may hold arrays, dict, list, tuple, str, bytes and numbers only"


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """`read()`, with every way in which a damaged or hostile file can fail turned into a `DataError`."""
    try:
        return read()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("the file is missing", where=path) from None
    except Refused as error:
        raise DataError(f"the file wants to build {error}", where=path, hint=_ALLOWED) from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", where=path) from None
    except Exception as error:  # a pickle of random bytes can raise anything
        raise DataError(f"the file is damaged or truncated: {type(error).__name__}: {error}", where=path) from None


def _whole(path: Path, data: bytes, encoding: str) -> Any:
    value, end = load(data, encoding)
    if end != len(data):
        raise DataError(f"{len(data) - end:,} bytes follow its end", where=path)
    return plain(value)


def read_pickle(path: Path, *, encoding: str = "bytes") -> Any:
    """The object in a pickle file. Text of Python 2 becomes bytes (`encoding="bytes"`) or str ("latin1").

    Raises `DataError` naming the file when it is missing, damaged, longer than its pickle, or holds anything but
    arrays, dict, list, tuple, str, bytes, numbers, booleans and None.
    """
    return _guarded(path, lambda: _whole(path, path.read_bytes(), encoding))


def read_pickle_into(path: Path, key: bytes, target: NDArray[np.uint8]) -> tuple[dict[Any, Any], tuple[Any, ...]]:
    """A pickled dict whose entry `key` is a uint8 array of the shape of `target`: that array is read into `target`.

    Returns (the dict without that entry, buffers that together are the file, for a checksum). The pixels go from the
    file to `target` in one pass where the pickle stores them in one piece, as CIFAR's do; `target` is C-contiguous.
    """
    return _guarded(path, lambda: _cut_out(path, key, target) or _copied(path, key, target))


def _cut_out(path: Path, key: bytes, target: NDArray[np.uint8]) -> tuple[dict[Any, Any], tuple[Any, ...]] | None:
    """Reads the pixels where they stand and unpickles what is around them; None when the file is not made like that."""
    with open(path, "rb", buffering=0) as file:
        rest = file.seek(0, io.SEEK_END) - target.nbytes  # everything that is not pixels
        if not 0 < rest < target.nbytes:
            return None
        file.seek(0)
        head = _exactly(file, rest)  # what is before the pixels, and the first of them
        for opcode, empty in ((b"T", b"U\0"), (b"B", b"C\0")):  # a string of Python 2, bytes of Python 3
            start = head.find(opcode + struct.pack("<I", target.nbytes)) + 5
            if start < 5:
                continue
            pixels = memoryview(target.reshape(-1))  # type: ignore[arg-type]
            known = rest - start
            pixels[:known] = head[start:]
            while known < len(pixels):
                known += file.readinto(pixels[known:]) or _truncated()
            tail = _exactly(file, rest - start)
            try:
                found = _around(head[: start - 5] + empty + tail, key, target.shape)
            except Exception:  # damaged, or cut in the wrong place: reading all of it will tell
                return None
            return (found, (head[:start], pixels, tail)) if found is not None else None
    return None


def _around(data: bytes, key: bytes, shape: tuple[int, ...]) -> dict[Any, Any] | None:
    """The dict of a pickle from which the pixels were cut out; None when what was cut out were not the pixels."""
    found, end = load(data, "bytes")
    stub = found.pop(key, None) if type(found) is dict else None
    if not isinstance(stub, ArrayStub) or (stub.shape, stub.raw, stub.fortran) != (shape, b"", False):
        return None
    if stub.type.dtype != np.uint8 or end != len(data):
        return None
    return plain(found)


def _copied(path: Path, key: bytes, target: NDArray[np.uint8]) -> tuple[dict[Any, Any], tuple[Any, ...]]:
    data = path.read_bytes()
    whole = _whole(path, data, "bytes")
    array = whole.pop(key, None) if isinstance(whole, dict) else None
    if not isinstance(array, np.ndarray):
        raise DataError(f"there is no array {text_of(key)!r}", where=path)
    if array.shape != target.shape or array.dtype != np.uint8:
        what = f"{text_of(key)!r} is {array.dtype} of shape {array.shape}"
        raise DataError(what, where=path, hint=f"expected uint8 of shape {target.shape}")
    target[...] = array
    return whole, (data,)


def _exactly(file: io.FileIO, count: int) -> bytes:
    data = file.read(count)
    while len(data) < count:
        data += file.read(count - len(data)) or _truncated()
    return data


def _truncated() -> Any:
    raise EOFError("it ends too early")


def read_pt(path: Path) -> Any:
    """The object of a `torch.save` file that holds NumPy arrays and lists (zip or legacy format); torch is not needed.

    A file of torch tensors goes through `torch.load(weights_only=True)`. Raises `DataError` as `read_pickle` does.
    """
    return _guarded(path, lambda: _read_pt(path))


def _read_pt(path: Path) -> Any:
    data = path.read_bytes()
    try:
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in archive.namelist() if name.split("/")[-1] == "data.pkl"]
                if len(names) != 1:
                    raise DataError("the archive has no data.pkl", where=path, hint="expected a file of torch.save")
                return _whole(path, archive.read(names[0]), "latin1")
        first, end = load(data, "latin1")
        if first != _TORCH_MAGIC:
            return _whole(path, data, "latin1")
        for _ in range(3):  # the version, the machine that wrote it, the object
            first, end = load(data, "latin1", end)
        return plain(first)
    except Refused as error:
        if str(error) not in ("a torch tensor", "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"):
            raise
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def read_npy(path: Path) -> Any:
    """The array of a `.npy` file; of a pickled one (a dict in an object array) the object itself."""
    return _guarded(path, lambda: _read_npy(path))


def _read_npy(path: Path) -> Any:
    data = path.read_bytes()
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    value = _whole(path, data[stream.tell() :], "latin1")
    return value.item() if isinstance(value, np.ndarray) and shape == () else value
