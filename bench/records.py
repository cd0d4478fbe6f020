"""Records: one small JSON file per cell, the truth about what has been run (law 2).

A record is written to a temporary name, flushed to the disk and renamed, so a reader sees all of it or nothing. It
carries a checksum of its own content; the loader refuses a file whose content does not match it, by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.cell import canonical_json, cell_id

SCHEMA = 1
STATUSES = ("done", "failed", "diverged", "skipped")
_KEYS = ("schema", "id", "suite", "cell", "status", "reason", "metrics", "curve", "provenance", "warnings")
_NAME_LENGTH = len("0123456789abcdef.json")


class RecordError(Exception):
    """A record file that cannot be trusted; the message names the file, the fault and the way out."""

    def __init__(self, path: Path, fault: str) -> None:
        self.path = path
        super().__init__(
            f"corrupt record {path}: {fault}. Restore the file from version control or a backup, or delete it and "
            "run the suite again: only this cell will be run (`bench run --force` replaces it)."
        )


def checksum(record: Mapping[str, Any]) -> str:
    body = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
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
        raise RecordError(path, f"cannot be read ({error.strerror})") from None
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
