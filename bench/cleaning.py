"""`bench clean`: what can go from a results folder, its size, and its removal. Records only where their status is named."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.live import LOGS, RUNNING, drivers
from bench.outcome import WORK
from bench.records import RecordError, load_summary, record_files

#: what is removed unless `--only` names some of them, with what each means
KINDS = {
    "checkpoints": "of cells that are finished",
    "locks": "that no process holds",
    "logs": "of cells that are done",
    "leftovers": "of processes that were killed: half-written files, heartbeats, Ray's scratch folders",
    "cache": "of stages, which are built again where they are needed",
}
DAY = 86400.0
LEFTOVER_SECONDS = 3600.0  # a temporary file may belong to a writer at work until it is so old
_CELL = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Item:
    """One file or folder that can go; `bytes` is what it takes on the disk."""

    kind: str
    path: Path
    bytes: int

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.path), "bytes": self.bytes}


def find(
    results: Path, cache: Path, *, only: Collection[str] = (), records: Collection[str] = (), suites: Collection[str] = (),
    older_than: float | None = None,
) -> tuple[list[Item], list[str]]:  # fmt: skip
    """(what can go, what is kept and why). `only`: these kinds; `records`: records of these statuses, or "corrupt"; `suites`:
    these folders and not the cache; `older_than`: days since a file was last written, or a cache entry used. Writes nothing."""
    kinds = set(only) or ({*KINDS} - ({"cache"} if suites else set()) if not records else set())
    limit = time.time() - (older_than or 0.0) * DAY
    items: list[Item] = []
    kept: list[str] = []
    folders = [path for path in sorted(results.glob("*")) if path.is_dir() and not path.name.startswith(".")]
    for folder in folders:
        if suites and folder.name not in suites:
            continue
        busy = [driver for driver in drivers(folder / WORK) if not driver.gone]
        if busy:
            kept.append(f"{folder}: bench run on {busy[0].host}, process {busy[0].pid}, is at work there")
            continue
        states = _states(folder) if {"checkpoints", "logs"} & kinds or records else {}
        found = [*_records(folder, states, records), *_work(folder / WORK, states, kinds)]
        items += [item for item in found if older_than is None or _changed(item.path) <= limit]
    if "cache" in kinds:
        items += _cached(cache, older_than, limit)
    return items, kept


def size_text(count: float) -> str:
    """Bytes for people: 312 B, 4.2 kB, 1.3 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _states(folder: Path) -> dict[str, str]:
    """Status by id of every record; those that are corrupt or cannot be read too."""
    states = {}
    for path in record_files(folder):
        try:
            states[path.stem] = load_summary(path)["status"]
        except RecordError as error:
            states[path.stem] = "unreadable" if error.unreadable else "corrupt"
    return states


def _records(folder: Path, states: dict[str, str], wanted: Collection[str]) -> Iterator[Item]:
    for identity, status in states.items():
        if status in wanted:
            path = folder / f"{identity}.json"
            yield Item(f"record ({status})", path, _size(path))


def _work(work: Path, states: dict[str, str], kinds: Collection[str]) -> Iterator[Item]:
    """What a suite's work folder holds. A checkpoint is named after its cell: `<id>.ckpt`, or a folder or parts of that name."""
    paths = sorted(work.iterdir()) if work.is_dir() else []
    for path in paths:
        match = _CELL.match(path.name)
        state = states.get(match.group()) if match else None
        if "checkpoints" in kinds and ".ckpt" in path.name and state in ("done", "failed", "diverged"):
            yield Item("checkpoints", path, _size(path))
        elif "locks" in kinds and path.suffix == ".lock" and _free(path):
            yield Item("locks", path, _size(path))
        elif "leftovers" in kinds and _leftover(path):
            yield Item("leftovers", path, _size(path))
    if "leftovers" in kinds:
        yield from (Item("leftovers", driver.path, _size(driver.path)) for driver in drivers(work) if driver.gone)
        yield from (Item("leftovers", path, _size(path)) for path in sorted(work.parent.glob(".*.tmp")) if _leftover(path))
    if "logs" in kinds:
        for path in sorted((work / LOGS).glob("*.log")):
            if states.get(path.stem) == "done":
                yield Item("logs", path, _size(path))


def _leftover(path: Path) -> bool:
    ours = path.name == "ray" or path.name.endswith(".tmp")
    return ours and time.time() - _changed(path) > LEFTOVER_SECONDS and path.name not in (RUNNING, LOGS)


def _cached(cache: Path, older_than: float | None, limit: float) -> Iterator[Item]:
    from bench.stages import entries

    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in entries(cache):
            if older_than is None or entry.used <= limit:
                yield Item("cache", entry.path, entry.size)


def _free(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        return False
    held.release()
    return True


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _size(path: Path) -> int:
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_file())
        return path.lstat().st_size
    except OSError:
        return 0


def remove(items: list[Item]) -> tuple[list[Item], list[str]]:
    """Remove them; (what is gone, what is kept and why)."""
    gone, kept = [], []
    for item in items:
        try:
            if _removed(item):
                gone.append(item)
            else:
                kept.append(f"{item.path}: a process uses it")
        except OSError as error:
            kept.append(f"{item.path}: {error.strerror or error}")
    return gone, kept


def _removed(item: Item) -> bool:
    if item.kind == "cache":
        from bench.stages import entries
        from bench.stages import remove as remove_entry

        return all(remove_entry(entry) for entry in entries(item.path.parent) if entry.path == item.path)
    if item.kind == "locks":
        return _unlock(item.path)
    if item.path.is_dir() and not item.path.is_symlink():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)
    return True


def _unlock(path: Path) -> bool:
    """Remove a lock while holding it; who waits for it at this moment may run its cell once more, with the same result."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        path.unlink(missing_ok=True)
    finally:
        lock.release()
    return True
