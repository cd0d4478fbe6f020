"""The leaderboard of a results folder: every record counted once, in groups whose rows may be compared.

A group is one (data set, noise, backbone, epochs, protocol of validation), each with all its conventions, so that neither
budgets nor definitions mix; a row is one (method, version, settings). The numbers come from the records alone, the words
(labels, needs) and what is absent from the plans. `leaderboard_text` prints it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.cell import canonical_json
from bench.records import load_summaries, record_files
from bench.report.aggregate import Aggregate, Outcome, aggregate_cell

#: metrics with columns of their own where records hold them
SHOWN = ("test_acc", "worst_group_acc", "test2_acc")
PROTOCOLS_SHOWN = ("last", "best_oracle", "selected")
_KEYS = tuple(f"{metric}_{protocol}" for metric in SHOWN for protocol in PROTOCOLS_SHOWN)
#: kinds of suite whose rows are trials or parts of a method, not competitors
ASIDE = {"tune": "tries settings", "ablation": "removes parts of a method", "sensitivity": "varies settings of a method"}
TUNING = "tuning-"


@dataclass(frozen=True, slots=True)
class Run:
    """What a leaderboard keeps of a record. `work`: forward-equivalents per training image and epoch."""

    id: str
    suite: str
    status: str
    reason: str | None
    metrics: Mapping[str, Any]
    seconds: float | None
    work: float | None
    draw: str | None
    canonical: bool | None


@dataclass
class Row:
    method: Mapping[str, Any]
    training: Mapping[str, Any]
    label: str = ""
    plan_label: str = ""
    needs: tuple[str, ...] = ()
    networks: int = 1
    trusted: set[int] = field(default_factory=set)
    runs: dict[int, Run] = field(default_factory=dict)
    absent: dict[int, tuple[str, str | None]] = field(default_factory=dict)

    @property
    def outcomes(self) -> list[Outcome]:
        """One for each seed that ran or that a plan names."""
        ran = [(seed, Outcome({}, run.status, run.reason, {"metrics": run.metrics})) for seed, run in self.runs.items()]
        planned = [(s, Outcome({}, status, reason, None)) for s, (status, reason) in self.absent.items() if s not in self.runs]
        return [outcome for _, outcome in sorted(ran + planned, key=lambda pair: pair[0])]


@dataclass
class Group:
    """Rows that may be compared. The sets collect what the records say, to be told above the table."""

    key: str
    dataset: Mapping[str, Any]
    noise: Mapping[str, Any]
    model: Mapping[str, Any]
    epochs: int | None
    protocol: Mapping[str, Any]
    labels: tuple[str, str] = ("", "")
    rows: dict[str, Row] = field(default_factory=dict)
    definitions: set[str] = field(default_factory=set)
    nominal: set[float] = field(default_factory=set)
    rates: set[float] = field(default_factory=set)
    validation: set[str] = field(default_factory=set)
    tests: set[int] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        held = {key for row in self.rows.values() for run in row.runs.values() for key in run.metrics}
        return tuple(metric for metric in SHOWN if any(f"{metric}_{protocol}" in held for protocol in PROTOCOLS_SHOWN))

    @cached_property
    def aggregates(self) -> dict[tuple[str, str, str], Aggregate]:
        """By (row key, metric, protocol)."""
        outcomes = {key: row.outcomes for key, row in self.rows.items()}
        return {
            (key, metric, protocol): aggregate_cell(found, metric, protocol)
            for key, found in outcomes.items()
            for metric in self.metrics or SHOWN[:1]
            for protocol in PROTOCOLS_SHOWN
        }

    @cached_property
    def ranking(self) -> tuple[str, str]:
        """Metric and protocol of the ranks: the worst group where there are groups; the epoch that validation selects, and the
        last one where some finished row has no validation data. Never the epoch that the test labels choose."""
        metric = "worst_group_acc" if "worst_group_acc" in self.metrics else "test_acc"
        finished = [key for key in self.rows if self.aggregates[key, metric, "last"].status == "done"]
        selected = all(self.aggregates[key, metric, "selected"].status == "done" for key in finished)
        return metric, "selected" if selected else "last"

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Rank by row key, equal at the printed precision (0.1 points): 1, 2, 2, 4. Rows with absent seeds have none."""
        found = {key: self.aggregates[key, *self.ranking] for key in self.rows}
        whole = {key: item.mean for key, item in found.items() if item.status == "done" and item.mean is not None}
        values = {key: round(100 * mean, 1) for key, mean in whole.items()}
        return {key: 1 + sum(other > value for other in values.values()) for key, value in values.items()}

    @property
    def title(self) -> str:
        return f"{self.labels[0]}, {self.labels[1]}"


@dataclass
class Board:
    groups: dict[str, Group] = field(default_factory=dict)
    #: (suite, data set, noise, status, reason) -> cells of which not even the group is known
    unplaced: dict[tuple[str, str, str, str, str | None], int] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)
    suites: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)
    #: by suite, those left out too: number of cells by state
    states: dict[str, Counter[str]] = field(default_factory=dict)
    records: int = 0
    copies: int = 0

    def ordered(self) -> list[Group]:
        return sorted(self.groups.values(), key=lambda group: (*group.labels, group.key))


def suite_folders(results: Path) -> list[Path]:
    """Folders with a plan or records, by name."""
    folders = sorted(path for path in Path(results).iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if (folder / "plan.json").exists() or record_files(folder)]


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
    for path, record, fault in load_summaries([path for folder in manifests for path in record_files(folder)]):
        if record is None:
            board.corrupt[f"{path.parent.name}/{path.name}"] = fault
        elif aside[path.parent] is None:
            _add(board, places, path.parent.name, record)
        states[path.parent][path.stem] = "corrupt" if record is None else sys.intern(record["status"])
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


def _add(board: Board, places: dict[str, tuple[str, str]], suite: str, record: Mapping[str, Any]) -> None:
    identity, cell = record["id"], record["cell"]
    known = places.get(identity)
    if known is not None:
        _merge(board.groups[known[0]].rows[known[1]], cell["seed"], _run(suite, record), board)
        return
    training = cell["training"]
    epochs = training.get("epochs")
    key = canonical_json([cell["dataset"], cell["noise"], cell["model"], epochs, cell["protocol"]])
    row_key = sys.intern(canonical_json([cell["method"], training]))
    group = board.groups.get(key)
    if group is None:
        group = board.groups[key] = Group(key, cell["dataset"], cell["noise"], cell["model"], epochs, cell["protocol"])
    row = group.rows.get(row_key)
    if row is None:
        row = group.rows[row_key] = Row(cell["method"], training)
    row.runs[cell["seed"]] = _run(suite, record)
    places[identity] = (group.key, row_key)
    board.records += 1
    _tell(group, row, record)


def _run(suite: str, record: Mapping[str, Any]) -> Run:
    cost, metrics, data = (record.get(key) or {} for key in ("cost", "metrics", "data"))
    parts = [cost.get(key) for key in ("setup_seconds", "train_seconds", "eval_seconds", "stage_seconds")]
    seconds = sum(part for part in parts if part is not None) if cost else None
    seen = (data.get("n_train") or 0) * (record["cell"]["training"].get("epochs") or 0)
    work = None
    if seen and cost.get("forward_images") is not None and cost.get("backward_images") is not None:
        work = (cost["forward_images"] + 2 * cost["backward_images"]) / seen
    kept = {key: metrics[key] for key in _KEYS if metrics.get(key) is not None}
    draw = (record.get("noise") or {}).get("sha256")
    return Run(
        record["id"], suite, sys.intern(record["status"]), record["reason"], kept, seconds, work,
        sys.intern(draw) if isinstance(draw, str) else None, data.get("canonical"),
    )  # fmt: skip


def _merge(row: Row, seed: int, run: Run, board: Board) -> None:
    """The same cell in another suite's folder: a finished record wins over another, the first over its equals."""
    first = row.runs[seed]
    board.copies += 1
    if first.status == run.status == "done" and first.metrics != run.metrics:
        board.conflicts.append(f"cell {run.id}: {first.suite} and {run.suite} hold different results; {first.suite} is shown")
    if first.status != "done" and run.status == "done":
        row.runs[seed] = run


def _tell(group: Group, row: Row, record: Mapping[str, Any]) -> None:
    noise, data, cost, provenance = (record.get(key) or {} for key in ("noise", "data", "cost", "provenance"))
    told: tuple[tuple[set[Any], Any], ...] = (
        (group.definitions, noise.get("definition")), (group.nominal, noise.get("nominal")), (group.rates, noise.get("rate")),
        (group.validation, data.get("validation")), (group.tests, data.get("n_test")), (group.devices, provenance.get("device")),
        (row.trusted, data.get("trusted")),
    )  # fmt: skip
    for found, value in told:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found.add(value)
    if isinstance(cost.get("networks"), int):
        row.networks = max(row.networks, cost["networks"])


# -- plans -------------------------------------------------------------------------------------------------------------
def _manifest(folder: Path) -> dict[str, Any] | None:
    from bench.api import MANIFEST, read_manifest

    return read_manifest(folder / MANIFEST)


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
    row = rows[place[1]] if place else rows.setdefault(f"planned {method}", Row({"name": method}, {}))
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


def usual_training(group: Group) -> Mapping[str, Any]:
    """The settings of training that most rows of the group share; the first in canonical order on a tie."""
    counts: dict[str, list[Row]] = {}
    for row in group.rows.values():
        if row.training:
            counts.setdefault(canonical_json(row.training), []).append(row)
    return counts[max(sorted(counts), key=lambda text: len(counts[text]))][0].training if counts else {}


def own_training(row: Row, usual: Mapping[str, Any]) -> str:
    """'lr 0.1 (else 0.05), ...': how a row's settings of training differ from the usual ones of its group."""
    keys = [key for key in sorted({*row.training, *usual}) if row.training.get(key) != usual.get(key)] if row.training else []
    return ", ".join(f"{key} {plain(row.training.get(key))} (else {plain(usual.get(key))})" for key in keys)


def plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(plain(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
