"""Records: one small JSON file per cell, the truth about what has been run (law 2).

A record is written to a temporary name, flushed to the disk and renamed, so a reader sees all of it or nothing. It
carries a checksum of its own content; the loader refuses a file whose content does not match it, by name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cell import _DOMAIN, AXES, canonical_json, cell_id

SCHEMA = 1
STATUSES = ("done", "failed", "diverged", "skipped")
_KEYS = ("schema", "id", "suite", "cell", "status", "reason", "metrics", "curve", "provenance", "warnings")
_NAME_LENGTH = len("0123456789abcdef.json")
#: what only figures of single cells need, by far the largest part of a record
BULK = ("curve", "detail", "watched")
_NUMBERS = re.compile(r"(\[[][0-9.,eEnul +-]{40,}\])")
#: so many records are read by several processes, in chunks
_MANY, _CHUNK = 4000, 500
_PLACE = re.compile(r'"@(\d+)@"')


class RecordError(Exception):
    """A record file that cannot be trusted; the message names the file, the fault and the way out.

    One that is `unreadable` may be sound, so nothing that removes corrupt records may touch it.
    """

    def __init__(self, path: Path, fault: str, *, unreadable: bool = False) -> None:
        self.path, self.fault, self.unreadable = path, fault, unreadable
        super().__init__(
            f"{named_fault(path, fault)}. Make it readable; it may be sound."
            if unreadable
            else f"{named_fault(path, fault)}. Restore the file from version control or a backup, or delete it and "
            "run the suite again: only this cell will be run (`bench run --force` replaces it)."
        )


def named_fault(path: Path, fault: str) -> str:
    """Record and fault; what cannot be read is not called corrupt."""
    return f"{'' if fault.startswith('cannot be read') else 'corrupt '}record {path}: {fault}"


def checksum(record: Mapping[str, Any]) -> str:
    body = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """All of `data` at `path`, or the old content and an `OSError`; also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the file is complete; some file systems cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def record_path(folder: Path, identity: str) -> Path:
    return Path(folder) / f"{identity}.json"


def dumps(record: Mapping[str, Any]) -> str:
    """One line per top-level key: compact, and a change of a number shows as a change of one line."""
    sealed = {**record, "checksum": checksum(record)}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in sealed.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `record` into the suite's folder. Raises `ValueError` for an incomplete record, `OSError` if it cannot."""
    missing = [key for key in _KEYS if key not in record]
    if missing or record["status"] not in STATUSES or record["id"] != cell_id(record["cell"]):
        raise ValueError(f"not a valid record: missing {missing}, status {record.get('status')!r}")
    path = record_path(folder, record["id"])
    write_atomic(path, dumps(record).encode())
    return path


def load_record(path: Path) -> dict[str, Any]:
    """One record. Raises `RecordError` when it is truncated, edited, misnamed or of an unknown schema."""
    path = Path(path)
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(path, f"cannot be read: {error.strerror}", unreadable=True) from None
    except (ValueError, RecursionError) as error:
        raise RecordError(path, f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise RecordError(path, "not a JSON object")
    if record.get("schema") != SCHEMA:
        raise RecordError(path, f"it has schema {record.get('schema')!r}, this version of bench reads {SCHEMA}")
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise RecordError(path, f"keys missing: {', '.join(missing)}")
    try:
        matches = record.get("checksum") == checksum(record)
    except ValueError:  # NaN, which no record holds
        matches = False
    if not matches:
        raise RecordError(path, "its checksum does not match its content (edited by hand, or damaged)")
    if record["id"] != path.stem:
        raise RecordError(path, f"it holds the record of cell {record['id']}")
    if record["status"] not in STATUSES:
        raise RecordError(path, f"unknown status {record['status']!r}")
    try:
        identity = cell_id(record["cell"])
    except (TypeError, ValueError) as error:
        raise RecordError(path, str(error)) from None
    if identity != record["id"]:
        raise RecordError(path, f"its cell hashes to {identity}")
    return record


def load_summary(path: str | Path) -> dict[str, Any]:
    """One record without what figures of single cells need (`BULK` is None, the noise has no matrix), and without the checksum;
    checked as `load_record` checks it, and several times as fast.

    The layout of `dumps` allows it: one line for each key, so that lines which many records share are read once, and the
    checksum is taken of their text, put into canonical order, without printing every number again. Text that has the checksum is
    the canonical text. A file that this shortcut does not understand or trust goes to `load_record`, so a record is refused by
    the same rules and with the same messages. Values may be shared between summaries: do not change them.
    """
    try:
        with open(path, "rb") as file:
            record, canonical, identity = _read_lines(file.read())
        sound = (
            hashlib.sha256(canonical.encode()).hexdigest() == record.pop("checksum")
            and record["schema"] == SCHEMA
            and record["status"] in STATUSES
            and record["id"] == os.path.basename(path)[: -len(".json")] == identity
            and all(key in record for key in _KEYS)
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sound = False
    return record if sound else _summary(load_record(Path(path)))


def load_summaries(paths: Sequence[Path], keep: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[Path, Any, str]]:
    """Path, `keep(load_summary(path))` and "" of each path in turn; for a corrupt record the path, None and its fault.

    Many are read by as many processes as there are cores, at most four, which also call `keep`, a function of a module; in a
    process with threads, or where processes cannot fork, by this one.
    """
    workers = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    if len(paths) < _MANY or workers == 1 or threading.active_count() > 1:
        for path in paths:
            yield path, *_read_one(path, keep)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    # Chunks are handed out a few at a time, so that results do not pile up before a slower reader.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        waiting = deque(pool.submit(_read_chunk, chunk, keep) for chunk in chunks[: 3 * workers])
        for number, chunk in enumerate(chunks):
            found = waiting.popleft().result()
            if number + 3 * workers < len(chunks):
                waiting.append(pool.submit(_read_chunk, chunks[number + 3 * workers], keep))
            for path, (kept, fault) in zip(chunk, found, strict=True):
                yield path, kept, fault


def _read_chunk(paths: Sequence[Path], keep: Callable[[dict[str, Any]], Any]) -> list[tuple[Any, str]]:
    return [_read_one(path, keep) for path in paths]


def _read_one(path: Path, keep: Callable[[dict[str, Any]], Any]) -> tuple[Any, str]:
    try:
        return keep(load_summary(path)), ""
    except RecordError as error:
        return None, error.fault


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    left = {key: None if key in BULK else value for key, value in record.items() if key != "checksum"}
    noise = left.get("noise")
    if isinstance(noise, dict):
        left["noise"] = {key: value for key, value in noise.items() if key != "matrix"}
    return left


def _read_lines(raw: bytes) -> tuple[dict[str, Any], str, str]:
    """Summary with the checksum, canonical text without it, and the identity of the cell. Raises for another layout."""
    text = raw.decode("ascii")
    if not text.startswith("{\n") or not text.endswith("\n}\n"):
        raise ValueError("not laid out as we write records")
    record: dict[str, Any] = {}
    texts: dict[str, str] = {}
    identity = ""
    lines = text[2:-3].split(",\n")
    for line in lines:
        start, _, value = line.partition('": ')
        key = start[1:]
        if key == "cell":
            record[key], texts[key], identity = _cell_part(value)
        else:
            record[key], texts[key] = _READERS.get(key, _shared_part)(key, value)
    if len(record) < len(lines):
        raise ValueError("a key twice")
    return record, "{" + ",".join([f'"{key}":{texts[key]}' for key in sorted(texts) if key != "checksum"]) + "}", identity


def _part(key: str, text: str) -> tuple[Any, str]:
    """Value and canonical text of one line; the value is what the text says."""
    if not key.isidentifier():
        raise ValueError("not a key of ours")
    if text[0] not in "{[":
        return json.loads(text), text
    if text[:2] == '{"' and "{" not in text[1:] and "[" not in text.replace("[]", "") and "\\" not in text:
        members = sorted([member.replace('": ', '":', 1) for member in text[2:-1].split(', "')])  # flat: that is all
        text = '{"' + ',"'.join(members) + "}"
        return json.loads(text), text
    value = json.loads(text)
    return _summary({key: value})[key], canonical_json(value)


_shared_part = functools.lru_cache(maxsize=4096)(_part)


def _bulky_part(key: str, line: str) -> tuple[None, str]:
    """None, and canonical text: long lists of numbers wait in `lists` while the rest is put into canonical order."""
    pieces = _NUMBERS.split(line)
    lists = [text.replace(" ", "") for text in pieces[1::2]]
    short = pieces[0] + "".join([f'"@{i}@"{text}' for i, text in enumerate(pieces[2::2])])
    pieces = _PLACE.split(canonical_json(json.loads(short)))
    pieces[1::2] = [lists[int(number)] for number in pieces[1::2]]
    return None, "".join(pieces)


#: of lines that are each record's own; the others repeat
_READERS = {key: _part for key in ("id", "metrics", "cost", "provenance", "checksum")} | {key: _bulky_part for key in BULK}


def _cell_part(line: str) -> tuple[dict[str, Any], str, str]:
    """The cell, its canonical text and identity. Seeds share everything but the seed, which the plan writes last."""
    front, _, seed = line.partition(', "seed": ')
    cell, before, after = _cell_without_seed(front)
    text = before + seed[:-1] + after
    return {**cell, "seed": int(seed[:-1])}, text, hashlib.sha256((_DOMAIN + text).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _cell_without_seed(front: str) -> tuple[dict[str, Any], str, str]:
    cell = json.loads(front + "}")
    if set(cell) != {*AXES} - {"seed"}:
        raise ValueError("not a cell")
    before, after = ({key: cell[key] for key in sorted(cell) if (key < "seed") == first} for first in (True, False))
    return cell, canonical_json(before)[:-1] + ',"seed":', "," + canonical_json(after)[1:]


def record_files(folder: Path) -> list[Path]:
    """Paths of all records in a suite's folder, by name; other files (plan.json, tables) are not records."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    names = (name for name in os.listdir(folder) if len(name) == _NAME_LENGTH and name.endswith(".json"))
    return [folder / name for name in sorted(names) if _is_hex(name[: -len(".json")])]


def load_records(folder: Path, identities: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Records by id: of the whole folder, or those of `identities` that exist. Raises `RecordError` on a corrupt one.
    """
    if identities is None:
        paths: Iterable[Path] = record_files(folder)
    else:
        paths = (path for path in (record_path(folder, i) for i in identities) if path.exists())
    return {path.stem: load_record(path) for path in paths}


def first_line(reason: Any, width: int) -> str:
    """As much of a record's reason as fits into one line of a list."""
    return next(iter(str(reason).splitlines()), "")[:width]


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
