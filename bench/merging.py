"""`bench merge`: records of other results folders, copied into this one. All is looked at first, then copied or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fields import FieldError
from bench.records import RecordError, load_record, record_files, record_path, write_atomic

PREFERENCES = ("newest", "theirs", "ours")


@dataclass
class Merge:
    """What is to be done: files to copy, and what stands against it. Paths are those of records."""

    copies: list[tuple[Path, Path, str]] = field(default_factory=list)  # from, to, SHA-256 of the content
    before: dict[Path, str | None] = field(default_factory=dict)  # what each place holds now, None where there is nothing
    identical: int = 0
    kept: list[tuple[Path, Path, str]] = field(default_factory=list)  # theirs, ours, why ours stays
    conflicts: list[tuple[Path, Path, str]] = field(default_factory=list)
    corrupt: dict[Path, str] = field(default_factory=dict)
    changed: list[Path] = field(default_factory=list)  # what somebody else wrote meanwhile, left alone

    @property
    def replaced(self) -> list[tuple[Path, Path]]:
        """Those copies that replace another record."""
        return [(path, target) for path, target, _ in self.copies if self.before[target] is not None]

    def facts(self) -> dict[str, Any]:
        pairs = {"kept": self.kept, "conflicts": self.conflicts}
        return {
            "copied": [{"from": str(a), "to": str(b)} for a, b, _ in self.copies],
            "replaced": [{"from": str(a), "to": str(b)} for a, b in self.replaced],
            "identical": self.identical,
            **{key: [{"theirs": str(a), "ours": str(b), "why": why} for a, b, why in found] for key, found in pairs.items()},
            "corrupt": {str(path): fault for path, fault in self.corrupt.items()},
            "changed": [str(path) for path in self.changed],
        }  # fmt: skip


@dataclass(frozen=True)
class _Held:
    """A sound record: where it was read, the SHA-256 of its file, and what is compared."""

    path: Path
    digest: str
    status: str
    finished: str
    metrics: dict[str, Any]

    @property
    def done(self) -> bool:
        return self.status == "done"


def plan_merge(folders: Sequence[Path], results: Path, prefer: str | None = None) -> Merge:
    """Look at every record of `folders`: results folders, or folders of one suite. Writes nothing.

    Raises `FieldError` for a folder that is not there, is `results` itself, or holds no records.
    """
    found = Merge()
    held: dict[Path, _Held] = {}  # what each place will hold
    for folder in folders:
        for path, target in _records(folder, results):
            theirs = _read(path, found)
            if theirs is None:
                continue
            if target not in found.before:
                found.before[target] = _digest(target)
                ours = _read(target, found) if found.before[target] is not None else None
                if ours is not None:
                    held[target] = ours
            _decide(found, held, theirs, target, prefer, broken=target in found.corrupt)
    for target, one in held.items():
        if one.path != target:
            found.copies.append((one.path, target, one.digest))
    return found


def _decide(found: Merge, held: dict[Path, _Held], theirs: _Held, target: Path, prefer: str | None, *, broken: bool) -> None:
    """Whether `theirs` is what `target` will hold."""
    ours = held.get(target)
    if ours is None:
        if broken and prefer not in ("theirs", "newest"):
            found.kept.append((theirs.path, target, "ours is corrupt; --prefer theirs replaces it"))
        else:
            held[target] = theirs
    elif ours.digest == theirs.digest:
        found.identical += 1
    elif prefer is None:
        same = ours.metrics == theirs.metrics and ours.status == theirs.status
        why = "same results, other circumstances" if same else f"ours is {ours.status}, theirs {theirs.status}"
        found.conflicts.append((theirs.path, ours.path, why))
    elif ours.done and not theirs.done:
        found.kept.append((theirs.path, ours.path, f"ours is done, theirs {theirs.status}"))
    elif prefer == "theirs" or (prefer == "newest" and (not ours.done and theirs.done or theirs.finished > ours.finished)):
        held[target] = theirs
    else:
        found.kept.append((theirs.path, ours.path, "ours is preferred" if prefer == "ours" else "ours is as new"))


def _records(folder: Path, results: Path) -> list[tuple[Path, Path]]:
    """(record, its place in `results`) of a results folder, or of one suite's folder, which keeps its name."""
    if not folder.is_dir():
        raise FieldError("DIR", f"there is no folder {folder}", "name results folders, or folders of one suite in them")
    place = folder.resolve()
    if place == results.resolve() or results.resolve() in place.parents:
        raise FieldError("DIR", f"{folder} is in the results folder {results} itself", "--results DIR says where to copy to")
    suites = [place] if record_files(place) else sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    pairs = [(path, record_path(results / suite.name, path.stem)) for suite in suites for path in record_files(suite)]
    if not pairs:
        raise FieldError("DIR", f"{folder} holds no records", "name results folders, or folders of one suite in them")
    return pairs


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _read(path: Path, found: Merge) -> _Held | None:
    """The record with the digest of what was checked; None, and named in `corrupt`, when it cannot be trusted."""
    try:
        for _ in range(3):  # a record that is being replaced is another file the next moment
            digest = _digest(path)
            record = load_record(path)
            if digest is not None and _digest(path) == digest:
                finished = str((record.get("provenance") or {}).get("finished") or "")
                return _Held(path, digest, record["status"], finished, record["metrics"])
        raise RecordError(path, "it changes while it is read")
    except RecordError as error:
        found.corrupt[path] = error.fault
    except OSError as error:
        found.corrupt[path] = f"cannot be read: {error.strerror}"
    return None


def copy(found: Merge) -> None:
    """Write what was planned; whatever changed meanwhile, there or here, is left alone and named. Raises `OSError`."""
    done = []
    for path, target, digest in found.copies:
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != digest or _digest(target) not in (found.before[target], digest):
            found.changed.append(target)
            continue
        write_atomic(target, raw)
        done.append((path, target, digest))
    found.copies = done
