"""Signs of life of a run, for other processes to read: a heartbeat file per driver, and a log per cell. None of it is a result.

`<work folder>/running/<host>-<pid>.json` says which cells run, their epoch and what is left; it is written at most once a second,
atomically and without a flush to the disk, and removed when the run ends. `<work folder>/logs/<cell>.log` grows by a line per
epoch that the driver hears of (Ray sends one in two seconds); those that it did not hear of are added from the record. Whatever
cannot be written is left out: a run never fails because of it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.safe_text import printable, without_credentials

RUNNING = "running"
LOGS = "logs"
BEAT_SECONDS = 1.0  # at most one heartbeat in this time
IDLE_SECONDS = 10.0  # and one in this time although nothing has changed
SILENT_SECONDS = 60.0  # a driver of another machine that has been silent for so long counts as gone
LOG_BYTES = 256 * 1024  # beyond it the older half of a log is dropped
_LINE = 2000  # characters of one line
_BLOCK = 200  # lines of one traceback


# -- who is writing ------------------------------------------------------------------------------------------------
def machine() -> str:
    """Names the machine, its start and the process namespace: where it is equal, process numbers mean the same."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{platform.node()} {boot} {namespace}".strip()


def process_start(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None where it is gone, "" where nothing can be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


# -- the writing side ----------------------------------------------------------------------------------------------
@dataclass
class _Cell:
    label: str
    epochs: int
    since: float  # monotonic
    first: tuple[int, float] | None = None  # epochs finished when the driver first heard of one, and when
    last: tuple[int, float] | None = None
    logged: set[int] = field(default_factory=set)  # epochs that are in the log
    lines: list[str] = field(default_factory=list)  # what is not in the log yet

    def facts(self, now: float) -> dict[str, Any]:
        rate = self._seconds_per_epoch()
        done, heard = self.last or (0, self.since)
        left = None if rate is None else max(0.0, rate * (self.epochs - done) - (now - heard))
        return {
            "label": self.label, "epoch": done, "epochs": self.epochs, "seconds": round(now - self.since, 1),
            "seconds_per_epoch": rate and round(rate, 3), "seconds_left": left if left is None else round(left, 1),
        }  # fmt: skip

    def _seconds_per_epoch(self) -> float | None:
        """Between the first and the last epoch heard of; a cell that goes on from a checkpoint has no rate before its second."""
        if self.first is None or self.last is None:
            return None
        if self.last[0] > self.first[0]:
            return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])
        return self.last[1] - self.since if self.last[0] == 1 else None


class Live:
    """The heartbeat and the logs of one driver. Use it as a context; called by the driver's listener, one thread at a time."""

    def __init__(self, work: Path, total: int = 0) -> None:
        self.work = Path(work)
        self.path = self.work / RUNNING / f"{platform.node() or 'host'}-{os.getpid()}.json"
        self._cells: dict[str, _Cell] = {}
        self._head = {
            "machine": machine(), "host": platform.node(), "pid": os.getpid(), "start": process_start(os.getpid()),
            "began": time.time(), "total": total, "finished": 0, "left": "?",
        }  # fmt: skip
        self._lock, self._end, self._changed = threading.Lock(), threading.Event(), True
        self._thread = threading.Thread(target=self._beat, name="bench-heartbeat", daemon=True)

    def __enter__(self) -> Live:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for driver in drivers(self.work):
                if driver.gone and driver.here:
                    driver.path.unlink(missing_ok=True)
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for identity in list(self._cells):
            self._log(identity, "left unfinished: the run ended")
            self._flush(identity)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()

    def counted(self, finished: int, left: str) -> None:
        self._head |= {"finished": finished, "left": left}

    def started(self, identity: str, label: str, epochs: int) -> None:
        with self._lock:
            self._cells[identity] = _Cell(label, epochs, time.monotonic())
            self._changed = True
        self._log(identity, f"started: {label}")

    def epoch(self, identity: str, epoch: int, values: Mapping[str, Any]) -> None:
        cell = self._cells.get(identity)
        if cell is None:
            return
        with self._lock:
            cell.last = epoch + 1, time.monotonic()
            cell.first, self._changed = cell.first or cell.last, True
            cell.logged.add(epoch)
        self._log(identity, _epoch_line(epoch, cell.epochs, values))

    def finished(self, identity: str, record: Mapping[str, Any], *, elsewhere: bool = False) -> None:
        """The end of a cell. `elsewhere`: another run has finished it, and has logged it."""
        cell = self._cells.get(identity)
        if cell is None:
            return
        if elsewhere:
            self._log(identity, "finished by another run")
        else:
            curve = {key: values for key, values in (record.get("curve") or {}).items() if isinstance(values, list)}
            for at, epoch in enumerate(curve.get("epoch", ())):
                if epoch not in cell.logged:
                    values = {key: values[at] for key, values in curve.items() if key != "epoch" and at < len(values)}
                    self._log(identity, _epoch_line(epoch, cell.epochs, values), now="-")
            for warning in record.get("warnings") or ():
                self._log(identity, f"warning: {warning}")
            reason = f": {record['reason']}" if record.get("reason") else ""
            self._log(identity, f"{record.get('status')}{reason}")
            if record.get("traceback"):
                self._log(identity, "\n".join(str(record["traceback"]).rstrip().splitlines()[-_BLOCK:]))
        self._close(identity)

    def lost(self, identity: str, reason: str) -> None:
        if identity in self._cells:
            self._log(identity, f"lost: {reason}")
            self._close(identity)

    # -- files -----------------------------------------------------------------------------------------------------
    def _beat(self) -> None:
        written = time.monotonic()
        while not self._end.wait(BEAT_SECONDS):
            for identity in list(self._cells):
                self._flush(identity)
            if self._changed or time.monotonic() - written >= IDLE_SECONDS:
                self._write()
                written = time.monotonic()

    def _write(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._changed = False
            facts = {**self._head, "written": time.time(), "cells": {name: cell.facts(now) for name, cell in self._cells.items()}}
        _replace(self.path, json.dumps(facts).encode())

    def _close(self, identity: str) -> None:
        self._flush(identity)
        with self._lock:
            self._cells.pop(identity, None)
            self._changed = True

    def _log(self, identity: str, text: str, now: str | None = None) -> None:
        stamp = now or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        lines = [line[:_LINE] for line in printable(without_credentials(text)).splitlines()] or [""]
        with self._lock:
            self._cells[identity].lines += [f"{stamp} {lines[0]}", *(f"  {line}" for line in lines[1:])]

    def _flush(self, identity: str) -> None:
        with self._lock:
            cell = self._cells.get(identity)
            if cell is None or not cell.lines:
                return
            text, cell.lines = "".join(f"{line}\n" for line in cell.lines), []
            append_log(log_path(self.work, identity), text)


def _epoch_line(epoch: int, epochs: int, values: Mapping[str, Any]) -> str:
    shown = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, (int, float))]
    return "  ".join([f"epoch {epoch + 1}/{epochs}", *shown[:12]])


def _replace(path: Path, data: bytes) -> None:
    """All of `data` at `path` or what was there; gone with a power cut, which it need not survive."""
    temporary = path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_bytes(data)
        os.replace(temporary, path)


# -- logs ----------------------------------------------------------------------------------------------------------
def log_path(work: Path, identity: str) -> Path:
    return Path(work) / LOGS / f"{identity}.log"


def append_log(path: Path, text: str) -> None:
    """Add lines to a log, and drop its older half when it has more than `LOG_BYTES`."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode("utf-8", "replace"))
            size = file.tell()
        if size > LOG_BYTES:
            _replace(path, b"(earlier lines were dropped)\n" + path.read_bytes()[-LOG_BYTES // 2 :].partition(b"\n")[2])


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * max(lines, 1) - _LINE))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return printable(text).splitlines()[-lines:] if lines else []


# -- the reading side ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Driver:
    """A heartbeat as somebody else reads it. `gone` says why its process cannot be at work any more, "" where it is."""

    path: Path
    host: str
    pid: int
    here: bool
    gone: str
    age: float  # seconds since it was written
    began: float
    finished: int
    total: int
    left: str
    cells: dict[str, dict[str, Any]]

    def facts(self) -> dict[str, Any]:
        return {
            "host": self.host, "pid": self.pid, "age_seconds": round(self.age, 1), "began": self.began, "gone": self.gone or None,
            "finished": self.finished, "total": self.total, "left": self.left, "cells": sorted(self.cells),
        }  # fmt: skip


def drivers(work: Path) -> list[Driver]:
    """All heartbeats of a work folder, of drivers that are gone too, the longest at work first."""
    found = []
    for path in sorted((Path(work) / RUNNING).glob("[!.]*.json")):
        try:
            found.append(_driver(path, json.loads(path.read_bytes())))
        except FileNotFoundError:
            continue  # it has ended meanwhile
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            found.append(Driver(path, "?", 0, True, f"it cannot be read ({type(error).__name__})", 0.0, 0.0, 0, 0, "?", {}))
    return sorted(found, key=lambda driver: driver.began)


def _driver(path: Path, facts: dict[str, Any]) -> Driver:
    age = time.time() - float(facts["written"])
    here = facts["machine"] == machine()
    gone = ""
    if here:
        if process_start(int(facts["pid"])) != facts["start"]:
            gone = "its process is gone"
    elif abs(age) > SILENT_SECONDS:
        gone = f"nothing was heard of it for {duration(abs(age))}"
    cells = {str(name): dict(cell) for name, cell in facts["cells"].items()}
    return Driver(
        path, printable(str(facts["host"])), int(facts["pid"]), here, gone, age, float(facts["began"]), int(facts["finished"]),
        int(facts["total"]), str(facts["left"]), cells,
    )  # fmt: skip


def running(found: list[Driver]) -> dict[str, dict[str, Any]]:
    """The cells that drivers at work run now: label, epochs, those finished (`epoch`), seconds, rate and time left."""
    return {
        identity: {**cell, "driver": f"{driver.host} {driver.pid}"}
        for driver in found
        if not driver.gone
        for identity, cell in driver.cells.items()
    }


def duration(seconds: float) -> str:
    """A time span for people: 42 s, 12 min, 3.5 h, 2.1 d."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f} h" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} d"
