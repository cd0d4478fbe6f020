"""From plan entries and records to the numbers of a table: which seeds count, their mean and spread, and why some are
missing.

Nothing is averaged silently: an aggregate carries how many seeds were planned, how many entered the mean, and one line
for each reason why the others did not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.spec import AXES, DEFAULT_METRICS, PROTOCOLS, TableSpec

# How an outcome is told in a footnote. "done" needs no telling.
PHRASES = {
    "failed": "failed",
    "diverged": "not converged",
    "skipped": "skipped",
    "missing": "not run",
    "unmeasured": "not measured",
}


@dataclass(frozen=True)
class Outcome:
    """One planned seed: status is done, failed, diverged, skipped, or missing (planned and without a record)."""

    entry: Mapping[str, Any]
    status: str
    reason: str | None
    record: Mapping[str, Any] | None

    @property
    def done(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True)
class Aggregate:
    """One metric under one protocol over the seeds of a (method, noise, data set).

    status: done (every planned seed has a value), partial (some have), or, without any value, diverged, failed,
    skipped, missing (also for a mixture), unmeasured (it ran, but this was not recorded), unplanned (not in the suite).
    mean and spread are fractions; spread is the sample standard deviation (ddof = 1), None below two seeds.
    counts: number of seeds by status. reasons: one text for each cause of an absent value, as a footnote says it.
    """

    metric: str
    protocol: str
    status: str
    mean: float | None
    spread: float | None
    n: int
    n_planned: int
    counts: Mapping[str, int]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class MethodInfo:
    label: str
    needs: tuple[str, ...]
    networks: int


@dataclass(frozen=True)
class Block:
    """One table of a report (by default: one data set). Keys are (row, column) and (row, column, metric, protocol)."""

    key: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metrics: Mapping[str, tuple[str, ...]]
    outcomes: Mapping[tuple[str, str], tuple[Outcome, ...]]
    aggregates: Mapping[tuple[str, str, str, str], Aggregate]

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The records that numbers of this block come from."""
        return [o.record for group in self.outcomes.values() for o in group if o.done and o.record is not None]

    @property
    def common_n(self) -> int | None:
        """The number of planned seeds when it is the same in every planned cell, else None."""
        sizes = {len(group) for group in self.outcomes.values() if group}
        return sizes.pop() if len(sizes) == 1 else None


@dataclass(frozen=True)
class TableData:
    suite: str
    title: str
    methods: Mapping[str, MethodInfo]
    blocks: tuple[Block, ...]


def table_data(plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], spec: TableSpec) -> TableData:
    """Aggregate the records that `plan` names; records of other cells are left aside.

    Raises ValueError when the plan holds the same (data set, noise, method, seed) twice.
    """
    entries = plan["entries"]
    _refuse_duplicates(entries)
    blocks: dict[str, list[Outcome]] = {}
    for entry in entries:
        blocks.setdefault(entry[spec.split_by], []).append(outcome_of(entry, records.get(entry["id"])))
    return TableData(
        suite=plan["suite"],
        title=spec.title or plan["suite"],
        methods=method_infos(entries),
        blocks=tuple(_block(key, outcomes, spec) for key, outcomes in blocks.items()),
    )


def outcome_of(entry: Mapping[str, Any], record: Mapping[str, Any] | None) -> Outcome:
    """What became of a planned cell. An exclude rule of the suite wins over a record left from before the rule."""
    if entry.get("skip") is not None:
        return Outcome(entry, "skipped", entry["skip"], None)
    if record is None:
        return Outcome(entry, "missing", None, None)
    return Outcome(entry, record["status"], record.get("reason"), record)


def method_infos(entries: Sequence[Mapping[str, Any]]) -> dict[str, MethodInfo]:
    """Label, needs and networks of every method, in plan order. Methods that share a title get their key beside it."""
    titles: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    networks: dict[str, int] = {}
    for entry in entries:
        key = entry["method"]
        titles.setdefault(key, entry.get("title") or key)
        known = needs.setdefault(key, [])
        known.extend(need for need in entry.get("needs") or () if need not in known)
        networks[key] = max(networks.get(key, 1), entry.get("networks") or 1)
    shared = {title for title in titles.values() if list(titles.values()).count(title) > 1}
    return {
        key: MethodInfo(f"{title} ({key})" if title in shared else title, tuple(needs[key]), networks[key])
        for key, title in titles.items()
    }


def summarize(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (ddof = 1); None where there are too few values."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def aggregate_cell(outcomes: Sequence[Outcome], metric: str, protocol: str) -> Aggregate:
    """Aggregate one metric under one protocol over the planned seeds of a cell."""
    values: list[float] = []
    causes: dict[tuple[str, str | None], int] = {}
    for outcome in outcomes:
        status, reason, value = _value(outcome, f"{metric}_{protocol}")
        if value is not None:
            values.append(value)
        else:
            causes[status, reason] = causes.get((status, reason), 0) + 1
    mean, spread = summarize(values)
    counts = {"done": len(values)} if values else {}
    for (status, _), number in causes.items():
        counts[status] = counts.get(status, 0) + number
    n_planned = len(outcomes)
    reasons = tuple(_reason(status, reason, number, n_planned) for (status, reason), number in causes.items())
    return Aggregate(metric, protocol, _status(counts), mean, spread, len(values), n_planned, counts, reasons)


def _value(outcome: Outcome, key: str) -> tuple[str, str | None, float | None]:
    """Status, reason and value of one seed; a value that is not a finite number counts as a failure."""
    if not outcome.done or outcome.record is None:
        return outcome.status, outcome.reason, None
    value = (outcome.record.get("metrics") or {}).get(key)
    if value is None:
        return "unmeasured", None, None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "failed", f"{key} is {value!r}, not a finite number", None
    return "done", None, float(value)


def _status(counts: Mapping[str, int]) -> str:
    if not counts:
        return "unplanned"
    if "done" in counts:
        return "done" if len(counts) == 1 else "partial"
    if "unmeasured" in counts:
        return "unmeasured"
    return next(iter(counts)) if len(counts) == 1 else "missing"


def _reason(status: str, reason: str | None, number: int, n_planned: int) -> str:
    share = f"{number} of {n_planned} seeds" if n_planned > 1 else ""
    text = f"{PHRASES.get(status, status)} ({share})" if share else PHRASES.get(status, status)
    if reason:
        return f"{text}: {reason}"
    return text if status in ("missing", "unmeasured") else f"{text}: no reason recorded"


def _block(key: str, outcomes: Sequence[Outcome], spec: TableSpec) -> Block:
    rows = tuple(dict.fromkeys(o.entry[spec.rows] for o in outcomes))
    columns = tuple(dict.fromkeys(o.entry[spec.columns] for o in outcomes))
    cells: dict[tuple[str, str], list[Outcome]] = {(row, column): [] for row in rows for column in columns}
    for outcome in outcomes:
        cells[outcome.entry[spec.rows], outcome.entry[spec.columns]].append(outcome)
    metrics = _metrics_by_column(cells, columns, spec)
    aggregates = {
        (row, column, metric, protocol): aggregate_cell(group, metric, protocol)
        for (row, column), group in cells.items()
        for metric in metrics[column]
        for protocol in spec.shown_protocols
    }
    return Block(key, rows, columns, metrics, {at: tuple(group) for at, group in cells.items()}, aggregates)


def _metrics_by_column(
    cells: Mapping[tuple[str, str], Sequence[Outcome]], columns: Sequence[str], spec: TableSpec
) -> dict[str, tuple[str, ...]]:
    """The wanted metrics that records of a column hold. A column without records takes those of the whole block, and a
    block without records the first wanted one."""
    wanted = spec.metrics or DEFAULT_METRICS

    def measured(keys: set[str]) -> tuple[str, ...]:
        return tuple(m for m in wanted if any(f"{m}_{protocol}" in keys for protocol in PROTOCOLS))

    keys: dict[str, set[str]] = {column: set() for column in columns}
    for (_, column), group in cells.items():
        for outcome in group:
            if outcome.done and outcome.record is not None:
                values = outcome.record.get("metrics") or {}
                keys[column].update(key for key, value in values.items() if value is not None)
    fallback = measured(set().union(*keys.values())) or wanted[:1]
    return {column: measured(keys[column]) or fallback for column in columns}


def _refuse_duplicates(entries: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[tuple[Any, ...], str] = {}
    for entry in entries:
        at = (*(entry[axis] for axis in AXES), entry["seed"])
        if at in seen:
            where = ", ".join(f"{axis} {entry[axis]!r}" for axis in AXES)
            raise ValueError(
                f"the plan holds {where}, seed {entry['seed']} twice (cells {seen[at]} and {entry['id']}): "
                "give one of the two methods another label"
            )
        seen[at] = entry["id"]
