"""The state of every cell of a plan, from the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import RecordError, load_record, record_files, record_path


@dataclass(frozen=True)
class Scan:
    """What the results folder holds of a plan: records by id, files that are corrupt or cannot be read by id, and the state
    of every cell."""

    records: dict[str, dict[str, Any]]
    corrupt: dict[str, str]
    states: dict[str, str]

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.states.values()))


def scan(entries: Sequence[Mapping[str, Any]], folder: Path) -> Scan:
    """States by id: done, failed, diverged, skipped, missing, or corrupt, unreadable (the message of the loader is kept)."""
    records: dict[str, dict[str, Any]] = {}
    corrupt: dict[str, str] = {}
    states: dict[str, str] = {}
    present = {path.stem for path in record_files(folder)}
    for entry in entries:
        identity = entry["id"]
        if identity in states and states[identity] != "skipped":
            continue
        if entry["skip"]:
            states[identity] = "skipped"
        elif identity not in present:
            states[identity] = "missing"
        else:
            try:
                records[identity] = load_record(record_path(folder, identity))
                states[identity] = records[identity]["status"]
            except RecordError as error:
                corrupt[identity], states[identity] = str(error), "unreadable" if error.unreadable else "corrupt"
    return Scan(records, corrupt, states)
