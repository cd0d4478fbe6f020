"""Opening pickles that came from somewhere: arrays, dict, list, tuple, str, bytes and numbers, and nothing else.

Python's unpickler calls whatever a file names. Here a file can name only NumPy's own array constructors, and even those
are stand-ins that store what they are given: no code of NumPy sees a field of the file before it has been checked. The
opcodes are scanned first, because a damaged file can otherwise make the unpickler ask for any amount of memory.
Covers CIFAR's batches (Python 2, protocol 2), `torch.save` files of NumPy labels (zip and legacy) and `.npy` files.
"""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import DataError

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_DEPTH = 16  # of nested containers
_ALLOWED = "it may hold arrays, dict, list, tuple, str, bytes and numbers only"


class _Refused(pickle.UnpicklingError):
    pass


class _Type:
    """Stands for a NumPy data type; `text` is its array-protocol string such as '<i8'."""

    __slots__ = ("text",)

    def __init__(self, text: Any) -> None:
        self.text = _text(text)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, ...): plain types have no sub-array, no names, no fields
        if state[2:5] != (None, None, None):
            raise _Refused("a structured data type")
        order = _text(state[1])
        self.text = (order if order in "<>" else "|") + self.text.lstrip("<>|=")

    @property
    def dtype(self) -> np.dtype[Any]:
        kind = np.dtype(self.text)
        if kind.kind not in "biufSUO" or kind.hasobject != (kind.kind == "O"):
            raise _Refused(f"the data type {self.text!r}")
        return kind


class _Array:
    """Stands for an array until the whole file is read: its shape, type, memory order and raw bytes."""

    __slots__ = ("shape", "type", "fortran", "raw")

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.raw = state
        if not (isinstance(self.type, _Type) and all(type(n) is int and n >= 0 for n in self.shape)):
            raise _Refused("an array with a strange description")

    def array(self, depth: int, done: dict[int, Any]) -> Any:
        dtype, order = self.type.dtype, "F" if self.fortran else "C"
        if dtype.kind == "O":
            values = _plain(list(self.raw), depth + 1, done)
            made = np.empty(len(values), dtype=object)
            made[:] = values
            return made.reshape(self.shape)
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else bytes(self.raw)
        if len(raw) != dtype.itemsize * int(np.prod(self.shape, dtype=object)):
            raise _Refused(f"an array of shape {self.shape} with {len(raw)} bytes")
        return np.frombuffer(raw, dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]


class _Call:
    """A function that a file may name. Without a `__dict__`, so that a file cannot change it either."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"a change of {name}")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text in {encoding}")
    return text.encode("latin1")


def _scalar(kind: _Type, raw: Any) -> Any:
    return np.frombuffer(_encode(raw) if isinstance(raw, str) else bytes(raw), kind.dtype)[0].item()


def _from_buffer(raw: Any, kind: _Type, shape: Any, order: str) -> _Array:
    made = _Array()
    made.__setstate__((1, tuple(shape), kind, order == "F", raw))
    return made


_FUNCTIONS = {
    "_reconstruct": _Call(lambda *_: _Array()),
    "scalar": _Call(_scalar),
    "_frombuffer": _Call(_from_buffer),
    "dtype": _Call(lambda text, *_: _Type(text)),
    "ndarray": _Call(lambda *_: _Array()),
    "encode": _Call(_encode),
    "bytes": _Call(lambda: b""),  # how protocols 0 to 2 write empty bytes
}
_NAMES = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _Refused(f"{module}.{name}")
        return _FUNCTIONS[_NAMES[module, name]]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a torch tensor")


def _plain(value: Any, depth: int = 0, done: dict[int, Any] | None = None) -> Any:
    """Arrays in place of their stand-ins, at any depth; anything that is not on the list of types is refused."""
    done = {} if done is None else done  # what a file refers to many times is made once
    if depth > _DEPTH:
        raise _Refused("containers in containers without end")
    if value is None or type(value) in (int, float, bool, str, bytes, bytearray):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        result = value.array(depth, done)
    elif type(value) is dict:
        pairs = [(_plain(key, depth + 1, done), _plain(item, depth + 1, done)) for key, item in value.items()]
        result = dict(pairs)
    elif type(value) in (list, tuple):
        simple = {type(item) for item in value} <= {int, str, bytes}  # the long ones, at once
        result = value if simple else type(value)([_plain(item, depth + 1, done) for item in value])
    else:
        raise _Refused(f"a {type(value).__name__}")
    done[id(value)] = result
    return result


@functools.cache
def _widths() -> list[int]:
    """Bytes that follow each opcode; -1: none such, -2: a line, -3, -4, -5: one, four or eight bytes say how many."""
    import pickletools

    kinds = {pickletools.UP_TO_NEWLINE: -2, pickletools.TAKEN_FROM_ARGUMENT1: -3, pickletools.TAKEN_FROM_ARGUMENT8U: -5}
    widths = [-1] * 256
    for opcode in pickletools.opcodes:
        count = opcode.arg.n if opcode.arg is not None else 0
        widths[ord(opcode.code)] = count if count >= 0 else kinds.get(count, -4)
    for code in b"ci":  # two lines
        widths[code] = -6
    return widths


def _scan(data: bytes, start: int) -> int:
    """Where the pickle that begins at `start` ends. Raises when it is cut short or numbers its parts out of order."""
    widths, position, count = _widths(), start, 0
    while True:
        code = data[position]  # IndexError: it ends too early
        width = widths[code]
        position += 1
        count += 1
        if width >= 0:
            if code == 0x72 and int.from_bytes(data[position : position + 4], "little") > count:
                raise ValueError("the parts of the pickle are not numbered in order")
            position += width
            if code == 0x2E:
                return position
        elif width == -1:
            raise ValueError(f"there is no opcode {code}")
        elif width in (-2, -6):
            for _ in range(1 if width == -2 else 2):
                begin, position = position, data.index(b"\n", position) + 1
            if code == 0x70 and int(data[begin:position]) > count:
                raise ValueError("the parts of the pickle are not numbered in order")
        else:
            size = (1, 4, 8)[-3 - width]
            position += size + int.from_bytes(data[position : position + size], "little")


def _load(data: bytes, encoding: str, start: int = 0) -> tuple[Any, int]:
    """The object of the pickle that begins at `start`, stand-ins and all, and where the pickle ends."""
    end = _scan(data, start)
    stream = io.BytesIO(data[start:end] if start or end != len(data) else data)
    return _Restricted(stream, fix_imports=False, encoding=encoding).load(), end


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """`read()`, with every way in which a damaged or hostile file can fail turned into a `DataError`."""
    try:
        return read()
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("the file is missing", where=path) from None
    except _Refused as error:
        raise DataError(f"the file wants to build {error}", where=path, hint=_ALLOWED) from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", where=path) from None
    except Exception as error:  # a pickle of random bytes can raise anything
        raise DataError(f"the file is damaged or truncated: {type(error).__name__}: {error}", where=path) from None


def _whole(path: Path, data: bytes, encoding: str) -> Any:
    value, end = _load(data, encoding)
    if end != len(data):
        raise DataError(f"{len(data) - end:,} bytes follow its end", where=path)
    return _plain(value)


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
    found, end = _load(data, "bytes")
    stub = found.pop(key, None) if type(found) is dict else None
    if not isinstance(stub, _Array) or (stub.shape, stub.raw, stub.fortran) != (shape, b"", False):
        return None
    if stub.type.dtype != np.uint8 or end != len(data):
        return None
    return _plain(found)


def _copied(path: Path, key: bytes, target: NDArray[np.uint8]) -> tuple[dict[Any, Any], tuple[Any, ...]]:
    data = path.read_bytes()
    whole = _whole(path, data, "bytes")
    array = whole.pop(key, None) if isinstance(whole, dict) else None
    if not isinstance(array, np.ndarray):
        raise DataError(f"there is no array {_text(key)!r}", where=path)
    if array.shape != target.shape or array.dtype != np.uint8:
        what = f"{_text(key)!r} is {array.dtype} of shape {array.shape}"
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
        first, end = _load(data, "latin1")
        if first != _TORCH_MAGIC:
            return _whole(path, data, "latin1")
        for _ in range(3):  # the version, the machine that wrote it, the object
            first, end = _load(data, "latin1", end)
        return _plain(first)
    except _Refused as error:
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
