"""From a results folder to a leaderboard: every record counted once, and a place for what has none.

The numbers come from the records alone, the words (labels, needs) and what is absent from the plans.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import canonical_json
from bench.records import load_summaries, record_files
from bench.report.leaderboard import PROTOCOLS_SHOWN, SHOWN, Board, Group, Row, Run, plain

_KEYS = tuple(f"{metric}_{protocol}" for metric in SHOWN for protocol in PROTOCOLS_SHOWN)
#: kinds of suite whose rows are trials or parts of a method, not competitors
ASIDE = {"tune": "tries settings", "ablation": "removes parts of a method", "sensitivity": "varies settings of a method"}
TUNING = "tuning-"
PLAN = "plan.json"
_ENTRY = {"id", "dataset", "noise", "method", "seed", "title", "needs", "networks", "skip"}


def suite_folders(results: Path) -> list[Path]:
    """Folders with a plan or records, by name."""
    folders = sorted(path for path in Path(results).iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if (folder / PLAN).exists() or record_files(folder)]


def left_out(name: str, manifest: Mapping[str, Any] | None) -> str | None:
    """Why a suite's records are no leaderboard, or None: its plan names such a kind, or its name begins with `tuning-`."""
    kind = (manifest or {}).get("kind")
    return ASIDE.get(str(kind)) or (ASIDE["tune"] if name.startswith(TUNING) else None)


def read_board(results: Path, tuning: bool = False) -> Board:
    """Read all records below `results`, one at a time; memory holds what is printed of each.

    Args:
        results: the folder with one folder per suite.
        tuning: count suites too that tune, remove parts, or vary settings.
    """
    board = Board()
    places: dict[str, tuple[str, str]] = {}
    manifests = {folder: _manifest(folder) for folder in suite_folders(results)}
    aside = {folder: None if tuning else left_out(folder.name, manifest) for folder, manifest in manifests.items()}
    states: dict[Path, dict[str, str]] = {folder: {} for folder in manifests}
    for path, kept, fault in load_summaries([path for folder in manifests for path in record_files(folder)], _keep):
        if kept is None:
            board.corrupt[f"{path.parent.name}/{path.name}"] = fault
        elif aside[path.parent] is None:
            _add(board, places, path.parent.name, kept)
        states[path.parent][path.name[: -len(".json")]] = "corrupt" if kept is None else kept.status
    for folder, manifest in manifests.items():
        entries, why = (manifest or {"entries": []})["entries"], aside[folder]
        board.states[folder.name] = _states([*entries, *((manifest or {}).get("trials") or ())], states[folder])
        if why is None:
            board.suites.append(folder.name)
            _apply_plan(board, places, folder.name, entries)
        else:
            board.aside[folder.name] = why
    for group in board.groups.values():
        _finish(group)
    return board


def _states(entries: Sequence[Mapping[str, Any]], found: Mapping[str, str]) -> Counter[str]:
    """Planned cells by state as `bench status` counts them, and records that the plan does not name."""
    planned: dict[str, str] = {}
    for entry in entries:
        if planned.get(entry["id"], "skipped") == "skipped":
            planned[entry["id"]] = "skipped" if entry["skip"] is not None else found.get(entry["id"], "missing")
    states = Counter(planned.values())
    states["unplanned"] = sum(identity not in planned for identity in found)
    return states


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record as one process hands it to another. `told`: definition, nominal and measured rate of the noise, kind of
    validation, number of test images, device, number of trusted samples."""

    group: str
    row: str
    cell: Mapping[str, Any]
    status: str
    run: tuple[Any, ...]
    told: tuple[Any, ...]
    networks: int


#: by the identity of a cell's `training`, which seeds share: that object, and the keys of group and row
_SEEN: dict[int, tuple[Any, str, str]] = {}


def _keys(cell: Mapping[str, Any]) -> tuple[str, str]:
    training = cell["training"]
    seen = _SEEN.get(id(training))
    if seen is None:
        if len(_SEEN) > 4096:
            _SEEN.clear()
        group = canonical_json([cell["dataset"], cell["noise"], cell["model"], training.get("epochs"), cell["protocol"]])
        seen = _SEEN[id(training)] = (training, group, canonical_json([cell["method"], training]))
    return seen[1], seen[2]


def _keep(record: dict[str, Any]) -> _Kept:
    cell = record["cell"]
    noise, data, cost, metrics, provenance = (record.get(k) or {} for k in ("noise", "data", "cost", "metrics", "provenance"))
    parts = [cost.get(key) for key in ("setup_seconds", "train_seconds", "eval_seconds", "stage_seconds")]
    seconds = sum(part for part in parts if part is not None) if cost else None
    seen = (data.get("n_train") or 0) * (cell["training"].get("epochs") or 0)
    work = None
    if seen and cost.get("forward_images") is not None and cost.get("backward_images") is not None:
        work = (cost["forward_images"] + 2 * cost["backward_images"]) / seen
    kept = tuple(metrics.get(key) for key in _KEYS)
    words = (noise.get("definition"), noise.get("nominal"), noise.get("rate"), data.get("validation"), data.get("n_test"),
             provenance.get("device"), data.get("trusted"))  # fmt: skip
    told = tuple(value if isinstance(value, str | int | float) and not isinstance(value, bool) else None for value in words)
    run = (record["id"], record["status"], record["reason"], kept, seconds, work, noise.get("sha256"), data.get("canonical"))
    networks = cost.get("networks")
    return _Kept(*_keys(cell), cell, record["status"], run, told, networks if isinstance(networks, int) else 1)


def _add(board: Board, places: dict[str, tuple[str, str]], suite: str, kept: _Kept) -> None:
    cell, run = kept.cell, _run(suite, *kept.run)
    known = places.get(run.id)
    if known is not None:
        _merge(board.groups[known[0]].rows[known[1]], cell["seed"], run, board)
        return
    group = board.groups.get(kept.group)
    if group is None:
        axes = (cell["dataset"], cell["noise"], cell["model"], cell["training"].get("epochs"), cell["protocol"])
        group = board.groups[kept.group] = Group(kept.group, *axes)
    row = group.rows.get(kept.row)
    if row is None:
        row = group.rows[kept.row] = Row(kept.row, cell["method"], cell["training"])
    row.runs[cell["seed"]] = run
    places[run.id] = (group.key, row.key)
    board.records += 1
    row.networks = max(row.networks, kept.networks)
    noise = (group.definitions, group.nominal, group.rates)
    sets: tuple[set[Any], ...] = (*noise, group.validation, group.tests, group.devices, row.trusted)
    for found, value in zip(sets, kept.told, strict=True):
        if value is not None:
            found.add(value)


def _run(
    suite: str, identity: str, status: str, reason: str | None, values: Sequence[Any], seconds: float | None, work: float | None,
    draw: Any, canonical: Any,
) -> Run:  # fmt: skip
    metrics = {key: value for key, value in zip(_KEYS, values, strict=True) if value is not None}
    shared = sys.intern(draw) if isinstance(draw, str) else None
    return Run(identity, suite, sys.intern(status), reason, metrics, seconds, work, shared, canonical)


def _merge(row: Row, seed: int, run: Run, board: Board) -> None:
    """The same cell in another suite's folder: a finished record wins over another, the first over its equals."""
    first = row.runs[seed]
    board.copies += 1
    if first.status == run.status == "done" and first.metrics != run.metrics:
        board.conflicts.append(f"cell {run.id}: {first.suite} and {run.suite} hold different results; {first.suite} is shown")
    if first.status != "done" and run.status == "done":
        row.runs[seed] = run


# -- plans -------------------------------------------------------------------------------------------------------------
def _manifest(folder: Path) -> dict[str, Any] | None:
    """The suite's plan, or None where there is none that can be used."""
    try:
        manifest = json.loads((folder / PLAN).read_bytes())
        return manifest if all(set(entry) >= _ENTRY for entry in manifest["entries"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _apply_plan(
    board: Board, places: Mapping[str, tuple[str, str]], suite: str, entries: Sequence[Mapping[str, Any]]
) -> None:  # fmt: skip
    """Labels for what ran; a place for what did not, beside what ran under the same labels in this suite."""
    at_method: dict[tuple[str, str, str], tuple[str, str]] = {}
    at_noise: dict[tuple[str, str], str] = {}
    absent = []
    for entry in entries:
        place = places.get(entry["id"])
        if place is None:
            absent.append(entry)
            continue
        group = board.groups[place[0]]
        group.labels = group.labels if group.labels[0] else (entry["dataset"], entry["noise"])
        _name(group.rows[place[1]], entry)
        at_method.setdefault((entry["dataset"], entry["noise"], entry["method"]), place)
        at_noise.setdefault((entry["dataset"], entry["noise"]), place[0])
    for entry in absent:
        _place(board, suite, entry, at_method, at_noise)


def _name(row: Row, entry: Mapping[str, Any]) -> None:
    if not row.label:
        row.label, row.plan_label = entry.get("title") or entry["method"], entry["method"]
    row.needs = tuple(dict.fromkeys([*row.needs, *(entry.get("needs") or ())]))
    row.networks = max(row.networks, entry.get("networks") or 1)


def _place(
    board: Board, suite: str, entry: Mapping[str, Any],
    at_method: Mapping[tuple[str, str, str], tuple[str, str]], at_noise: Mapping[tuple[str, str], str],
) -> None:  # fmt: skip
    dataset, noise, method = entry["dataset"], entry["noise"], entry["method"]
    status, reason = ("skipped", entry["skip"]) if entry.get("skip") is not None else ("missing", None)
    if f"{suite}/{entry['id']}.json" in board.corrupt:
        status, reason = "failed", "its record is corrupt"
    place = at_method.get((dataset, noise, method))
    key = place[0] if place else at_noise.get((dataset, noise))
    if key is None:
        what = (suite, dataset, noise, status, reason)
        board.unplaced[what] = board.unplaced.get(what, 0) + 1
        return
    rows = board.groups[key].rows
    planned = f"planned {method}"
    row = rows[place[1]] if place else rows.setdefault(planned, Row(planned, {"name": method}, {}))
    _name(row, entry)
    row.absent.setdefault(entry["seed"], (status, reason))


def _finish(group: Group) -> None:
    """Labels where no plan gave one, and apart where rows share one."""
    if not group.labels[0]:
        rate = group.noise.get("rate")
        kind = str(group.noise.get("kind")) + (f"@{rate:g}" if isinstance(rate, int | float) else "")
        group.labels = (str(group.dataset.get("name")), kind)
    sharing: dict[str, list[Row]] = {}
    for row in group.rows.values():
        row.label = row.label or str(row.method.get("name"))
        sharing.setdefault(row.label, []).append(row)
    for rows in sharing.values():
        if len(rows) > 1:
            _tell_apart(rows)


def _tell_apart(rows: Sequence[Row]) -> None:
    """Add to each label the settings in which the rows differ."""
    flat = [_settings(row) for row in rows]
    keys = sorted({key for settings in flat for key in settings})
    differing = [key for key in keys if len({canonical_json(settings.get(key)) for settings in flat}) > 1]
    for row, settings in zip(rows, flat, strict=True):
        own = [f"{key.split('.', 1)[-1]} {plain(settings[key])}" for key in differing if key in settings]
        row.label += f" ({', '.join(own)})" if own else ""


def _settings(row: Row) -> dict[str, Any]:
    found = {f"m.{key}": value for key, value in (row.method.get("params") or {}).items()}
    found |= {f"t.{key}": value for key, value in row.training.items()}
    found |= {f"a.{key}": row.method[key] for key in ("name", "version") if key in row.method}
    return found
