"""What a leaderboard holds: groups whose rows may be compared, and their ranks.

A group is one (data set, noise, backbone, epochs, protocol of validation), each with all its conventions, so that neither
budgets nor definitions mix; a row is one (method, version, settings). `leaderboard_read` fills it, `leaderboard_text` prints it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.cell import canonical_json
from bench.report.aggregate import Aggregate, Outcome, aggregate_cell, summarize

#: metrics with columns of their own where records hold them
SHOWN = ("test_acc", "worst_group_acc", "test2_acc")
PROTOCOLS_SHOWN = ("last", "best_oracle", "selected")


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
    key: str
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
    def seeds(self) -> dict[str, frozenset[int]]:
        """By the key of each row without absent seeds, its seeds."""
        done = (key for key in self.rows if self.aggregates[key, *self.ranking].status == "done")
        return {key: frozenset(self.rows[key].runs) for key in done}

    @cached_property
    def shared(self) -> frozenset[int]:
        """The seeds that ranks are about: those of most rows; of equally frequent sets the larger one, then the lower seeds."""
        counts = Counter(self.seeds.values())
        return max(counts, key=lambda s: (counts[s], len(s), [-seed for seed in sorted(s)]), default=frozenset())

    @cached_property
    def shared_means(self) -> dict[str, float]:
        """Of the rows with all shared seeds, the means over these alone: means over unequal draws of the noise do not compare."""
        name, shared = "_".join(self.ranking), sorted(self.shared)
        whole = [key for key, seeds in self.seeds.items() if seeds >= self.shared]
        values = {key: [self.rows[key].runs[seed].metrics[name] for seed in shared] for key in whole}
        return {key: mean for key, found in values.items() if (mean := summarize(found)[0]) is not None}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Rank by row key on the shared seeds, equal at the printed precision (0.1 points): 1, 2, 2, 4."""
        values = {key: round(100 * mean, 1) for key, mean in self.shared_means.items()}
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
