"""What the tables of the site show: one row for each planned (data set, noise, method), with every metric and protocol."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.report.aggregate import PHRASES, Aggregate, Block, Outcome, TableData, outcome_of, table_data
from bench.report.captions import caption, conditions, method_notes, noise_notes, non_canonical, protocol_label
from bench.report.layout import percent, rank_methods
from bench.report.published import quotes
from bench.report.site import SiteSuite
from bench.report.site.charts import Points, points, sparkline
from bench.report.site.names import file_name
from bench.report.spec import METRICS, PROTOCOLS, TableSpec

SPEC = TableSpec(metrics=tuple(METRICS), protocols=tuple(PROTOCOLS), underline_second=False)
# States of a row or a cell, the most telling first; 'partial' is a row of which some seeds are done.
STATES = {"done": "done", "partial": "partly done", **{key: text for key, text in PHRASES.items() if key != "unmeasured"}}


@dataclass(frozen=True)
class Column:
    """A switchable column: keys for the script, label for the reader."""

    metric: str
    protocol: str
    label: str
    metric_label: str
    protocol_label: str


@dataclass(frozen=True)
class Value:
    """`text` as printed; `key` sorts (a fraction with all its digits), '' where there is no number."""

    text: str
    key: str = ""
    best: bool = False


@dataclass(frozen=True)
class Seed:
    seed: Any
    status: str
    page: str  # '' where there is no record


@dataclass(frozen=True)
class Row:
    suite: str
    method: str
    method_page: str
    marks: list[str]
    dataset: str
    noise: str
    values: dict[tuple[str, str], Value]
    published: list[str]
    seeds: list[Seed]
    state: str
    reasons: list[str]
    canonical: bool
    spark: Markup


@dataclass(frozen=True)
class MethodUse:
    """A method as a suite uses it: its label there, its slug (what its cells say), and what one reads about it."""

    label: str
    slug: str
    title: str
    needs: tuple[str, ...]
    networks: int


@dataclass(frozen=True)
class Notes:
    """The words below a table, from the captions of the other formats."""

    methods: list[tuple[str, str]]
    caption: list[str]
    blocks: list[tuple[str, str, list[tuple[str, str]]]]  # data set, conditions, noises


@dataclass(frozen=True)
class SuiteView:
    name: str
    folder: str
    title: str
    description: str
    columns: list[Column]
    rows: list[Row]
    counts: dict[str, int]
    notes: Notes
    others: list[Outcome]
    methods: dict[str, MethodUse]
    entries: Mapping[str, Mapping[str, Any]]
    seeds: Mapping[tuple[str, str, str], list[Mapping[str, Any]]]  # entries by data set, noise and method


def suite_view(suite: SiteSuite) -> SuiteView:
    """Everything that the pages show of a suite. Records that the plan does not name are `others`."""
    plan = {"suite": suite.name, "entries": list(suite.entries)}
    data = table_data(plan, suite.records, SPEC)
    uses = _uses(suite)
    folder = file_name(suite.name)
    marks, method_texts = method_notes(data, data.methods)
    planned = {entry["id"]: entry for entry in suite.entries}
    others = [outcome_of(entry_of(record), record) for key, record in suite.records.items() if key not in planned]
    seeds: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in suite.entries:
        seeds.setdefault((entry["dataset"], entry["noise"], entry["method"]), []).append(entry)
    counts: dict[str, int] = {}
    for block in data.blocks:
        for outcome in (outcome for group in block.outcomes.values() for outcome in group):
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
    return SuiteView(
        suite.name, folder, suite.title or suite.name, suite.description, _columns(data),
        [row for block in data.blocks for row in _rows(block, data, folder, suite.name, uses, marks)],
        {status: counts[status] for status in STATES if status in counts}, _notes(data, method_texts),
        others, uses, planned, seeds,
    )  # fmt: skip


def entry_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A plan entry for a record without one, as far as its cell tells."""
    cell = record["cell"]
    noise = cell.get("noise") or {}
    rate = f"@{noise['rate']:g}" if isinstance(noise.get("rate"), int | float) else ""
    method = str((cell.get("method") or {}).get("name"))
    return {
        "id": record["id"], "dataset": str((cell.get("dataset") or {}).get("name")), "noise": f"{noise.get('kind')}{rate}",
        "method": method, "seed": cell.get("seed"), "title": method, "needs": [], "networks": 1, "skip": None,
    }  # fmt: skip


def columns_of(views: Iterable[SuiteView]) -> list[Column]:
    """The columns of several suites in one table, whose numbers of last epochs may differ."""
    found: dict[tuple[str, str], Column] = {}
    for column in (column for view in views for column in view.columns):
        at = (column.metric, column.protocol)
        known = found.setdefault(at, column)
        if known.protocol_label != column.protocol_label:
            found[at] = _column(column.metric, column.protocol, PROTOCOLS[column.protocol].label.format(k="k"))
    return [found[m, p] for m in METRICS for p in PROTOCOLS if (m, p) in found]


def _columns(data: TableData) -> list[Column]:
    shown = {metric for block in data.blocks for names in block.metrics.values() for metric in names}
    labels: dict[str, set[str]] = {p: {protocol_label(p, block) for block in data.blocks} for p in PROTOCOLS}
    return [
        _column(m, p, labels[p].pop() if len(labels[p]) == 1 else PROTOCOLS[p].label.format(k="k"))
        for m in METRICS if m in shown for p in PROTOCOLS
    ] if data.blocks else []  # fmt: skip


def _column(metric: str, protocol: str, protocol_name: str) -> Column:
    name = METRICS[metric].label
    return Column(metric, protocol, f"{name} {protocol_name}", name, protocol_name)


def _uses(suite: SiteSuite) -> dict[str, MethodUse]:
    """By plan label. The slug is what the cells of its records say; without records, the label up to its settings."""
    uses: dict[str, MethodUse] = {}
    for entry in suite.entries:
        label = entry["method"]
        record = suite.records.get(entry["id"])
        if label in uses and (record is None or uses[label].slug != label):
            continue
        name = ((record or {}).get("cell") or {}).get("method", {}).get("name")
        slug = str(name or str(label).partition(" (")[0])
        title, needs = entry.get("title") or label, tuple(entry.get("needs") or ())
        uses[label] = MethodUse(label, slug, title, needs, entry.get("networks") or 1)
    return uses


def _rows(
    block: Block, data: TableData, folder: str, name: str, uses: Mapping[str, MethodUse], marks: Mapping[str, list[str]]
) -> list[Row]:
    ranks = rank_methods(block, SPEC)
    rows = []
    for noise in block.columns:
        scale = _scale(block, noise)
        for method in block.rows:
            group = block.outcomes[method, noise]
            if not group:
                continue
            state = _state(group)
            reasons = block.aggregates[method, noise, block.metrics[noise][0], "last"].reasons
            first = next((o.record for o in group if o.record is not None), None)
            rows.append(
                Row(
                    suite=name,
                    method=data.methods[method].label,
                    method_page=f"{file_name(uses[method].slug)}.html",
                    marks=sorted(marks.get(method, [])),
                    dataset=block.key,
                    noise=noise,
                    values=_values(block, method, noise, ranks, STATES[state]),
                    published=_published(group[0].entry, first),
                    seeds=[_seed(outcome, folder) for outcome in group],
                    state=state,
                    reasons=[reason for reason in reasons if reason != STATES[state]],
                    canonical=not any(o.record is not None and non_canonical(o.record) for o in group),
                    spark=sparkline(_mean_curve(group), *scale, f"test accuracy of {data.methods[method].label} over epochs"),
                )
            )
    return rows


def _values(
    block: Block, method: str, noise: str, ranks: Mapping[tuple[str, str, str, str], str], absent: str
) -> dict[tuple[str, str], Value]:
    return {
        (metric, protocol): _value(item, ranks.get((method, noise, metric, protocol)) == "best", absent)
        for metric in block.metrics[noise]
        for protocol in PROTOCOLS
        if (item := block.aggregates.get((method, noise, metric, protocol))) is not None
    }


def _value(item: Aggregate, best: bool, absent: str) -> Value:
    """'83.1 ± 0.4', with '(2/3)' where seeds are absent; the state of the row where there is no number."""
    if item.mean is None:
        return Value(PHRASES["unmeasured"] if item.status == "unmeasured" else absent)
    text = percent(item.mean, 1)
    if item.spread is not None:
        text += f" ± {percent(item.spread, 1)}"
    if item.n < item.n_planned:
        text += f" ({item.n}/{item.n_planned})"
    return Value(text, f"{item.mean:.6g}", best)


def _published(entry: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[str]:
    """What papers print for this row; its noise is the record's, else read from a label of the plain form `kind@rate`."""
    noise = ((record or {}).get("cell") or {}).get("noise")
    if not noise:
        match = re.fullmatch(r"([a-z-]+)(?:@(\d*\.?\d+))?", str(entry["noise"]))
        noise = {"kind": match[1], "rate": float(match[2]) if match[2] else None} if match else {}
    return quotes(str(entry["dataset"]), noise, str(entry["method"]))


def _seed(outcome: Outcome, folder: str) -> Seed:
    page = f"{folder}/{file_name(outcome.entry['id'])}.html" if outcome.record is not None else ""
    return Seed(outcome.entry["seed"], outcome.status, page)


def _state(group: Sequence[Outcome]) -> str:
    statuses = [outcome.status for outcome in group]
    if "done" in statuses:
        return "done" if set(statuses) == {"done"} else "partial"
    return max(statuses, key=statuses.count)


def _mean_curve(group: Sequence[Outcome]) -> Points:
    """Mean test accuracy of the finished seeds at the epochs that all of them have."""
    seeds = [dict(points(o.record.get("curve") or {}, "test_acc")) for o in group if o.done and o.record is not None]
    seeds = [seed for seed in seeds if seed]
    if not seeds:
        return []
    return [(epoch, sum(s[epoch] for s in seeds) / len(seeds)) for epoch in sorted(set(seeds[0]).intersection(*seeds[1:]))]


def _scale(block: Block, noise: str) -> tuple[float, float]:
    """Common to the small curves of a (data set, noise), so that they can be compared; without the steep first tenth of
    training, which would squeeze the rest."""
    curves = [curve for (_, at), group in block.outcomes.items() if at == noise and (curve := _mean_curve(group))]
    lows = [y for curve in curves for epoch, y in curve if epoch > curve[-1][0] / 10]
    return (min(lows), max(y for curve in curves for _, y in curve)) if lows else (0.0, 100.0)


def _notes(data: TableData, methods: list[tuple[str, str]]) -> Notes:
    ran = [block for block in data.blocks if block.records] or data.blocks
    parts = [sentence for block in ran for part in caption(block, SPEC)[1:] for sentence in part]  # [0]: see suite.html
    blocks = [(block.key, conditions(block), noise_notes(block)) for block in data.blocks]
    return Notes(methods, list(dict.fromkeys(parts)), blocks)
