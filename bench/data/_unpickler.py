"""An unpickler that builds arrays, dict, list, tuple, str, bytes and numbers, and runs nothing.

Python's unpickler calls whatever a file names. Here a file can name only NumPy's own array constructors, and even those
are stand-ins that store what they are given: no code of NumPy sees a field of the file before it has been checked. The
opcodes are scanned first, because a damaged file can otherwise make the unpickler ask for any amount of memory.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_DEPTH = 16  # of nested containers


class Refused(pickle.UnpicklingError):
    pass


class _Type:
    """Stands for a NumPy data type; `text` is its array-protocol string such as '<i8'."""

    __slots__ = ("text",)

    def __init__(self, text: Any) -> None:
        self.text = text_of(text)

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, ...): plain types have no sub-array, no names, no fields
        if state[2:5] != (None, None, None):
            raise Refused("a structured data type")
        order = text_of(state[1])
        self.text = (order if order in "<>" else "|") + self.text.lstrip("<>|=")

    @property
    def dtype(self) -> np.dtype[Any]:
        kind = np.dtype(self.text)
        if kind.kind not in "biufSUO" or kind.hasobject != (kind.kind == "O"):
            raise Refused(f"the data type {self.text!r}")
        return kind


class ArrayStub:
    """Stands for an array until the whole file is read: its shape, type, memory order and raw bytes."""

    __slots__ = ("shape", "type", "fortran", "raw")

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.type, self.fortran, self.raw = state
        if not (isinstance(self.type, _Type) and all(type(n) is int and n >= 0 for n in self.shape)):
            raise Refused("an array with a strange description")

    def array(self, depth: int, done: dict[int, Any]) -> Any:
        dtype, order = self.type.dtype, "F" if self.fortran else "C"
        if dtype.kind == "O":
            values = plain(list(self.raw), depth + 1, done)
            made = np.empty(len(values), dtype=object)
            made[:] = values
            return made.reshape(self.shape)
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else bytes(self.raw)
        if len(raw) != dtype.itemsize * int(np.prod(self.shape, dtype=object)):
            raise Refused(f"an array of shape {self.shape} with {len(raw)} bytes")
        return np.frombuffer(raw, dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]


class _Call:
    """A function that a file may name. Without a `__dict__`, so that a file cannot change it either."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"a change of {name}")

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def text_of(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"text in {encoding}")
    return text.encode("latin1")


def _scalar(kind: _Type, raw: Any) -> Any:
    return np.frombuffer(_encode(raw) if isinstance(raw, str) else bytes(raw), kind.dtype)[0].item()


def _from_buffer(raw: Any, kind: _Type, shape: Any, order: str) -> ArrayStub:
    made = ArrayStub()
    made.__setstate__((1, tuple(shape), kind, order == "F", raw))
    return made


_FUNCTIONS = {
    "_reconstruct": _Call(lambda *_: ArrayStub()),
    "scalar": _Call(_scalar),
    "_frombuffer": _Call(_from_buffer),
    "dtype": _Call(lambda text, *_: _Type(text)),
    "ndarray": _Call(lambda *_: ArrayStub()),
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
            raise Refused(f"{module}.{name}")
        return _FUNCTIONS[_NAMES[module, name]]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a torch tensor")


def plain(value: Any, depth: int = 0, done: dict[int, Any] | None = None) -> Any:
    """Arrays in place of their stand-ins, at any depth; anything that is not on the list of types is refused."""
    done = {} if done is None else done  # what a file refers to many times is made once
    if depth > _DEPTH:
        raise Refused("containers in containers without end")
    if value is None or type(value) in (int, float, bool, str, bytes, bytearray):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, ArrayStub):
        result = value.array(depth, done)
    elif type(value) is dict:
        pairs = [(plain(key, depth + 1, done), plain(item, depth + 1, done)) for key, item in value.items()]
        result = dict(pairs)
    elif type(value) in (list, tuple):
        simple = {type(item) for item in value} <= {int, str, bytes}  # the long ones, at once
        result = value if simple else type(value)([plain(item, depth + 1, done) for item in value])
    else:
        raise Refused(f"a {type(value).__name__}")
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


@functools.cache
def _run() -> re.Pattern[bytes]:
    """As many opcodes as possible of those that need no closer look: of fixed width, or short text of Python 2.

    A label list or a list of file names is one such run. A number of a part (`r`) is small, the end is never in a run.
    """
    widths = _widths()

    def of_width(width: int) -> bytes:
        codes = (code for code in range(256) if widths[code] == width and code not in b".r")
        return b"[" + b"".join(b"\\x%02x" % code for code in codes) + b"]" + b"." * width

    text = b"U(?:" + b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(256)) + b")"
    numbered = b"r..[\\x00-\\x0f]\\x00"
    parts = (*(of_width(width) for width in (1, 0, 2, 4)), numbered, text)
    return re.compile(b"(?s)(?:" + b"|".join(parts) + b")++")


def _scan(data: bytes, start: int) -> int:
    """Where the pickle that begins at `start` ends. Raises when it is cut short or numbers its parts out of order."""
    widths, run, position, count = _widths(), _run(), start, 0
    while True:
        if found := run.match(data, position):
            count += found.end() - position  # at least as many as there are opcodes
            position = found.end()
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


def load(data: bytes, encoding: str, start: int = 0) -> tuple[Any, int]:
    """The object of the pickle that begins at `start`, stand-ins and all, and where the pickle ends."""
    end = _scan(data, start)
    stream = io.BytesIO(data[start:end] if start or end != len(data) else data)
    return _Restricted(stream, fix_imports=False, encoding=encoding).load(), end
