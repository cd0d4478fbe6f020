"""The leaderboard as Markdown, and the short README of each suite's folder. Same records, same bytes; no dates."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.report.aggregate import PHRASES, Aggregate, summarize
from bench.report.captions import NON_CANONICAL_MARK, letter, need_note, networks_note
from bench.report.escape import clean, markdown, markdown_label
from bench.report.leaderboard import PROTOCOLS_SHOWN, Board, Group, Row, own_training, plain, usual_training
from bench.report.published import quotes
from bench.report.spec import METRICS, PROTOCOLS

INTRODUCTION = """\
Written by `bench leaderboard` from all records below this folder; never edited by hand. Every cell counts once, also where
several suites hold it. One table for each data set, noise (with all its conventions), backbone, number of epochs and validation
protocol: rows of different budgets are never in one table. Rows that train with other settings than most of theirs are marked.

- Percent on the test split, mean ± sample standard deviation (ddof = 1) over n seeds. *last*: after the last epoch. *selected*:
  at the epoch with the highest validation accuracy. *best (oracle)*: at the epoch with the highest test accuracy, which nobody
  can choose without the test labels; it ranks nobody.
- Ranked by accuracy, or by the worst group where the data set has groups, at the *selected* epoch; at the *last* one where some
  method of the table has no validation data. That column's head is in bold. Equal ranks: equal at the printed precision.
- Nothing absent is averaged over: a row with seeds that failed, diverged, were skipped or have not run has no rank, its mean is
  over the n of m seeds that it states, and a note tells why. Methods with privileged information are ranked and marked.
- Ranks compare equal seeds: those of most rows of the table without absent seeds (of equally many rows, the larger set). A row
  that lacks one of them has no rank; one that has more is ranked by its mean over these alone. A note at its n tells so.
- *s*: mean seconds of a cell on the named devices, set-up and evaluation included. *FE*: forward-equivalents per training image
  and epoch; a forward pass is 1, a forward and backward pass 3. *published*: what the papers print for the method on this data
  set, kind of noise and rate; their definition of the noise, backbone and budget can differ, the data where a note says so."""


def render_board(board: Board) -> str:
    parts = ["# Leaderboard", INTRODUCTION, _extent(board)]
    groups = board.ordered()
    if groups:
        parts.append(_contents(groups))
    parts += [_group(group) for group in groups]
    if board.unplaced:
        parts.append("## Not run yet\n\n" + "\n".join(_unplaced(board)))
    if board.conflicts:
        parts.append("## Records that disagree\n\n" + "\n".join(f"- {markdown(text)}" for text in sorted(board.conflicts)))
    if board.corrupt:
        parts.append("## Corrupt records\n\n" + _listed(board.corrupt))
    return "\n\n".join(parts) + "\n"


def _listed(faults: Mapping[str, str]) -> str:
    return "\n".join(f"- {markdown(name)}: {markdown(why)}" for name, why in sorted(faults.items()))


def _extent(board: Board) -> str:
    links = ", ".join(f"[{markdown(name)}]({quote(name)}/README.md)" for name in board.suites)
    copies = f" ({board.copies} more are copies of the same cells)" if board.copies else ""
    lines = [f"{board.records} cells{copies} in {len(board.groups)} tables; suites: {links or 'none'}."]
    for why in sorted(set(board.aside.values())):
        names = ", ".join(f"[{markdown(name)}]({quote(name)}/README.md)" for name, reason in board.aside.items() if reason == why)
        lines.append(f"Left out, since each {why} instead of comparing methods: {names}.")
    return "\n".join(lines)


def _contents(groups: list[Group]) -> str:
    lines = ["| data set, noise | backbone | epochs | methods | first |", "| :-- | :-- | --: | --: | :-- |"]
    for group in groups:
        first = [row.label for key, row in group.rows.items() if group.ranks.get(key) == 1]
        leader = ", ".join(markdown(label) for label in sorted(first)) or "nobody yet"
        name = f"[{markdown(group.title)}](#{anchor(group)})"
        lines.append(f"| {name} | {markdown(_backbone(group))} | {plain(group.epochs)} | {len(group.rows)} | {leader} |")
    return "\n".join(lines)


def anchor(group: Group) -> str:
    return "g" + hashlib.sha256(group.key.encode()).hexdigest()[:10]


def _backbone(group: Group) -> str:
    rest = {key: value for key, value in group.model.items() if key != "name"}
    return f"{plain(group.model.get('name'))}{f' ({plain(rest)})' if rest else ''}"


def _group(group: Group) -> str:
    title = f'## <a id="{anchor(group)}"></a>{markdown_label(group.labels[0])}, {markdown_label(group.labels[1])}'
    notes = _Notes()
    return "\n\n".join(part for part in (title, _facts(group), _table(group, notes), notes.text()) if part)


def _facts(group: Group) -> str:
    rest = {key: value for key, value in group.dataset.items() if key not in ("name", "revision")}
    usual = {key: value for key, value in usual_training(group).items() if key != "epochs"}
    low, high = (f"{min(group.rates):.3f}", f"{max(group.rates):.3f}") if group.rates else ("unknown", "unknown")
    nominal = ", ".join(f"{rate:g}" for rate in sorted(group.nominal)) or "not stated"
    validation = "; ".join(sorted(group.validation)) or "none recorded"
    facts = [
        f"Data: {plain(group.dataset.get('name'))} {plain(rest)}".rstrip()
        + "".join(f"; {count} test images" for count in sorted(group.tests)),
        f"Noise: {'; '.join(sorted(group.definitions)) or 'no record yet'}; nominal rate {nominal}, measured "
        + (low if low == high else f"{low} to {high} over seeds"),
        f"Conventions: {plain(group.noise)}",
        f"Backbone: {_backbone(group)}; {plain(group.epochs)} epochs; training: {plain(_set(usual))}",
        f"Validation: {validation}; {plain({k: v for k, v in group.protocol.items() if k not in ('version', 'validation')})}",
    ]
    if group.devices:
        facts.append(f"Devices: {'; '.join(sorted(group.devices))}")
    unpaired = _unpaired(group)
    if unpaired:
        facts.append(f"Warning: methods saw different labels for seed {', '.join(map(str, unpaired))}: not a paired comparison")
    return "\n".join(f"- {markdown(fact)}." for fact in facts)


def _set(training: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training without those that are switched off."""
    return {key: value for key, value in training.items() if value not in (None, [], False)}


def _unpaired(group: Group) -> list[int]:
    draws: dict[int, set[str]] = {}
    for row in group.rows.values():
        for seed, run in row.runs.items():
            if run.status == "done" and run.draw:
                draws.setdefault(seed, set()).add(run.draw)
    return sorted(seed for seed, found in draws.items() if len(found) > 1)


class _Notes:
    """Footnotes of one table, lettered in the order of their first mark."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        return self.marks.setdefault(text, letter(len(self.marks)))

    def text(self) -> str:
        return "\n".join(f"- <sup>{mark}</sup> {markdown(text)}" for text, mark in self.marks.items())


def _table(group: Group, notes: _Notes) -> str:
    shown = [(metric, protocol) for metric in group.metrics or ("test_acc",) for protocol in PROTOCOLS_SHOWN]
    quoted = {key: text for key, row in group.rows.items() if (text := quote_published(group, row))}
    heads = [_head(metric, protocol, (metric, protocol) == group.ranking) for metric, protocol in shown]
    head = ["", "method", *heads, "n", "s", "FE", *(["published"] if quoted else []), "records"]
    lines = ["| " + " | ".join(head) + " |", "| --: | :-- |" + " --: |" * (len(heads) + 3) + " :-- |" * (2 if quoted else 1)]
    usual = usual_training(group)
    for key in sorted(group.rows, key=lambda key: (group.ranks.get(key, len(group.rows) + 1), group.rows[key].label, key)):
        row = group.rows[key]
        items = [group.aggregates[key, metric, protocol] for metric, protocol in shown]
        main = group.aggregates[key, *group.ranking]
        name = markdown(row.label) + _sup([notes.mark(text) for text in _row_notes(row, usual)])
        cells = [_cell(item, item is main, notes) for item in items]
        lines.append(
            f"| {group.ranks.get(key, '')} | {name} | {' | '.join(cells)} | {_count(main)}"
            f"{_sup([notes.mark(text) for text in _seed_notes(group, key)])} | {_mean(row, 'seconds')} | "
            f"{_mean(row, 'work')} | " + (f"{markdown(quoted.get(key, ''))} | " if quoted else "") + f"{_links(row)} |"
        )
    return "\n".join(lines)


def _head(metric: str, protocol: str, ranking: bool) -> str:
    text = f"{METRICS[metric].label} {PROTOCOLS[protocol].label}"
    return f"**{text}**" if ranking else text


def _row_notes(row: Row, usual: Mapping[str, Any]) -> list[str]:
    counts = sorted(row.trusted)
    trusted = "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    found = [need_note(need, trusted if need == "trusted" else "") for need in row.needs]
    found += [networks_note(row.networks)] if row.networks > 1 else []
    own = own_training(row, usual)
    found += [f"own settings of training: {own}"] if own else []
    if any(run.canonical is False for run in row.runs.values()):
        found.append(f"{NON_CANONICAL_MARK} non-canonical data, unlike the papers'")
    return found


def _seed_notes(group: Group, key: str) -> list[str]:
    """What becomes of a row whose seeds are not those that the ranks are about."""
    own, shared = group.seeds.get(key, group.shared), ", ".join(map(str, sorted(group.shared)))
    if own == group.shared:
        return []
    if key in group.shared_means:
        return [f"ranked by its mean over the seeds {shared} of the other rows: {100 * group.shared_means[key]:.1f}"]
    return [f"not ranked: it has the seeds {', '.join(map(str, sorted(own)))}, ranks are over {shared}"]


def _sup(marks: list[str]) -> str:
    return f"<sup>{','.join(sorted(marks, key=lambda mark: (len(mark), mark)))}</sup>" if marks else ""


def _cell(item: Aggregate, ranked: bool, notes: _Notes) -> str:
    """The value, or a word for its absence; reasons are told once, at the column that ranks."""
    marks = [notes.mark(reason) for reason in item.reasons] if ranked else []
    if item.mean is None:
        word = PHRASES.get(item.status, item.status) if ranked else "-"
        return word + _sup(marks)
    spread = f" ± {100 * item.spread:.1f}" if item.spread is not None else ""
    return f"{100 * item.mean:.1f}{spread}{_sup(marks)}"


def _count(item: Aggregate) -> str:
    return f"{item.n}" if item.n == item.n_planned else f"{item.n} of {item.n_planned}"


def _mean(row: Row, what: str) -> str:
    finished = [run for run in row.runs.values() if run.status == "done"]
    mean, _ = summarize([value for run in finished if (value := getattr(run, what)) is not None])
    if mean is None:
        return "-"
    return f"{mean:.1f}" if mean < 1000 else f"{mean:.0f}"


def _links(row: Row) -> str:
    return " ".join(f"[{seed}]({quote(run.suite)}/{run.id}.json)" for seed, run in sorted(row.runs.items()))


# -- published numbers -------------------------------------------------------------------------------------------------
def quote_published(group: Group, row: Row) -> str:
    """'94.6 best, 94.2 last (scanmix table1)' for a row that runs the method as it is; else ''."""
    return "; ".join(quotes(str(group.dataset.get("name")), group.noise, row.plan_label))


def _unplaced(board: Board) -> list[str]:
    lines = []
    for (suite, dataset, noise, status, reason), count in sorted(board.unplaced.items(), key=lambda item: str(item[0])):
        text = f"{suite}: {dataset}, {noise}: {count} cells {PHRASES.get(status, status)}" + (f": {reason}" if reason else "")
        lines.append(f"- {markdown(text)}")
    return lines


# -- one suite ---------------------------------------------------------------------------------------------------------
def suite_readme(folder: Path, states: Counter[str], corrupt: Mapping[str, str], suite_file: str) -> str:
    """Title, state of the cells, tables, figures and the command that makes them. `states`: cells by state.

    The title is that of the rendered table; files are listed where they exist.
    """
    title = markdown(folder.name)
    table = folder / "table.md"
    if table.exists():
        with table.open(encoding="utf-8") as lines:
            first = lines.readline().strip()
        title = first[2:] if first.startswith("# ") else title
    order = ("done", "diverged", "failed", "skipped", "missing", "corrupt")
    counts = ", ".join(f"{states[state]} {PHRASES.get(state, state)}" for state in order if states.get(state)) or "none"
    beside = f" Records that the plan does not name: {states['unplanned']}." if states.get("unplanned") else ""
    parts = [f"# {title}", f"{sum(states[state] for state in order)} cells: {counts}.{beside}"]
    tables = [(name, text) for name, text in _TABLES if (folder / name).exists()]
    if tables:
        links = ", ".join(f"[{text}]({name})" for name, text in tables)
        parts.append(f"Table: {links}. Its caption says what the numbers are.")
    pictures = sorted(path.name for path in folder.glob("*.png"))
    parts += [f"![{markdown(Path(name).stem)}]({quote(name)})" for name in pictures]
    parts.append(f"Records: one JSON file for each cell ([what they hold](../README.md)); [all suites]({BOARD_FROM_SUITE}).")
    comment = "      # runs what is missing, then renders the table and figures"
    parts.append(f"```\nbench run {suite_file}{comment}\nbench leaderboard      # this page\n```")
    if corrupt:
        parts.append("Corrupt records:\n\n" + _listed(corrupt))
    return "\n\n".join(parts) + "\n"


_TABLES = (("table.md", "Markdown"), ("table.html", "HTML"), ("table.csv", "CSV"), ("table.tex", "LaTeX"))
BOARD_FROM_SUITE = "../LEADERBOARD.md"


def as_json(board: Board) -> dict[str, Any]:
    """The leaderboard as plain data: fractions, all digits."""
    groups = []
    for group in board.ordered():
        rows = []
        for key, row in group.rows.items():
            values = {
                f"{metric}_{protocol}": {"mean": item.mean, "spread": item.spread, "n": item.n, "n_planned": item.n_planned,
                                         "status": item.status, "reasons": list(item.reasons)}
                for metric in group.metrics or ("test_acc",) for protocol in PROTOCOLS_SHOWN
                for item in [group.aggregates[key, metric, protocol]]
            }  # fmt: skip
            rows.append(
                {"rank": group.ranks.get(key), "label": clean(row.label), "method": row.method, "training": row.training,
                 "needs": list(row.needs), "networks": row.networks, "values": values, "published": quote_published(group, row),
                 "records": [f"{run.suite}/{run.id}.json" for _, run in sorted(row.runs.items())]}
            )  # fmt: skip
        rows.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0, row["label"], json.dumps(row["records"])))
        groups.append(
            {"dataset": group.dataset, "noise": group.noise, "model": group.model, "epochs": group.epochs,
             "protocol": group.protocol, "labels": list(group.labels), "ranked_by": list(group.ranking),
             "ranked_seeds": sorted(group.shared), "rows": rows}
        )  # fmt: skip
    return {"groups": groups, "records": board.records, "copies": board.copies, "corrupt": board.corrupt,
            "conflicts": sorted(board.conflicts), "left_out": board.aside}  # fmt: skip

