"""How long cells will take, from the records of earlier ones of the same method, data and model: seconds of training per
epoch and image, seconds of evaluation per epoch.

Only what was measured counts: a cell whose method has no record on its data set and model is unknown, and the estimate says so.
Label-free pre-training (stages) is shared between cells and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.cell import canonical_json
from bench.live import duration
from bench.records import RecordError, load_summary, record_files

MAX_RECORDS = 5000  # of other plans, the newest; reading one takes a fraction of a millisecond
Key = tuple[str, str, str, str]


class Rate(NamedTuple):
    """Medians over `records` finished cells: seconds of setup, of training per epoch over all images, of evaluation per epoch."""

    setup: float
    train: float
    evaluation: float
    records: int

    def seconds(self, cell: Mapping[str, Any]) -> float:
        """Of a cell that trains on all images or on a fraction of them; the images of evaluation stay the same."""
        return self.setup + cell["training"]["epochs"] * (self.train * _fraction(cell) + self.evaluation)


def _fraction(cell: Mapping[str, Any]) -> float:
    return float(cell["protocol"].get("train_fraction", 1.0))


def _key(cell: Mapping[str, Any], device: str, texts: dict[int, str]) -> Key:
    """`texts` remembers the text of axes that cells share, by `id`, as long as the cells live."""
    for axis in ("dataset", "model"):
        if id(cell[axis]) not in texts:
            texts[id(cell[axis])] = canonical_json(cell[axis])
    return cell["method"]["name"], texts[id(cell["dataset"])], texts[id(cell["model"])], device


def _sample(record: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """(setup, training per epoch over all images, evaluation per epoch) of a finished cell that was timed; None of any other."""
    cost, cell = record.get("cost") or {}, record["cell"]
    epochs = cell["training"]["epochs"]
    train, evaluation = cost.get("train_seconds") or 0.0, cost.get("eval_seconds") or 0.0
    if record["status"] != "done" or not epochs or train + evaluation <= 0:
        return None
    return cost.get("setup_seconds") or 0.0, train / (epochs * _fraction(cell)), evaluation / epochs


def rates(records: Iterable[Mapping[str, Any]]) -> dict[Key, Rate]:
    """What the finished ones of these records say, by method, data set, model and kind of device."""
    samples: dict[Key, list[tuple[float, float, float]]] = {}
    for record in records:
        sample = _sample(record)
        if sample is not None:
            device = str((record["provenance"] or {}).get("device") or "").partition(":")[0] or "cpu"
            samples.setdefault(_key(record["cell"], device, {}), []).append(sample)
    return {
        key: Rate(median(s[0] for s in found), median(s[1] for s in found), median(s[2] for s in found), len(found))
        for key, found in samples.items()
    }


def known_rates(own: Mapping[str, Mapping[str, Any]], folder: Path, wanted: set[Key]) -> dict[Key, Rate]:
    """`rates` of a plan's own records; where `wanted` has more, also of all others in its folder and in those beside it."""
    found = rates(own.values())
    missing = wanted - set(found)
    if not missing:
        return found
    others = [path for suite in sorted(folder.parent.glob("*")) for path in record_files(suite) if path.stem not in own]
    if len(others) > MAX_RECORDS:
        others = sorted(others, key=_changed)[-MAX_RECORDS:]
    distinct = {path.stem: path for path in others}.values()
    read = rates(record for path in distinct if (record := _readable(path)) is not None)
    return {key: rate for key, rate in read.items() if key in missing} | found


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _readable(path: Path) -> dict[str, Any] | None:
    try:
        return load_summary(path)
    except RecordError:
        return None


def estimate(
    cells: Sequence[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]], folder: Path, resources: Any
) -> dict[str, Any]:
    """Estimate for the cells of a plan that have no record, `cells` as `bench plan --json` lists them. JSON values.

    `seconds`: of all known cells, one after the other; `slots`: how many run at a time here, several numbers where methods have
    shares of their own; `unknown`: (data set, method) with their number of cells; `cells`: each cell's own seconds, by id.
    """
    todo = {cell["id"]: cell for cell in cells if cell["state"] == "missing"}
    texts: dict[int, str] = {}
    shares = {identity: resources.share(cell["cell"]["method"]["name"], cell["method"]) for identity, cell in todo.items()}
    keys = {
        identity: _key(cell["cell"], "cuda" if shares[identity][1] > 0 else "cpu", texts) for identity, cell in todo.items()
    }
    known = known_rates(records, folder, set(keys.values())) if todo else {}
    timed = {identity: known[key] for identity, key in keys.items() if key in known}
    seconds = {identity: rate.seconds(todo[identity]["cell"]) for identity, rate in timed.items()}
    unknown: dict[tuple[str, str], int] = {}
    for identity, cell in todo.items():
        if identity not in seconds:
            row = cell["dataset"], cell["method"]
            unknown[row] = unknown.get(row, 0) + 1
    used = {keys[identity] for identity in seconds}
    total, longest = sum(seconds.values()), max(seconds.values(), default=0.0)
    at_a_time = {
        share: min(_slots(share[0], share[1], resources.max_concurrent), len(todo)) for share in set(shares.values())
    }
    occupied = sum(value / at_a_time[shares[identity]] for identity, value in seconds.items())  # the machine, in seconds
    return {
        "to_run": len(todo), "known": len(seconds), "records": sum(known[key].records for key in used),
        "devices": sorted({key[3] for key in keys.values()}), "slots": sorted(set(at_a_time.values())),
        "seconds": round(total, 1), "hours": round(max(occupied, longest) / 3600, 4),
        "unknown": [{"dataset": dataset, "method": method, "cells": count} for (dataset, method), count in unknown.items()],
        "cells": {identity: round(value, 1) for identity, value in seconds.items()},
    }  # fmt: skip


def _slots(cpu: float, gpu: float, max_concurrent: int | None) -> int:
    """How many cells with these shares run at a time on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = int(cores / cpu)
    if gpu > 0:
        import torch

        slots = min(slots, int(torch.cuda.device_count() / gpu))
    return max(1, min(slots, max_concurrent or slots))


def estimate_text(found: Mapping[str, Any]) -> list[str]:
    """The estimate in one or two lines; none where nothing is to be run."""
    if not found["to_run"]:
        return []
    lines = []
    if found["known"]:
        slots = " or ".join(map(str, found["slots"]))
        lines.append(
            f"estimated: {duration(found['hours'] * 3600)} for {found['known']} of {found['to_run']} cells, {slots} at "
            f"a time on this machine ({duration(found['seconds'])} one after the other); from {found['records']} records, "
            "pre-training not counted"
        )
    if found["unknown"]:
        rows = [f"{row['method']} on {row['dataset']} ({row['cells']})" for row in found["unknown"]]
        shown = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        count = sum(row["cells"] for row in found["unknown"])
        lines.append(f"time unknown of {count} cells, no record of the method on this data set, model and device: {shown}")
    return lines
